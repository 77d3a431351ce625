"""Alerts over real databases: found, told once by however many schedulers, acknowledged, resolved, delivered."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from tests.automation.conftest import WHO

import nexus.ledger.tables  # noqa: F401  the database fixtures create what has been imported
from nexus.access.types import Principal, Scope
from nexus.automation.alert_jobs import HANDLERS
from nexus.automation.alert_measuring import Measures
from nexus.automation.alert_routes import router
from nexus.automation.alert_rule_service import AlertRuleService
from nexus.automation.alert_tables import AlertRow, AlertRuleRow, DeliveryRow
from nexus.automation.alert_watch import AlertWatch
from nexus.automation.alerts import AlertService
from nexus.automation.channel_service import ChannelService
from nexus.automation.errors import (
    AlertResolved,
    AlertRuleInvalid,
    ChannelInvalid,
    ChannelNotFound,
    NameTaken,
)
from nexus.automation.metric_sampler import MetricSampler
from nexus.automation.secrets import SecretService
from nexus.compute.errors import ComputeCrashed
from nexus.core.clock import Clock
from nexus.core.errors import Forbidden
from nexus.core.secrets import Keyring
from nexus.core.services import Services
from nexus.http import fetch
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings
from nexus.runs.service import RunService
from nexus.runs.settings import RunsSettings
from nexus.runs.tables import RunRow, StepRow
from nexus.runs.types import Handlers, RunSpec, StepContext, StepSpec
from nexus.runs.worker import EngineWorker
from nexus.storage.db import Database
from nexus.storage.events import Events, publish
from nexus.telemetry import metrics
from nexus.testing.said import Said
from nexus.testing.script import Script, Seen, response
from nexus.testing.upstream import FakeUpstream, saying

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
ADMIN = Principal("key", "key_a", "prj_a", frozenset(Scope), key_id="key_a")


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()


class Place:
    def __init__(self, database: Database, folder: Path) -> None:
        self.clock: Any = Hands()
        self.database = database
        self.settings = RunsSettings(data_dir=folder, reap=0.1, heartbeat=0.5, lease=30.0, concurrency=2)
        self.runs = RunService(database=database, settings=self.settings, clock=self.clock)
        self.secrets = SecretService(database=database, keyring=Keyring(b"k" * 48), clock=self.clock)
        self.channels = ChannelService(
            database=database, runs=self.runs, secrets=self.secrets, clock=self.clock, public_url="https://nexus.test/"
        )
        self.alerts = AlertService(database=database, runs=self.runs, channels=self.channels, clock=self.clock)
        self.measures = Measures(database=database, clock=self.clock)
        self.rules = AlertRuleService(
            database=database, alerts=self.alerts, measures=self.measures, runs=self.runs, clock=self.clock
        )
        self.events = Events(database, self.clock)

    def watch(self) -> AlertWatch:
        return AlertWatch(
            database=self.database,
            events=self.events,
            alerts=self.alerts,
            measures=self.measures,
            runs=self.runs,
            clock=self.clock,
        )

    async def channel(self, kind: str = "webhook", **given: Any) -> str:
        plain: dict[str, Any] = {"name": "ops", "config": {}, "secret": None, "credential": None, "enabled": True}
        if kind == "webhook":
            plain["config"] = {"url": "http://127.0.0.1:9/hook"}
        row, made = await self.channels.create(ADMIN, kind=kind, **(plain | given))
        return made or row.id

    async def rule(self, condition: dict[str, Any], who: Principal = ADMIN, **given: Any) -> AlertRuleRow:
        plain: dict[str, Any] = {"name": "rule", "severity": "error", "channels": [], "lasting": 0.0}
        plain |= {"cooldown": 300.0, "every": 30.0, "tell_resolved": True, "summarize": False, "model": None}
        return await self.rules.create(who, condition=condition, **(plain | {"enabled": True} | given))

    async def tell(self, type_: str, once: str | None = None, **data: Any) -> None:
        await self.database.write(publish, type_, "prj_a", data, at=self.clock.now(), once=once)

    async def ended(self, name: str, status: str, **error: Any) -> None:
        data = {"run_id": "run_x", "kind": "workflow", "name": name, "status": status, "error": error or None}
        await self.tell("run.finished", **data)

    def found(self) -> list[tuple[str, str, int]]:
        query = select(AlertRow.key, AlertRow.status, AlertRow.count).order_by(AlertRow.id)
        return [tuple(row) for row in self.database.read_now(lambda s: s.execute(query).all())]

    def told(self) -> list[str]:
        query = select(DeliveryRow.event).order_by(DeliveryRow.id)
        return list(self.database.read_now(lambda s: s.execute(query).scalars().all()))

    def alert_runs(self) -> int:
        query = select(func.count()).select_from(RunRow).where(RunRow.kind == "alert")
        return int(self.database.read_now(lambda s: s.execute(query).scalar_one()))


@pytest.fixture
def place(any_database: Database, tmp_path: Path) -> Place:
    return Place(any_database, tmp_path)


@pytest.fixture
def loopback() -> Iterator[None]:
    fetch.configure(["127.0.0.0/8"])
    yield
    fetch.configure([])


@pytest.mark.slow
async def test_a_failed_run_is_told_and_the_next_good_one_resolves_it(place: Place) -> None:
    await place.channel()
    await place.rule({"kind": "run_failed", "workflow": "load"}, channels=["ops"])
    watch = place.watch()
    await watch.tick()
    await place.ended("other", "failed")
    await place.ended("load", "failed", code="x", message="broken", step="a")
    await place.ended("load", "failed")
    await watch.tick()
    assert place.found() == [("load", "firing", 2)]
    assert place.told() == ["alert.firing"]
    await place.ended("load", "succeeded")
    await watch.tick()
    assert place.told() == ["alert.firing", "alert.resolved"]
    # Within the cool-down it is counted, and nobody is told.
    place.clock.at += timedelta(seconds=100)
    await place.ended("load", "failed")
    await watch.tick()
    assert place.found() == [("load", "resolved", 3)]
    place.clock.at += timedelta(seconds=300)
    await place.ended("load", "failed")
    await watch.tick()
    assert place.found() == [("load", "resolved", 3), ("load", "firing", 1)]
    assert place.alert_runs() == 3


@pytest.mark.slow
async def test_five_schedulers_tell_each_change_once(place: Place) -> None:
    await place.channel()
    await place.channel(name="more")
    for number in range(3):
        condition = {"kind": "queue_age", "seconds": 60}
        await place.rule(condition, name=f"q{number}", channels=["ops", "more"])
    await place.rule({"kind": "run_failed"}, channels=["ops"])
    await place.runs.start(ADMIN, RunSpec("workflow", "w", [StepSpec("a", "wait")]))
    watches = [place.watch() for _ in range(5)]
    for second in range(8):
        if second == 4:
            await place.ended("w", "failed")
        await asyncio.gather(*(watch.tick() for watch in watches))
        place.clock.at += timedelta(seconds=30)
    assert sorted(place.found()) == [("queues", "firing", 1)] * 3 + [("w", "firing", 1)]
    assert place.told() == ["alert.firing"] * 7
    assert place.alert_runs() == 4


@pytest.mark.slow
async def test_acknowledging_says_who_and_tells_once(place: Place) -> None:
    await place.channel()
    rule = await place.rule({"kind": "drift"}, channels=["ops"])
    watch = place.watch()
    await watch.tick()
    await place.tell("model.drifted", model="churn", score=0.4)
    await watch.tick()
    (alert,) = await place.alerts.page(ADMIN)
    assert (alert.key, alert.value, alert.severity) == ("churn", 0.4, "error")
    done = await asyncio.gather(*(place.alerts.acknowledge(ADMIN, alert.id, f"me {n}") for n in range(3)))
    assert {row.acknowledged_by for row in done} == {"key_a"}
    assert place.told() == ["alert.firing", "alert.acknowledged"]
    place.clock.at += timedelta(days=1, seconds=1)
    await watch.tick()
    row, history = await place.alerts.get(ADMIN, alert.id)
    assert row.status == "resolved"
    assert [line.type for line in history].count("acknowledged") == 3
    with pytest.raises(AlertResolved):
        await place.alerts.acknowledge(ADMIN, alert.id, None)
    await place.rules.delete(ADMIN, rule.id)


@pytest.mark.slow
async def test_a_rule_that_is_disabled_or_deleted_ends_its_alerts(place: Place) -> None:
    await place.channel()
    rule = await place.rule({"kind": "run_failed"}, channels=["ops"])
    watch = place.watch()
    await watch.tick()
    await place.ended("w", "failed")
    await watch.tick()
    await place.rules.change(ADMIN, rule.id, {"enabled": False})
    assert place.told() == ["alert.firing", "alert.resolved"]
    await place.ended("w", "failed")
    await watch.tick()
    assert len(place.found()) == 1
    await place.rules.delete(ADMIN, rule.id)


@pytest.mark.slow
async def test_stuck_steps_lasting_conditions_and_dead_letters(place: Place) -> None:
    stuck = await place.rule({"kind": "stuck_step", "seconds": 60}, name="stuck", lasting=60.0)
    await place.rule({"kind": "dead_letter"}, name="dead")
    await place.runs.start(ADMIN, RunSpec("workflow", "w", [StepSpec("a", "wait")]))

    def run(session: Any) -> None:
        session.execute(StepRow.__table__.update().values(status="running", started_at=place.clock.now()))

    await place.database.write(run)
    watch = place.watch()
    seen = []
    for _ in range(6):
        await watch.tick()
        seen.append(len(place.found()))
        place.clock.at += timedelta(seconds=30)
    # Over the limit at 90 s, and for a minute at 150 s.
    assert seen == [0, 0, 0, 0, 0, 1]
    assert (await place.rules.test(ADMIN, stuck.id))["firing"] is True
    await place.database.write(lambda s: s.execute(StepRow.__table__.update().values(status="succeeded")))
    await watch.tick()
    assert [status for _, status, _ in place.found()] == ["resolved"]
    # A run that fails by it is one dead letter, not two.
    error = {"code": "step_dead_lettered", "message": "given up"}
    await place.tell("step.dead_lettered", run_id="run_x", kind="workflow", name="w", step="a", error=error)
    await place.ended("w", "failed", **error, step="a")
    await watch.tick()
    assert place.found()[-1] == ("w", "firing", 1)


@pytest.mark.slow
@pytest.mark.parametrize("go_on", [False, True])
async def test_a_dead_letter_is_told_though_its_run_goes_on(place: Place, go_on: bool) -> None:
    await place.rule({"kind": "dead_letter"}, name="dead")
    watch = place.watch()
    await watch.tick()

    async def crash(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        raise ComputeCrashed

    steps = [StepSpec("a", "crash", go_on=go_on)]
    run = await place.runs.start(ADMIN, RunSpec("workflow", "w", steps))
    await place.runs.start(ADMIN, RunSpec("train", "other", steps))
    await _work(place, handlers={"crash": crash})
    assert (await place.runs.get(ADMIN, run.id)).status == ("succeeded" if go_on else "failed")
    await watch.tick()
    (alert,) = await place.alerts.page(ADMIN)
    assert (alert.key, alert.count, alert.title) == ("w", 1, "Step a of w was given up")
    assert alert.details["run_id"] == run.id


@pytest.mark.slow
async def test_failure_rates_and_usage(place: Place) -> None:
    rule = await place.rule({"kind": "failure_rate", "above": 0.5, "minimum": 2})
    quiet = await place.rule({"kind": "usage", "of": "calls", "threshold": 0, "op": "<="}, name="quiet")
    for _ in range(3):
        await place.runs.start(ADMIN, RunSpec("workflow", "w", [StepSpec("a", "wait")]))
    ended = {"status": "failed", "finished_at": place.clock.now()}
    await place.database.write(lambda s: s.execute(RunRow.__table__.update().values(**ended)))
    seen = await place.rules.test(ADMIN, rule.id)
    assert seen["readings"][0]["details"] == {"failed": 3, "total": 3}
    assert seen["firing"] is True
    assert (await place.rules.test(ADMIN, quiet.id))["firing"] is True


@pytest.mark.slow
async def test_what_is_refused(place: Place) -> None:
    with pytest.raises(AlertRuleInvalid):
        await place.rule({"kind": "run_failed"}, channels=["nobody"])
    with pytest.raises(AlertRuleInvalid):
        await place.rule({"kind": "run_failed"}, lasting=5.0)
    for condition in ({"kind": "metric"}, {"kind": "error_rate", "of": "http"}, {"kind": "budget"}):
        with pytest.raises(Forbidden):
            await place.rule(condition, who=WHO)
    with pytest.raises(Forbidden):
        await place.rule({"kind": "run_failed"}, who=WHO, summarize=True)
    await place.rule({"kind": "run_failed"})
    with pytest.raises(NameTaken):
        await place.rule({"kind": "run_failed"})
    for kind, given in (
        ("pigeon", {}),
        ("webhook", {"config": {}}),
        ("webhook", {"credential": "not a key"}),
        ("email", {"config": {"host": "h", "sender": "a@b.c", "recipients": ["no"]}}),
        ("email", {"config": {"host": "h", "sender": "a@b.c", "recipients": ["a@b.c\nBcc: x@y.z"]}}),
    ):
        with pytest.raises(ChannelInvalid):
            await place.channel(kind, **given)
    with pytest.raises(ChannelNotFound):
        await place.channels.get(ADMIN, "ops")


@pytest.mark.slow
@pytest.mark.usefixtures("loopback")
async def test_an_alert_arrives_signed_after_the_other_side_was_down(database: Database, tmp_path: Path) -> None:
    answers = iter([response(503, b""), response(302, b"", "location: http://127.0.0.1:1/"), response(204, b"")])
    with FakeUpstream(lambda _request: Script((next(answers),))) as upstream:
        place = Place(database, tmp_path)
        key = await place.channel(config={"url": f"{upstream.url}/hook"})
        await place.rule({"kind": "run_failed"}, channels=["ops"])
        watch = place.watch()
        await watch.tick()
        await place.ended("load", "failed", code="x", message="broken", step="a")
        await watch.tick()
        await _work(place)
        (delivery,) = await place.channels.deliveries(ADMIN, "ops")
        assert (delivery.status, delivery.attempts, delivery.answer_status) == ("delivered", 3, 204)
        assert len(upstream.seen) == 3
        assert len({seen.headers["webhook-id"] for seen in upstream.seen}) == 1
        assert all(_signed(seen, key) for seen in upstream.seen)
        body = upstream.seen[-1].json
        assert (body["type"], body["data"]["title"]) == ("alert.firing", "A run of load has failed")
        assert body["data"]["link"].startswith("https://nexus.test/api/v1/alerts/alr_")
        stored = await place.channels.get(ADMIN, "ops")
        assert key not in str(vars(stored)) + str(delivery.notice)


@pytest.mark.slow
async def test_links_lead_to_what_is_there(place: Place) -> None:
    await place.channel()
    await place.rule({"kind": "run_failed"}, channels=["ops"], name="runs")
    await place.rule({"kind": "drift"}, channels=["ops"], name="drift")
    watch = place.watch()
    await watch.tick()
    run = await place.runs.start(ADMIN, RunSpec("workflow", "load", [StepSpec("a", "wait")]))
    failed = {"run_id": run.id, "kind": "workflow", "name": "load", "status": "failed", "error": {"step": "a"}}
    await place.tell("run.finished", **failed)
    await place.tell("model.drifted", model="churn", score=0.4)
    await watch.tick()
    links = {row.notice["link"] for row in await place.channels.deliveries(ADMIN)}
    (drift,) = [alert for alert in await place.alerts.page(ADMIN) if alert.kind == "drift"]
    assert links == {f"https://nexus.test/runs/{run.id}", f"https://nexus.test/api/v1/alerts/{drift.id}"}
    pages = re.findall(r"path: '(/[^']*)'", (ROOT / "dashboard/src/router.tsx").read_text(encoding="utf-8"))
    paths = [re.sub(r"\$\w+", "[^/]+", page) for page in pages]
    paths += [re.sub(r"{\w+}", "[^/]+", f"/api/v1{route.path}") for route in router.routes]  # type: ignore[attr-defined]
    for link in links:
        assert any(re.fullmatch(path, link.removeprefix("https://nexus.test")) for path in paths), link


def _signed(seen: Seen, key: str) -> bool:
    signed = f"{seen.headers['webhook-id']}.{seen.headers['webhook-timestamp']}.".encode() + seen.body
    digest = hmac.digest(base64.b64decode(key.removeprefix("whsec_")), signed, hashlib.sha256)
    return seen.headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


async def _work(place: Place, *more: Any, handlers: Handlers = HANDLERS) -> None:
    """Let an engine do what waits, moving the clock on to the next attempt."""
    services = Services()
    for service in (place.database, place.runs, place.channels, *more):
        services.put(service)
    services.put(place.clock, as_type=Clock)
    worker = EngineWorker(
        database=place.database, handlers=handlers, services=services, settings=place.settings, clock=place.clock
    )
    await worker.start()
    try:
        for _ in range(400):
            left = select(func.count()).select_from(RunRow).where(RunRow.finished_at.is_(None))
            if not place.database.read_now(lambda s, q=left: s.execute(q).scalar_one()):
                return
            await asyncio.sleep(0.05)
            place.clock.at += timedelta(seconds=1)
        raise AssertionError("the runs do not end")
    finally:
        await worker.drain(1)


@pytest.mark.slow
@pytest.mark.usefixtures("loopback")
async def test_a_receiver_that_is_gone_disables_its_channel(database: Database, tmp_path: Path) -> None:
    with FakeUpstream(lambda _request: Script((response(410, b""),))) as upstream:
        place = Place(database, tmp_path)
        await place.channel(config={"url": f"{upstream.url}/hook"})
        tried = await place.channels.test(ADMIN, "ops")
        assert (tried.status, tried.answer_status, (tried.error or {})["code"]) == ("failed", 410, "channel_gone")
        channel = await place.channels.get(ADMIN, "ops")
        assert channel.enabled is False
        assert "410" in (channel.disabled_because or "")
        channel = await place.channels.change(ADMIN, "ops", {"enabled": True})
        assert channel.disabled_because is None


@pytest.mark.slow
@pytest.mark.usefixtures("loopback")
async def test_a_delivery_is_sent_again_under_the_same_message_id(database: Database, tmp_path: Path) -> None:
    with FakeUpstream(lambda _request: Script((response(200, b"ok"),))) as upstream:
        place = Place(database, tmp_path)
        await place.channel(config={"url": f"{upstream.url}/hook"})
        first = await place.channels.test(ADMIN, "ops")
        assert await place.channels.deliver("prj_a", first.id) == 200
        assert len(upstream.seen) == 1, "what was delivered is not sent again by itself"
        again, _run = await place.channels.redeliver(ADMIN, first.id)
        await _work(place)
        assert (await place.channels.delivery(ADMIN, again.id)).status == "delivered"
        assert len({seen.headers["webhook-id"] for seen in upstream.seen}) == 1
        assert len(upstream.seen) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("loopback")
@pytest.mark.parametrize("model", ["good", "broken", "none"])
async def test_a_real_model_adds_a_summary_and_holds_up_nothing(database: Database, tmp_path: Path, model: str) -> None:
    with FakeUpstream(lambda _r: Script((response(200, b"ok"),))) as hook, FakeUpstream() as upstream:
        if model == "good":
            upstream.answering = saying(Said(text="The table is missing. Look at the last migration."))
        providers = [{"name": "up", "kind": "openai", "base_url": f"{upstream.url}/v1", "api_key": "k"}]
        name = "fault-401" if model == "broken" else "gpt-4o"
        routes = [{"name": "smart", "deployments": [{"provider": "up", "model": name}]}]
        given = {} if model == "none" else {"providers": providers, "routes": routes}
        llm = LLMService(settings=LLMSettings.model_validate(given), record=lambda _call: None)
        place = Place(database, tmp_path)
        await place.channel(config={"url": f"{hook.url}/hook"})
        await place.rule({"kind": "run_failed"}, channels=["ops"], summarize=True)
        watch = place.watch()
        await watch.tick()
        await place.ended("load", "failed", code="x", message="no such table", step="a")
        await watch.tick()
        await _work(place, llm)
        assert len(hook.seen) == 1
        (alert,) = await place.alerts.page(ADMIN)
        text = hook.seen[0].json["data"]["text"]
        if model == "good":
            assert alert.summary == text == "The table is missing. Look at the last migration."
            assert "no such table" in upstream.seen[0].json["messages"][1]["content"]
        else:
            assert (alert.summary, text) == (None, "")
        assert bool(upstream.seen) is (model != "none")


@pytest.mark.slow
async def test_metrics_of_processes_and_budgets_are_measured(place: Place) -> None:
    rule = await place.rule({"kind": "metric", "metric": "nexus_runs_total", "threshold": 0.5, "of": "increase"})
    metrics.RUNS.labels("sampled", "succeeded").inc()
    sampler = MetricSampler(database=place.database, clock=place.clock)
    await sampler.sample()
    metrics.RUNS.labels("sampled", "succeeded").inc(3)
    place.clock.at += timedelta(seconds=10)
    await sampler.sample()
    seen = await place.rules.test(ADMIN, rule.id)
    assert (seen["firing"], seen["readings"][0]["value"]) == (True, 3.0)
    await place.watch().tick()
    assert place.found() == [("metric", "firing", 1)]
    # The process is gone: nothing is known, so nothing changes.
    place.clock.at += timedelta(seconds=120)
    await place.watch().tick()
    assert place.found() == [("metric", "firing", 1)]
