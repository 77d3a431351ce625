"""Tickers: each in its own task, one process at a time, and none ends for a bug of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from nexus.core.errors import Unavailable
from nexus.runs.scheduler import Scheduler
from nexus.runs.settings import RunsSettings
from nexus.storage.db import Database


class Counting:
    def __init__(self, name: str = "count", pause: float | None = 0.01, error: Exception | None = None) -> None:
        self.name, self.pause, self.error = name, pause, error
        self.ticks = 0

    async def tick(self) -> float | None:
        self.ticks += 1
        if self.error:
            raise self.error
        return self.pause


@pytest.fixture
async def two(database: Database) -> AsyncIterator[tuple[Scheduler, Scheduler]]:
    made = [Scheduler(database=database, settings=RunsSettings(tick=0.05)) for _ in range(2)]
    yield made[0], made[1]
    for scheduler in made:
        await scheduler.stop()


async def until(ticker: Counting, ticks: int) -> None:
    async with asyncio.timeout(60):
        while ticker.ticks < ticks:
            await asyncio.sleep(0.01)


async def test_one_process_at_a_time_ticks(two: tuple[Scheduler, Scheduler]) -> None:
    first, second = two
    here, there = Counting(), Counting()
    first.add(here)
    second.add(there)
    await first.start()
    await until(here, 1)
    await second.start()
    await until(here, 5)
    assert there.ticks == 0


@pytest.mark.parametrize("error", [ValueError("x"), Unavailable()])
async def test_a_bug_ends_neither_a_ticker_nor_the_others(two: tuple[Scheduler, Scheduler], error: Exception) -> None:
    bad, good = Counting("bad", error=error), Counting("good")
    two[0].add(bad)
    two[0].add(good)
    await two[0].start()
    await until(bad, 2)
    await until(good, 3)


async def test_a_wake_ticks_at_once(two: tuple[Scheduler, Scheduler]) -> None:
    sleepy = Counting(pause=60)
    two[0].add(sleepy)
    await two[0].start()
    await until(sleepy, 1)
    two[0].wake()
    await until(sleepy, 2)
