"""Sweeps: what has been kept for long enough goes, the rest stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from nexus.runs.sweeps import EventSweep
from nexus.storage.db import Database
from nexus.storage.events import Events, publish

T0 = datetime(2026, 11, 26, tzinfo=UTC)


class HandClock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return T0 + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


async def test_old_events_go_once_an_hour(any_database: Database) -> None:
    clock = HandClock()
    events = Events(any_database, clock)
    sweep = EventSweep(events=events, keep_days=30, clock=clock)
    for days in (31, 29):
        any_database.write_now(
            publish, "thing.done", "prj_a", {"days": days}, at=T0 - timedelta(days=days), subject=str(days)
        )
    assert await sweep.tick() == 3600
    assert [event.subject for event in await events.newest("prj_a")] == ["29"]
    clock.seconds = 1800
    assert await sweep.tick() == 1800
    clock.seconds = 86400 * 1.5
    await sweep.tick()
    assert await events.newest("prj_a") == []
