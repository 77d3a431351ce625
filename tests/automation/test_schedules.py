"""Schedules: what is due, what was missed, what overlaps; fired once by however many schedulers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import func, select
from tests.automation.conftest import WHO

from nexus.automation.cron import Cron
from nexus.automation.errors import CronInvalid, InputsInvalid, NameTaken, ScheduleNotFound, WorkflowNotFound
from nexus.automation.firing import Misfire, firing
from nexus.automation.schedules import ScheduleService
from nexus.automation.service import AutomationService
from nexus.automation.tables import ScheduleRow
from nexus.files.service import FileService
from nexus.runs.errors import QueueFull
from nexus.runs.service import RunService
from nexus.runs.settings import RunsSettings
from nexus.runs.tables import RunRow
from nexus.storage.blobs.local import LocalBlobs
from nexus.storage.db import Database
from nexus.storage.events import newest

NOW = datetime(2026, 11, 26, 12, 0, 30, tzinfo=UTC)
WORKFLOW = {
    "name": "flow",
    "inputs": {"n": {"type": "number"}},
    "steps": [{"key": "a", "uses": "file.write", "with": {"name": "x", "content": "{{ inputs.n }}"}}],
}


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()


class Place:
    def __init__(self, database: Database, folder: Path, **settings: Any) -> None:
        self.clock = Hands()
        self.database = database
        runs = RunsSettings(data_dir=folder, **settings)
        self.runs = RunService(database=database, settings=runs, clock=self.clock)
        files = FileService(database=database, blobs=LocalBlobs(folder / "files"))
        self.automation = AutomationService(database=database, runs=self.runs, files=files, clock=self.clock)

    def service(self) -> ScheduleService:
        return ScheduleService(database=self.database, automation=self.automation, runs=self.runs, clock=self.clock)

    async def schedule(self, **given: Any) -> ScheduleRow:
        await self.automation.apply(WHO, orjson.dumps(WORKFLOW))
        plain = {"workflow": "flow", "cron": "* * * * *", "timezone": "UTC", "name": None, "version": None}
        plain |= {"inputs": {"n": 1}, "misfire": "once", "catch_up_limit": 100, "overlap": "allow", "enabled": True}
        return await self.service().create(WHO, **(plain | given))

    def fired(self) -> list[str]:
        rows = self.database.read_now(lambda s: s.execute(select(RunRow.trigger).order_by(RunRow.id)).scalars().all())
        # Ids of one millisecond have no order.
        return sorted(row["fire_at"][11:16] for row in rows)

    def statuses(self) -> list[str]:
        query = select(RunRow.status).order_by(RunRow.id)
        return list(self.database.read_now(lambda s: s.execute(query).scalars().all()))


@pytest.fixture
def place(any_database: Database, tmp_path: Path) -> Place:
    return Place(any_database, tmp_path)


@pytest.mark.parametrize(
    ("misfire", "late", "limit", "fires", "missed"),
    [
        ("once", 0, 9, ["12:01"], 0),
        ("skip", 0, 9, ["12:01"], 0),
        ("catch_up", 0, 9, ["12:01"], 0),
        ("skip", 5, 9, ["12:05", "12:06"], 4),
        ("once", 5, 9, ["12:05", "12:06"], 4),
        ("catch_up", 5, 9, ["12:01", "12:02", "12:03", "12:04", "12:05", "12:06"], 0),
        ("catch_up", 5, 3, ["12:04", "12:05", "12:06"], 3),
    ],
)
def test_what_to_do_about_time_that_passed(
    misfire: Misfire, late: int, limit: int, fires: list[str], missed: int
) -> None:
    cron, due = Cron.parse("* * * * *"), datetime(2026, 11, 26, 12, 1, tzinfo=UTC)
    found = firing(cron, due, due + timedelta(minutes=late), misfire, limit)
    assert [f"{fire:%H:%M}" for fire in found.fires] == fires
    assert (found.missed, found.next) == (missed, due + timedelta(minutes=late + 1))


@pytest.mark.parametrize(
    ("misfire", "fires"), [("skip", []), ("once", ["03-01"]), ("catch_up", ["01-01", "02-01", "03-01"])]
)
def test_months_that_were_missed(misfire: Misfire, fires: list[str]) -> None:
    cron, due = Cron.parse("0 0 1 * *"), datetime(2026, 1, 1, tzinfo=UTC)
    found = firing(cron, due, datetime(2026, 3, 9, tzinfo=UTC), misfire, 100)
    assert [f"{fire:%m-%d}" for fire in found.fires] == fires
    assert found.next == datetime(2026, 4, 1, tzinfo=UTC)


def test_years_of_minutes_are_not_counted() -> None:
    found = firing(Cron.parse("* * * * *"), datetime(2020, 1, 1, tzinfo=UTC), NOW, "once", 100)
    assert len(found.fires) <= 1
    assert found.next == datetime(2026, 11, 26, 12, 1, tzinfo=UTC)


@pytest.mark.slow
async def test_it_fires_at_its_times_and_not_between(place: Place) -> None:
    row = await place.schedule(cron="*/2 * * * *", inputs={"n": 7})
    scheduler = place.service()
    for _ in range(3):
        assert await scheduler.tick() is None
    assert place.fired() == []
    for _ in range(24):
        place.clock.at += timedelta(seconds=15)
        await scheduler.tick()
    assert place.fired() == ["12:02", "12:04", "12:06"]
    row = await scheduler.get(WHO, row.id)
    assert row.last_fire_at == datetime(2026, 11, 26, 12, 6, tzinfo=UTC)
    assert (row.fired, row.next_fire_at) == (3, datetime(2026, 11, 26, 12, 8, tzinfo=UTC))
    run = await place.runs.get(WHO, row.last_run_id or "")
    assert run.inputs == {"n": 7}


@pytest.mark.slow
async def test_five_schedulers_fire_each_time_once(place: Place) -> None:
    for number in range(4):
        await place.schedule(name=f"s{number}")
    schedulers = [place.service() for _ in range(5)]
    for _ in range(6):
        place.clock.at += timedelta(minutes=1)
        await asyncio.gather(*(scheduler.tick() for scheduler in schedulers))
    assert sorted(place.fired()) == sorted(f"12:0{minute}" for minute in range(1, 7) for _ in range(4))


@pytest.mark.slow
async def test_a_clock_that_is_set_back_fires_nothing_twice(place: Place) -> None:
    await place.schedule()
    scheduler = place.service()
    for step in (60, 60, -120, 60, 60, 60):
        place.clock.at += timedelta(seconds=step)
        await scheduler.tick()
    assert place.fired() == ["12:01", "12:02", "12:03"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overlap", "fires", "statuses"),
    [
        ("allow", ["12:01", "12:02", "12:03"], ["queued"] * 3),
        ("skip", ["12:01"], ["queued"]),
        ("queue", ["12:01", "12:02", "12:03"], ["queued"] * 3),
        ("cancel", ["12:01", "12:02", "12:03"], ["cancelled", "cancelled", "queued"]),
    ],
)
async def test_runs_that_are_not_over(place: Place, overlap: str, fires: list[str], statuses: list[str]) -> None:
    await place.schedule(overlap=overlap)
    scheduler = place.service()
    for _ in range(3):
        place.clock.at += timedelta(minutes=1)
        await scheduler.tick()
    assert place.fired() == fires
    assert place.statuses() == statuses
    if overlap == "skip":
        told = [event.type for event in place.database.read_now(newest, "prj_a", 50)]
        assert told.count("schedule.skipped") == 2
    if overlap == "queue":
        ready = place.database.read_now(lambda s: s.execute(select(func.count()).select_from(RunRow)).scalar_one())
        assert ready == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("misfire", "minutes", "fires", "missed"),
    [
        ("skip", 0, ["12:01"], []),
        ("skip", 3, ["12:03", "12:04"], [2]),
        ("once", 3, ["12:03", "12:04"], [2]),
        ("catch_up", 3, ["12:01", "12:02", "12:03", "12:04"], []),
    ],
)
async def test_what_is_due_waits_while_the_queues_are_full(
    any_database: Database, tmp_path: Path, misfire: Misfire, minutes: int, fires: list[str], missed: list[int]
) -> None:
    place = Place(any_database, tmp_path, queue_limit=1)
    row = await place.schedule(misfire=misfire)
    run = await place.automation.start(WHO, "flow", {"n": 1}, trigger={"fire_at": "0000-00-00T00:00"})
    scheduler = place.service()
    place.clock.at += timedelta(seconds=30)
    place.runs._room.looked = float("-inf")
    for _ in range(minutes + 1):
        with pytest.raises(QueueFull):
            await scheduler.tick()
        place.clock.at += timedelta(minutes=1)
    place.clock.at -= timedelta(minutes=1)
    waiting = await scheduler.get(WHO, row.id)
    assert (waiting.fired, waiting.last_error and waiting.last_error["code"]) == (0, "queue_full")
    with pytest.raises(QueueFull):
        await scheduler.fire_now(WHO, row.id)
    # Somebody has worked off what waited.
    await place.runs.cancel(WHO, run.id)
    place.runs._room.looked = float("-inf")
    await scheduler.tick()
    assert place.fired()[1:] == fires
    done = await scheduler.get(WHO, row.id)
    assert (done.fired, done.last_error) == (len(fires), None)
    told = place.database.read_now(newest, "prj_a", 50, ["schedule.missed"])
    assert [event.data["count"] for event in told] == missed


@pytest.mark.slow
async def test_pausing_lets_times_pass(place: Place) -> None:
    row = await place.schedule()
    scheduler = place.service()
    await scheduler.change(WHO, row.id, {"enabled": False})
    place.clock.at += timedelta(minutes=10)
    await scheduler.tick()
    row = await scheduler.change(WHO, row.id, {"enabled": True})
    assert row.next_fire_at == datetime(2026, 11, 26, 12, 11, tzinfo=UTC)
    place.clock.at += timedelta(minutes=1)
    await scheduler.tick()
    assert place.fired() == ["12:11"]


@pytest.mark.slow
async def test_a_workflow_that_is_gone_is_told_and_nothing_stops(place: Place) -> None:
    row = await place.schedule()
    await place.automation.delete(WHO, "flow")
    scheduler = place.service()
    for _ in range(2):
        place.clock.at += timedelta(minutes=1)
        await scheduler.tick()
    row = await scheduler.get(WHO, row.id)
    assert row.last_error is not None
    assert row.last_error["code"] == "workflow_not_found"
    assert row.next_fire_at == datetime(2026, 11, 26, 12, 3, tzinfo=UTC)
    assert "schedule.failed" in [event.type for event in place.database.read_now(newest, "prj_a", 50)]


@pytest.mark.slow
async def test_what_does_not_fit_is_refused(place: Place) -> None:
    await place.schedule(name="mine")
    for given, error in (
        ({"name": "mine"}, NameTaken),
        ({"cron": "61 * * * *"}, CronInvalid),
        ({"timezone": "Mars/Base"}, CronInvalid),
        ({"workflow": "nothing"}, WorkflowNotFound),
        ({"version": 9}, WorkflowNotFound),
        ({"inputs": {"n": "x"}}, InputsInvalid),
    ):
        with pytest.raises(error):
            await place.schedule(**given)
    other = WHO.__class__("key", "key_b", "prj_b", WHO.scopes)
    with pytest.raises(ScheduleNotFound):
        await place.service().get(other, "mine")
    with pytest.raises(ScheduleNotFound):
        await place.service().delete(other, "mine")
