"""The figures that rules judge, each from where it really comes from: the ledger, schedules, engines, requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from tests.automation.test_alerts import ADMIN, Place
from tests.automation.test_schedules import WORKFLOW

from nexus.automation import counting
from nexus.automation.alert_measuring import Measures
from nexus.automation.alert_rule_service import AlertRuleService
from nexus.automation.metric_sampler import MetricSampler
from nexus.automation.schedules import ScheduleService
from nexus.automation.service import AutomationService
from nexus.core.errors import NexusError
from nexus.files.service import FileService
from nexus.http.edge import build_edge
from nexus.http.lifecycle import Lifecycle
from nexus.http.settings import HTTPSettings
from nexus.ledger.budget_book import BudgetBook
from nexus.ledger.budget_service import BudgetService
from nexus.ledger.service import Ledger
from nexus.ledger.types import Invocation
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings
from nexus.llm.types import ChatRequest, Message, Text
from nexus.metering import count_runs
from nexus.runs import engine_storage
from nexus.runs.completion import finish
from nexus.runs.executor import terms_of
from nexus.runs.transitions import Failed, Succeeded
from nexus.runs.types import Failure, Run, RunSpec, StepSpec
from nexus.storage.blobs.local import LocalBlobs
from nexus.storage.db import Database
from nexus.telemetry.metrics import observe_request
from nexus.testing.upstream import FakeUpstream

pytestmark = pytest.mark.slow


@pytest.fixture
def place(any_database: Database, tmp_path: Path) -> Place:
    place = Place(any_database, tmp_path)
    place.clock.at = datetime.now(UTC)
    return place


@pytest.fixture
async def ledger(place: Place, tmp_path: Path) -> AsyncIterator[Ledger]:
    ledger = Ledger(database=place.database, folder=tmp_path / "ledger")
    yield ledger
    ledger.flush_now()


def standing(place: Place) -> list[tuple[str, str]]:
    return [(key, status) for key, status, _ in place.found()]


async def look(place: Place, seconds: float = 30.0) -> list[tuple[str, str]]:
    """Let time pass and a scheduler look; return what is found."""
    place.clock.at += timedelta(seconds=seconds)
    await place.watch().tick()
    return standing(place)


async def test_budgets_by_what_the_ledger_has(place: Place, ledger: Ledger) -> None:
    place.clock.at = datetime(2026, 11, 26, 12, tzinfo=UTC)
    book = BudgetBook(database=place.database, ledger=ledger, clock=place.clock)
    budgets = BudgetService(database=place.database, book=book, clock=place.clock)
    place.measures = Measures(database=place.database, clock=place.clock, book=book)
    place.rules = AlertRuleService(
        database=place.database, alerts=place.alerts, measures=place.measures, runs=place.runs, clock=place.clock
    )
    made = await budgets.create(ADMIN, scope="project", amount_usd=10.0, period="month", name="ours", alerts=[80])
    budget = made.row.id
    await place.rule({"kind": "budget", "percent": [80, 100]})
    assert await look(place) == []

    async def spend(dollars: float, project: str = "prj_a") -> None:
        call = Invocation(project_id=project, principal_id="key_a", kind="chat", model="m", cost_usd=dollars)
        call.created_at = place.clock.at
        ledger.record(call)
        await ledger.flush()
        await book.refresh()

    await spend(7.9)
    await spend(900.0, "prj_b")
    assert await look(place) == []
    await spend(0.2)
    assert await look(place) == [(f"{budget}:80", "firing")]
    await spend(2.0)
    assert await look(place) == [(f"{budget}:80", "firing"), (f"{budget}:100", "firing")]
    alert = (await place.alerts.page(ADMIN))[0]
    assert alert.title == "101 % of the budget ours is spent"
    # The next month begins with nothing spent.
    assert await look(place, 10 * 86_400) == [(f"{budget}:80", "resolved"), (f"{budget}:100", "resolved")]


async def test_schedules_that_are_late_and_were(place: Place, tmp_path: Path) -> None:
    place.clock.at = datetime(2026, 11, 26, 12, 0, 30, tzinfo=UTC)
    files = FileService(database=place.database, blobs=LocalBlobs(tmp_path / "files"))
    automation = AutomationService(database=place.database, runs=place.runs, files=files, clock=place.clock)
    schedules = ScheduleService(database=place.database, automation=automation, runs=place.runs, clock=place.clock)
    await automation.apply(ADMIN, orjson.dumps(WORKFLOW))
    given: dict[str, Any] = {"workflow": "flow", "cron": "*/10 * * * *", "timezone": "UTC", "version": None}
    given |= {"inputs": {"n": 1}, "misfire": "once", "catch_up_limit": 1, "overlap": "allow", "enabled": True}
    await schedules.create(ADMIN, name="often", **given)
    await place.rule({"kind": "scheduler_lag", "seconds": 60})
    for _ in range(10):
        place.clock.at += timedelta(seconds=60)
        await schedules.tick()
        assert await look(place, 0) == []
    # Nobody fires what is due at 12:20.
    assert await look(place, 600 + 29) == []
    assert await look(place, 62) == [("schedules", "firing")]
    (alert,) = await place.alerts.page(ADMIN)
    assert (alert.details["schedule"], alert.value) == ("often", 121.0)
    await schedules.tick()
    assert await look(place) == [("schedules", "firing")]
    assert await look(place, 300) == [("schedules", "resolved")]


@pytest.mark.parametrize("misfire", ["once", "skip"])
async def test_a_lateness_that_was_made_up_for_before_anybody_looked(
    place: Place, tmp_path: Path, misfire: str
) -> None:
    place.clock.at = datetime(2026, 11, 26, 12, 0, 30, tzinfo=UTC)
    files = FileService(database=place.database, blobs=LocalBlobs(tmp_path / "files"))
    automation = AutomationService(database=place.database, runs=place.runs, files=files, clock=place.clock)
    schedules = ScheduleService(database=place.database, automation=automation, runs=place.runs, clock=place.clock)
    await automation.apply(ADMIN, orjson.dumps(WORKFLOW))
    given: dict[str, Any] = {"workflow": "flow", "cron": "0 * * * *", "timezone": "UTC", "version": None}
    given |= {"inputs": {"n": 1}, "misfire": misfire, "catch_up_limit": 1, "overlap": "allow", "enabled": True}
    await schedules.create(ADMIN, name="hourly", **given)
    await place.rule({"kind": "scheduler_lag", "seconds": 60})
    # Every engine was away for 20 minutes; the one that comes back fires first and looks then.
    place.clock.at += timedelta(minutes=80)
    await schedules.tick()
    assert await look(place) == [("schedules", "firing")]
    (alert,) = await place.alerts.page(ADMIN)
    assert alert.value == 20 * 60 + 30


async def test_calls_to_language_models_that_fail(place: Place, ledger: Ledger) -> None:
    with FakeUpstream() as upstream:
        provider = {"name": "up", "kind": "openai", "base_url": f"{upstream.url}/v1", "api_key": "k"}
        routes = [
            {"name": name, "deployments": [{"provider": "up", "model": model}]}
            for name, model in (("good", "gpt-4o"), ("bad", "fault-400"))
        ]
        settings = LLMSettings.model_validate({"providers": [provider], "routes": routes})
        llm = LLMService(settings=settings, record=ledger.record)
        await place.rule({"kind": "error_rate", "above": 0.4, "minimum": 5})
        await place.rule({"kind": "error_rate", "above": 0.4, "minimum": 2, "model": "good"}, name="good")

        async def ask(model: str) -> None:
            message = Message(role="user", parts=(Text(text="hello"),))
            await llm.chat(ADMIN, ChatRequest(model=model, messages=(message,)))

        for _ in range(3):
            await ask("good")
        with pytest.raises(NexusError):
            await ask("bad")
        await ledger.flush()
        assert await look(place) == []
        for _ in range(2):
            with pytest.raises(NexusError):
                await ask("bad")
        await ledger.flush()
        assert await look(place) == [("llm", "firing")]
    (alert,) = await place.alerts.page(ADMIN)
    assert alert.details == {"failed": 3, "total": 6}
    assert await look(place, 400) == [("llm", "resolved")]


async def test_requests_that_end_in_5xx(place: Place) -> None:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        if scope["path"] == "/api/v1/broken":
            raise RuntimeError("a bug")
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    edge = build_edge(app, settings=HTTPSettings(), lifecycle=Lifecycle(), observe=observe_request)
    transport = httpx2.ASGITransport(app=edge, raise_app_exceptions=False)
    sampler = MetricSampler(database=place.database, clock=place.clock)
    await place.rule({"kind": "error_rate", "of": "http", "above": 0.3, "minimum": 4})
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:

        async def ask(path: str, status: int) -> None:
            assert (await client.get(path)).status_code == status

        await ask("/api/v1/fine", 204)
        await sampler.sample()
        for _ in range(3):
            await ask("/api/v1/fine", 204)
        await ask("/api/v1/broken", 500)
        place.clock.at += timedelta(seconds=10)
        await sampler.sample()
        assert await look(place) == []
        for _ in range(2):
            await ask("/api/v1/broken", 500)
        await sampler.sample()
        assert await look(place) == [("http", "firing")]
    (alert,) = await place.alerts.page(ADMIN)
    assert alert.details == {"failed": 3, "total": 6}


async def run_once(place: Place, name: str, seconds: float, *, fail: bool = False) -> Run:
    """Let an engine take the one step of a run and end it after some seconds."""
    run = await place.runs.start(ADMIN, RunSpec("workflow", name, [StepSpec("a", "wait")]))
    terms, now = terms_of(place.settings), place.clock.now
    claimed = place.database.write_now(engine_storage.claim, run.steps[0].id, 1, "engine", now(), terms)
    assert claimed is not None
    place.clock.at += timedelta(seconds=seconds)
    if seconds:
        outcome = Failed(Failure("x", "broken")) if fail else Succeeded({})
        place.database.write_now(finish, claimed, outcome, now(), terms, owner="engine")
    return run


async def test_a_step_that_takes_longer_than_it_did_before(place: Place) -> None:
    await place.rule({"kind": "stuck_step", "factor": 3})
    for number in range(20):
        await run_once(place, "load", 1 + number % 4)
    run = await run_once(place, "load", 0)
    other = await run_once(place, "never-seen", 0)
    assert await look(place, 11) == []
    assert await look(place, 30) == [(run.steps[0].id, "firing")]
    (alert,) = await place.alerts.page(ADMIN)
    assert (alert.details["limit_seconds"], alert.details["run_id"]) == (12.0, run.id)
    assert other.id not in str(place.found())


async def test_a_metric_of_what_engines_did_beyond_a_threshold(place: Place) -> None:
    name, metric = f"load-{place.database.engine.dialect.name}", "nexus_runs_total"
    labels = {"workflow": name, "outcome": "failed"}
    given = {"kind": "metric", "metric": metric, "labels": labels, "op": ">="}
    await place.rule({**given, "threshold": 2}, name="value")
    await place.rule({**given, "threshold": 2, "of": "increase", "window": 120}, name="increase")
    sampler = MetricSampler(database=place.database, clock=place.clock)
    mark = await place.database.read(counting.begin, place.clock.now())

    async def count() -> list[str]:
        nonlocal mark
        place.clock.at += timedelta(seconds=10)
        done, mark = await place.database.read(counting.done_since, mark, place.clock.now())
        count_runs(done)
        await sampler.sample()
        await look(place)
        return [alert.rule for alert in await place.alerts.page(ADMIN, status="firing", descending=False)]

    await run_once(place, name, 1)
    await run_once(place, name, 1, fail=True)
    assert await count() == []
    await run_once(place, name, 1, fail=True)
    assert await count() == ["value"]
    for _ in range(2):
        await run_once(place, name, 1, fail=True)
    assert await count() == ["value", "increase"]
    # Nothing more has failed in the last two minutes.
    place.clock.at += timedelta(seconds=60)
    await count()
    assert await count() == ["value"]
