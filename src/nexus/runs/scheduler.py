"""What has to happen by itself, now and then: schedules, readers of events, alert rules, sweeps.

    class Cron:
        name = "cron"

        async def tick(self) -> float | None:
            ...        # do what is due; every change guarded by its own transaction
            return 12.5  # seconds until there is something to do again; None: whenever convenient

    services.get(Scheduler).add(Cron(...))

Any number of engines and `nexus scheduler` processes run the same tickers at once. A lease in the database
lets one process at a time do the work of a ticker, only to spare work: a frozen process may wake up
beside its successor, so a ticker must be right however many tick (insert with a unique key, compare and set).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final, Protocol

from nexus.core.clock import Clock, SystemClock
from nexus.core.errors import NexusError
from nexus.core.ids import new_id
from nexus.runs import storage
from nexus.runs.settings import RunsSettings
from nexus.storage.db import Database

log = logging.getLogger(__name__)
_LEASE: Final = 10.0
_LONGEST: Final = 60.0


class Ticker(Protocol):
    """One thing that happens by itself."""

    @property
    def name(self) -> str:
        """Return a short word, which names the lease and the log lines."""
        ...

    async def tick(self) -> float | None:
        """Do what is due and return how many seconds nothing will be; None for the usual pause.

        Raises what it likes: the next tick comes all the same.
        """
        ...


class Scheduler:
    """Ticks everything that was added, in a task of its own each."""

    def __init__(self, *, database: Database, settings: RunsSettings, clock: Clock | None = None) -> None:
        """Tick each `settings.tick` seconds, or when a ticker wants it sooner."""
        self._database = database
        self._settings = settings
        self._clock = clock or SystemClock()
        self._owner = new_id("sch")
        self._tickers: list[Ticker] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._wakes: list[asyncio.Event] = []
        self._leased: dict[str, float] = {}
        self.ticks: dict[str, float] = {}
        """When each ticker last ended a tick (monotonic), for health."""

    def add(self, ticker: Ticker) -> None:
        """Tick this too; before `start`."""
        self._tickers.append(ticker)

    async def start(self) -> None:
        """Begin to tick."""
        for ticker in self._tickers:
            wake = asyncio.Event()
            self._wakes.append(wake)
            self._tasks.append(asyncio.create_task(self._loop(ticker, wake), name=f"scheduler-{ticker.name}"))

    def wake(self) -> None:
        """Tick everything now, on the loop's own thread: something has changed."""
        for wake in self._wakes:
            wake.set()

    async def stop(self) -> None:
        """End after the present ticks, or in the middle of those that take longer than a few seconds."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks, self._wakes = [], []

    async def _loop(self, ticker: Ticker, wake: asyncio.Event) -> None:
        while True:
            pause: float | None = None
            try:
                if await self._mine(ticker):
                    pause = await ticker.tick()
                    self.ticks[ticker.name] = self._clock.monotonic()
                else:
                    pause = _LEASE / 3
            except NexusError as error:
                log.warning("%s could not tick: %s", ticker.name, error.code)
            except Exception:
                # One ticker's bug must neither end it nor the others.
                log.exception("%s stumbled", ticker.name)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), self._pause(pause))
            wake.clear()

    def _pause(self, wanted: float | None) -> float:
        usual = self._settings.tick
        return usual if wanted is None else max(0.01, min(wanted, _LONGEST))

    async def _mine(self, ticker: Ticker) -> bool:
        """Take or renew the lease, writing only when it is a third over."""
        now = self._clock.monotonic()
        if now < self._leased.get(ticker.name, 0.0):
            return True
        name = f"scheduler.{ticker.name}"[:64]
        taken = await self._database.write(storage.take_lease, name, self._owner, self._clock.now(), _LEASE)
        self._leased[ticker.name] = now + _LEASE / 3 if taken else 0.0
        return taken
