"""Triggers: webhooks through the real door, events exactly once for each trigger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from sqlalchemy import func, select, update
from tests.automation.conftest import WHO
from tests.automation.test_schedules import Hands
from tests.automation.test_signatures import github, slack, standard, stripe

from nexus.automation.errors import (
    ExpressionError,
    InputsInvalid,
    NameTaken,
    TriggerInvalid,
    TriggerNotFound,
)
from nexus.automation.hooks import HOOKS
from nexus.automation.service import AutomationService
from nexus.automation.settings import AutomationSettings
from nexus.automation.trigger import TRIGGERS
from nexus.automation.trigger_firing import TriggerFiring, fits
from nexus.automation.trigger_service import TriggerService
from nexus.automation.trigger_tables import TriggerDeliveryRow, TriggerRow
from nexus.catalog.storage import move_alias
from nexus.core.secrets import Keyring
from nexus.core.services import Services
from nexus.files.service import FileService
from nexus.http.dispatch import Dispatch
from nexus.http.edge import build_edge
from nexus.http.lifecycle import Lifecycle
from nexus.http.settings import HTTPSettings
from nexus.runs.errors import QueueFull
from nexus.runs.records import principal_of, starter_of
from nexus.runs.service import RunService
from nexus.runs.settings import RunsSettings
from nexus.runs.tables import RunRow, StepRow
from nexus.storage.blobs.local import LocalBlobs
from nexus.storage.db import Database
from nexus.storage.events import Events

WORKFLOW = {
    "name": "flow",
    "inputs": {"n": {"type": "any"}},
    "steps": [{"key": "a", "uses": "file.write", "with": {"name": "x", "content": "{{ inputs.n }}"}}],
}
PLAIN = "a shared secret of the two"
JSON = {"content-type": "application/json"}
SLACK = {
    "header": "X-Slack-Signature",
    "prefix": "v0=",
    "content": "v0:{timestamp}:{body}",
    "timestamp_header": "X-Slack-Request-Timestamp",
}


class House:
    """The services of triggers and the door, on one database."""

    def __init__(self, database: Database, folder: Path, **settings: Any) -> None:
        self.clock = Hands()
        self.database = database
        runs = RunsSettings(data_dir=folder, **settings)
        self.runs = RunService(database=database, settings=runs, clock=self.clock)
        self.files = FileService(database=database, blobs=LocalBlobs(folder / "files"))
        self.automation = AutomationService(database=database, runs=self.runs, files=self.files, clock=self.clock)
        self.events = Events(database, self.clock)
        self.firing = self.another()
        self.triggers = TriggerService(
            database=database,
            automation=self.automation,
            firing=self.firing,
            keyring=Keyring(b"k" * 48),
            clock=self.clock,
        )
        services = Services()
        for service in (self.triggers, AutomationSettings(hook_body_limit=2_000)):
            services.put(service)
        app = Dispatch(_nothing, services=services, hot=HOOKS)
        edge = build_edge(app, settings=HTTPSettings(), lifecycle=Lifecycle())
        self.http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=edge), base_url="http://localhost")

    def another(self) -> TriggerFiring:
        """One more scheduler's."""
        return TriggerFiring(
            database=self.database, automation=self.automation, runs=self.runs, events=self.events, clock=self.clock
        )

    @property
    def at(self) -> int:
        return int(self.clock.at.timestamp())

    async def trigger(self, kind: str = "webhook", **given: Any) -> tuple[TriggerRow, str]:
        await self.automation.apply(WHO, orjson.dumps(WORKFLOW))
        plain: dict[str, Any] = {"kind": kind, "workflow": "flow", "name": None, "config": {}, "version": None}
        plain |= {"inputs": {"n": "{{ event.body }}" if kind == "webhook" else "{{ event.data }}"}}
        plain |= {"when": None, "overlap": "allow", "enabled": True, "secret": None}
        row, secret = await self.triggers.create(WHO, **(plain | given))
        return row, secret.reveal() if secret else ""

    async def call(self, row: TriggerRow, headers: dict[str, str], body: bytes) -> httpx2.Response:
        return await self.http.post(f"/hooks/{row.id}", headers={**JSON, **headers}, content=body)

    async def work_off(self) -> None:
        """Leave nothing waiting."""
        await self.database.write(lambda s: s.execute(update(StepRow).values(status="succeeded")))
        self.runs._room.looked = float("-inf")

    def count(self, table: type) -> int:
        return self.database.read_now(lambda s: s.execute(select(func.count()).select_from(table)).scalar_one())

    def inputs(self) -> list[Any]:
        query = select(RunRow.inputs).order_by(RunRow.id)
        return [row["n"] for row in self.database.read_now(lambda s: s.execute(query).scalars().all())]

    def outcomes(self) -> list[tuple[str, str | None]]:
        query = select(TriggerDeliveryRow.outcome, TriggerDeliveryRow.reason).order_by(TriggerDeliveryRow.id)
        return [(outcome, reason) for outcome, reason in self.database.read_now(lambda s: s.execute(query).all())]


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("not the door")


@pytest.fixture
async def house(any_database: Database, tmp_path: Path) -> AsyncIterator[House]:
    house = House(any_database, tmp_path)
    yield house
    await house.http.aclose()
    await house.runs.stop()


def code(answer: httpx2.Response) -> str:
    return f"{answer.status_code} {answer.json().get('code') or answer.json()['outcome']}"


@pytest.mark.slow
async def test_a_signed_call_starts_a_run_and_says_which(house: House) -> None:
    row, secret = await house.trigger()
    body = b'{"a": [1, "\xc3\xbc"]}'
    answer = await house.call(row, standard(body, house.at, secret), body)
    assert answer.status_code == 202, answer.text
    run = await house.runs.get(WHO, answer.json()["run_id"])
    assert run.inputs == {"n": {"a": [1, "ü"]}}
    assert run.trigger is not None
    assert (run.trigger["type"], run.trigger["id"], run.trigger["depth"]) == ("webhook", row.id, 1)
    row = await house.triggers.get(WHO, row.id)
    assert (row.fired, row.last_run_id) == (1, run.id)
    (delivery,) = await house.triggers.deliveries(WHO, row.name)
    assert (delivery.key, delivery.outcome, delivery.run_id) == ("msg_1", "started", run.id)
    assert "webhook-signature" not in delivery.event["headers"]


@pytest.mark.slow
async def test_forged_replayed_stale_and_duplicated(house: House) -> None:
    """The line of the requirement: 401, 401, 401 and one run."""
    row, secret = await house.trigger()
    other, _ = await house.trigger()
    body, headers = b'{"n": 1}', standard(b'{"n": 1}', house.at, secret)
    first = await house.call(row, headers, body)
    assert first.status_code == 202
    forged = {**headers, "webhook-signature": standard(body, house.at)["webhook-signature"]}
    assert code(await house.call(row, forged, body)) == "401 hook_signature_invalid"
    # Replayed: caught on the way and sent again as something new, elsewhere, or after its time.
    for changed in ({"webhook-id": "msg_2"}, {"webhook-timestamp": str(house.at + 1)}):
        assert code(await house.call(row, headers | changed, body)) == "401 hook_signature_invalid"
    assert code(await house.call(row, headers, b'{"n": 2}')) == "401 hook_signature_invalid"
    assert code(await house.call(row, headers, b'{"n":1}')) == "401 hook_signature_invalid"
    assert code(await house.call(other, headers, body)) == "401 hook_signature_invalid"
    # Sent again as it was, in its time: a sender that has not heard the answer. The same run.
    again = await house.call(row, headers, body)
    assert (again.status_code, again.json()["run_id"]) == (200, first.json()["run_id"])
    stale = standard(body, house.at - 360, secret, "msg_3")
    assert code(await house.call(row, stale, body)) == "401 hook_timestamp_invalid"
    house.clock.at += _minutes(6)
    assert code(await house.call(row, headers, body)) == "401 hook_timestamp_invalid"
    # A late retry of the sender, signed anew.
    house.clock.at += _minutes(3 * 24 * 60)
    late = await house.call(row, standard(body, house.at, secret), body)
    assert (late.status_code, late.json()["run_id"]) == (200, first.json()["run_id"])
    assert house.count(RunRow) == 1


@pytest.mark.slow
async def test_the_same_call_a_hundred_times_at_once_is_one_run(house: House) -> None:
    row, secret = await house.trigger()
    headers = standard(b"{}", house.at, secret)
    answers = await asyncio.gather(*(house.call(row, headers, b"{}") for _ in range(100)))
    assert {answer.status_code for answer in answers} <= {200, 202}
    assert [answer.status_code for answer in answers].count(202) == 1
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    assert (house.count(RunRow), house.count(TriggerDeliveryRow)) == (1, 1)


@pytest.mark.slow
async def test_what_comes_while_the_queues_are_full_is_refused_and_may_come_again(
    any_database: Database, tmp_path: Path
) -> None:
    house = House(any_database, tmp_path, queue_limit=1)
    row, secret = await house.trigger(when="event.body.n > 0")
    first = await house.call(row, standard(b'{"n": 1}', house.at, secret), b'{"n": 1}')
    assert first.status_code == 202
    house.runs._room.looked = float("-inf")
    body, headers = b'{"n": 2}', standard(b'{"n": 2}', house.at, secret, "msg_2")
    for _ in range(2):
        full = await house.call(row, headers, body)
        assert (code(full), full.headers["retry-after"]) == ("429 queue_full", "5")
    assert (house.count(RunRow), house.count(TriggerDeliveryRow)) == (1, 1)
    # What starts nothing new is answered all the same.
    again = await house.call(row, standard(b'{"n": 1}', house.at, secret), b'{"n": 1}')
    assert (again.status_code, again.json()["run_id"]) == (200, first.json()["run_id"])
    left_out = await house.call(row, standard(b'{"n": 0}', house.at, secret, "msg_3"), b'{"n": 0}')
    assert code(left_out) == "202 skipped"
    with pytest.raises(QueueFull):
        await house.automation.start(WHO, "flow", {"n": 1})
    await house.work_off()
    assert code(await house.call(row, headers, body)) == "202 started"
    assert house.inputs() == [{"n": 1}, {"n": 2}]
    await house.http.aclose()


@pytest.mark.slow
async def test_events_wait_while_the_queues_are_full(any_database: Database, tmp_path: Path) -> None:
    house = House(any_database, tmp_path, queue_limit=1)
    row, _ = await house.trigger("event", config={"types": ["model.promoted"]}, inputs={"n": "{{ event.data.v }}"})
    await house.firing.tick()
    await house.automation.start(WHO, "flow", {"n": "before"})
    await house.events.publish("model.promoted", "prj_a", {"v": 1})
    house.runs._room.looked = float("-inf")
    for _ in range(2):
        with pytest.raises(QueueFull):
            await house.firing.tick()
    (waiting,) = await house.triggers.deliveries(WHO, row.id)
    assert waiting.outcome == "pending"
    with pytest.raises(QueueFull):
        await house.triggers.again(WHO, row.id, waiting.id)
    await house.work_off()
    await house.firing.tick()
    assert house.inputs() == ["before", 1]
    await house.http.aclose()


@pytest.mark.slow
async def test_what_github_signs_cannot_come_back_under_another_id(house: House) -> None:
    row, _ = await house.trigger(config={"preset": "github"}, secret=PLAIN)
    body = b'{"ref": "main"}'
    first = await house.call(row, github(body), body)
    assert first.status_code == 202
    assert (await house.call(row, github(body), body)).json()["run_id"] == first.json()["run_id"]
    assert code(await house.call(row, github(body, delivery="d-2"), body)) == "401 hook_replayed"
    ping = {**github(b"{}"), "x-github-event": "ping"}
    assert code(await house.call(row, ping, b"{}")) == "200 ping"
    form = b"payload=%7B%22ref%22%3A%22dev%22%7D"
    sent = {**github(form, delivery="d-3"), "content-type": "application/x-www-form-urlencoded"}
    assert (await house.call(row, sent, form)).status_code == 202
    assert house.inputs() == [{"ref": "main"}, {"ref": "dev"}]


@pytest.mark.slow
async def test_stripe_and_a_way_of_ones_own(house: House) -> None:
    row, _ = await house.trigger(config={"preset": "stripe"}, secret=PLAIN)
    body = b'{"id": "evt_1", "type": "invoice.paid"}'
    first = await house.call(row, stripe(body, house.at), body)
    again = await house.call(row, stripe(body, house.at + 9), body)
    assert (first.status_code, again.status_code) == (202, 200)
    assert code(await house.call(row, stripe(body, house.at - 301), body)) == "401 hook_timestamp_invalid"
    own, _ = await house.trigger(config={"preset": "hmac", "hmac": SLACK}, secret=PLAIN)
    assert (await house.call(own, slack(body, house.at), body)).status_code == 202
    assert (await house.call(own, slack(body, house.at), body)).status_code == 200
    forged = slack(body, house.at) | {"x-slack-request-timestamp": str(house.at + 1)}
    assert code(await house.call(own, forged, body)) == "401 hook_signature_invalid"
    assert house.count(RunRow) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "body", "seen"),
    [
        ("application/json", b'{"a": 1}', {"a": 1}),
        ("application/vnd.x+json; charset=utf-8", b"[1]", [1]),
        ("application/x-www-form-urlencoded", b"a=1&b=&a=%C3%BC", {"a": ["1", "ü"], "b": ""}),
        ("text/plain", "grüß".encode(), "grüß"),
        ("application/xml", b"<a/>", "<a/>"),
        ("application/json", b"", None),
        ("application/json", b"{", 400),
        ("application/json", b'"\\u0000"', 400),
        ("text/plain", b"\xff", 400),
        ("text/plain", b"a\0b", 400),
        ("application/x-www-form-urlencoded", b"a=%00", 400),
        ("application/x-www-form-urlencoded", b"a=%ff", 400),
        ("image/png", b"x", 415),
        ("application/json", b'"' + b"x" * 2_000 + b'"', 413),
    ],
)
async def test_bodies(database: Database, tmp_path: Path, kind: str, body: bytes, seen: Any) -> None:
    house = House(database, tmp_path)
    row, secret = await house.trigger(inputs={"n": ["{{ event.body }}", "{{ event.headers['x-more'] }}"]})
    headers = {
        **standard(body, house.at, secret),
        "content-type": kind,
        "x-more": "é".encode("latin-1").decode("latin-1"),
    }
    answer = await house.http.post(
        f"/hooks/{row.id}", headers=[(k, v.encode("latin-1")) for k, v in headers.items()], content=body
    )
    if isinstance(seen, int):
        assert answer.status_code == seen, answer.text
        assert house.count(TriggerDeliveryRow) == 0
    else:
        assert answer.status_code == 202, answer.text
        assert house.inputs() == [[seen, "é"]]
    await house.http.aclose()


@pytest.mark.slow
async def test_doors_that_are_not_there(house: House) -> None:
    row, secret = await house.trigger(enabled=False)
    event, _ = await house.trigger("event", config={"types": ["run.*"]})
    headers = standard(b"{}", house.at, secret)
    for path in (row.id, event.id, "trg_00000000000000000000000000", "x", "", row.id + "/x"):
        answer = await house.http.post(f"/hooks/{path}", headers=headers, content=b"{}")
        assert answer.status_code in (404, 405), path
    row = await house.triggers.change(WHO, row.id, {"enabled": True})
    assert (await house.call(row, headers, b"{}")).status_code == 202


@pytest.mark.slow
async def test_secrets_change_with_an_overlap(house: House) -> None:
    row, old = await house.trigger()
    new = (await house.triggers.rotate(WHO, row.id, overlap=3_600, secret=None)).reveal()
    assert new != old
    for number, secret in enumerate((old, new)):
        answer = await house.call(row, standard(b"{}", house.at, secret, f"msg_{number}"), b"{}")
        assert answer.status_code == 202
    house.clock.at += _minutes(61)
    statuses = []
    for number, secret in enumerate((old, new)):
        answer = await house.call(row, standard(b"{}", house.at, secret, f"msg_late_{number}"), b"{}")
        statuses.append(answer.status_code)
    assert statuses == [401, 202]
    stored = (await house.triggers.get(WHO, row.id)).secrets
    assert all(secret.removeprefix("whsec_") not in str(stored) for secret in (old, new))
    with pytest.raises(TriggerInvalid):
        await house.triggers.rotate(WHO, row.id, overlap=0, secret="whsec_short_of_bytes")


@pytest.mark.slow
async def test_conditions_failures_and_another_try(house: House) -> None:
    row, secret = await house.trigger(when='event.body.kind == "yes"', inputs={"n": "{{ event.body.value }}"})

    async def send(number: int, body: dict[str, Any]) -> httpx2.Response:
        raw = orjson.dumps(body)
        return await house.call(row, standard(raw, house.at, secret, f"msg_{number}"), raw)

    assert code(await send(1, {"kind": "no"})) == "202 skipped"
    failed = await send(2, {"kind": "yes"})
    assert code(failed) == "202 failed"
    assert code(await send(3, {"kind": "yes", "value": 7})) == "202 started"
    assert house.outcomes() == [("skipped", "when"), ("failed", None), ("started", None)]
    assert (await house.triggers.delivery(WHO, row.id, failed.json()["delivery_id"])).error["field"] == "inputs.n"  # type: ignore[index]
    row = await house.triggers.change(WHO, row.id, {"inputs": {"n": "{{ coalesce(event.body.value, 0) }}"}})
    # The sender's next try, and the button: both go on where it failed, once.
    assert (await send(2, {"kind": "yes"})).json()["outcome"] == "started"
    assert (
        await house.triggers.again(WHO, row.id, (await send(1, {"kind": "no"})).json()["delivery_id"])
    ).reason == "when"
    assert house.inputs() == [7, 0]
    assert [event.type for event in await house.events.newest("prj_a")] == ["trigger.failed"]


@pytest.mark.slow
async def test_events_start_each_trigger_once_however_many_schedulers(house: House) -> None:
    await house.trigger("event", config={"types": ["model.*", "budget.reached"]}, inputs={"n": "{{ event.data.v }}"})
    await house.trigger("event", config={"types": ["*"], "subject": "a*"}, inputs={"n": "all {{ event.data.v }}"})
    schedulers = [house.another() for _ in range(5)]
    for scheduler in schedulers:
        await scheduler.tick()
    for number, (type_, project, subject) in enumerate(
        [
            ("model.promoted", "prj_a", "abc"),
            ("model.promoted", "prj_b", "abc"),
            ("model.promoted", None, "abc"),
            ("run.finished", "prj_a", "abc"),
            ("run.finished", "prj_a", "xyz"),
            ("budget.reached", "prj_a", "xyz"),
        ]
    ):
        await house.events.publish(type_, project, {"v": number}, subject=subject)
    for _ in range(5):
        await asyncio.gather(*(scheduler.tick() for scheduler in schedulers))
    assert sorted(map(str, house.inputs())) == ["0", "5", "all 0", "all 3"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overlap", "statuses"),
    [
        ("allow", ["queued"] * 3),
        ("skip", ["queued"]),
        ("queue", ["queued"] * 3),
        ("cancel", ["cancelled", "cancelled", "queued"]),
    ],
)
async def test_runs_that_are_not_over(house: House, overlap: str, statuses: list[str]) -> None:
    row, secret = await house.trigger(overlap=overlap)
    for number in range(3):
        await house.call(row, standard(b"{}", house.at, secret, f"msg_{number}"), b"{}")
    query = select(RunRow.status).order_by(RunRow.id)
    assert list(house.database.read_now(lambda s: s.execute(query).scalars().all())) == statuses


@pytest.mark.slow
async def test_a_trial_starts_nothing(house: House) -> None:
    row, _ = await house.trigger(inputs={"n": "{{ event.body.n }}"}, when="event.body.n > 1")
    trial = await house.triggers.trial(WHO, row.id, {"body": {"n": 2}})
    assert (trial.inputs, trial.holds, trial.starts) == ({"n": 2}, True, True)
    trial = await house.triggers.trial(WHO, row.id, {"body": {"n": 1}})
    assert (trial.holds, trial.starts) == (False, False)
    trial = await house.triggers.trial(WHO, row.id, {"body": {}})
    assert trial.error is not None
    assert not trial.starts
    assert (house.count(RunRow), house.count(TriggerDeliveryRow)) == (0, 0)


@pytest.mark.slow
async def test_what_does_not_fit_is_refused(house: House) -> None:
    await house.trigger(name="mine")
    for given, error in (
        ({"name": "mine"}, NameTaken),
        ({"kind": "moon"}, TriggerInvalid),
        ({"config": {"preset": "paypal"}}, TriggerInvalid),
        ({"config": {"preset": "hmac"}}, TriggerInvalid),
        ({"config": {"preset": "github", "hmac": SLACK}}, TriggerInvalid),
        ({"kind": "event", "config": {"types": []}}, TriggerInvalid),
        ({"kind": "event", "config": {"types": ["Model.*"]}}, TriggerInvalid),
        ({"kind": "event", "config": {"types": ["model.*"]}, "secret": PLAIN}, TriggerInvalid),
        ({"kind": "file", "config": {"folder": "../etc"}}, TriggerInvalid),
        ({"kind": "file", "config": {"folder": "/etc"}}, TriggerInvalid),
        ({"secret": "not in base64 at all!"}, TriggerInvalid),
        ({"inputs": {"m": "{{ event.body }}"}}, InputsInvalid),
        ({"inputs": {}}, InputsInvalid),
        ({"inputs": {"n": "{{ secrets.KEY }}"}}, ExpressionError),
        ({"inputs": {"n": "{{ event.body"}}, ExpressionError),
        ({"when": "event.body ** 2"}, ExpressionError),
    ):
        with pytest.raises(error):
            await house.trigger(**given)
    other = WHO.__class__("key", "key_b", "prj_b", WHO.scopes)
    for act in (house.triggers.get, house.triggers.delete, house.triggers.deliveries):
        with pytest.raises(TriggerNotFound):
            await act(other, "mine")


@pytest.mark.slow
async def test_uploads_and_promotions_are_told(house: House) -> None:
    await house.files.add(WHO, b"a,b", "a.csv", purpose="user_data")
    await house.files.add(WHO, b"a,b", "again.csv")
    await house.files.add(principal_of("prj_a", starter_of(WHO)), b"of a step", "b.txt")
    for version in (1, 2, 2):
        house.database.write_now(
            move_alias, "prj_a", "churn", "champion", version, expected=None, by="key_a", at=house.clock.at
        )
    told = [(event.type, event.subject, event.data) for event in await house.events.newest("prj_a")]
    assert [(type_, subject) for type_, subject, _ in reversed(told)] == [
        ("file.uploaded", "a.csv"),
        ("file.uploaded", "again.csv"),
        ("model.promoted", "churn"),
        ("model.promoted", "churn"),
    ]
    assert told[0][2] == {"model": "churn", "alias": "champion", "version": 2, "previous": 1, "by": "key_a"}


@pytest.mark.parametrize(
    ("pattern", "type_", "fit"),
    [
        ("run.finished", "run.finished", True),
        ("run.finished", "run.finished.late", False),
        ("run.*", "run.finished", True),
        ("run.*", "runs.finished", False),
        ("*", "model.promoted", True),
    ],
)
def test_types_and_their_patterns(pattern: str, type_: str, fit: bool) -> None:
    assert fits(pattern, type_) is fit


@pytest.mark.parametrize("kind", TRIGGERS.names())
def test_every_kind_fulfils_the_contract(kind: str) -> None:
    plug = TRIGGERS.get(kind)
    config = {"event": {"types": ["run.*"]}, "file": {"folder": "inbox"}}.get(kind, {})
    settings = plug.Config.model_validate(config)
    assert plug.kind == kind
    assert plug.summary.endswith(".")
    sample = {"subject": "", "data": {}, **plug.sample(settings)}
    assert plug.admits(settings, sample)
    assert all(fits(pattern, sample["type"]) for pattern in plug.types(settings))


def _minutes(count: float) -> timedelta:
    return timedelta(minutes=count)
