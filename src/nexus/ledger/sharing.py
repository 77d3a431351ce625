"""Limits that several processes share: permits are drawn in small lots from common counts behind a `Cache`.

A call is admitted without a question as long as this process holds permits. When they run out it draws more: one by
one where the limit is small, else a sixteenth of what is left at a time. So no more than the limit is ever granted;
what one process holds and does not use goes back within a second. Calls in parallel and reservations of budgets are
told to each other every second, so that they may exceed their limit by what begins within one second elsewhere.

Where the common counts are away, each process goes on with its share of every limit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple, Protocol

from sqlalchemy.exc import SQLAlchemyError

from nexus.core.errors import Unavailable
from nexus.ledger.windows import SECONDS, Standing, Window
from nexus.storage.cache import Cache

log = logging.getLogger(__name__)

_BUCKET = 5
_BUCKETS = SECONDS // _BUCKET
_EPOCH = 10
_LOTS = 16
_ALONE = 5.0
_IDLE = 1.0
_DRY = 0.25
_LATE = 1.0
_AWAY = (Unavailable, SQLAlchemyError, OSError)


class Counted(Protocol):
    """Something under way here that others must know of; `used_at` is when a call last began here."""

    used_at: float

    @property
    def key(self) -> str:
        """Return its name among processes."""
        ...

    def here(self) -> int:
        """Return how much of it is under way in this process."""
        ...

    def learn(self, elsewhere: int) -> None:
        """Hear how much of it is under way in other processes."""
        ...


class SharedWindow(Window):
    """A window of which this process holds some permits; the last minute is known in steps of five seconds."""

    __slots__ = (
        *("_alone", "_alone_until", "_free_at", "_summed", "_total"),
        *("closed", "counts", "drawing", "dry_until", "held", "key", "used_at"),
    )

    def __init__(self, key: str, limit: int) -> None:
        """Hold nothing yet."""
        super().__init__(limit)
        self.key = key
        self.held = 0
        self.counts: dict[int, int] = {}
        self._summed = -1
        self._total = 0
        self._free_at = 0.0
        self.closed = 0
        self.dry_until = 0.0
        self.drawing = asyncio.Lock()
        self.used_at = 0.0
        self._alone: Window | None = None
        self._alone_until = 0.0

    def room(self, now: float) -> int:
        """Return the permits in hand."""
        return self._alone.room(now) if now < self._alone_until and self._alone is not None else self.held

    def take(self, amount: int, now: float) -> None:
        """Use permits."""
        self.used_at = now
        if now < self._alone_until and self._alone is not None:
            self._alone.take(amount, now)
        else:
            self.held -= amount

    def correct(self, by: int, at: float, now: float) -> None:
        """Take permits back, or owe some."""
        if now < self._alone_until and self._alone is not None:
            self._alone.correct(by, at, now)
        else:
            self.held -= by

    def wait(self, amount: int, now: float) -> float:
        """Return the seconds until enough of the last minute is over."""
        if now < self._alone_until and self._alone is not None:
            return self._alone.wait(amount, now)
        missing = min(amount, self.limit) - self.standing(now).left
        for bucket, count in sorted(self._recent(now).items()):
            if missing <= 0:
                break
            missing -= count
            if missing <= 0:
                return max((bucket + _BUCKETS) * _BUCKET - now, 0.0)
        return 0.0 if missing <= 0 else float(_BUCKET)

    def standing(self, now: float) -> Standing:
        """Return what all processes together have left."""
        if self._summed != now // _BUCKET:
            self._sum(now)
        limit = self.limit
        left = limit - self._total + self.held if now >= self._alone_until else self.room(now)
        reset = self._free_at - now
        return Standing(limit, 0 if left < 0 else left if left < limit else limit, reset if reset > 0 else 0.0)

    def go_alone(self, share: int, now: float) -> None:
        """Count for a while with a share of the limit."""
        if self._alone is None:
            self._alone = Window(share)
        self._alone.limit = share
        self._alone_until = now + _ALONE

    def learn(self, counts: dict[int, int]) -> None:
        """Hear what all processes have used together, by steps of five seconds."""
        self.counts |= counts
        self._summed = -1

    def forget(self, bucket: int) -> None:
        """Drop the counts of what is more than a minute ago."""
        for old in [known for known in self.counts if known <= bucket - _BUCKETS]:
            del self.counts[old]

    def _recent(self, now: float) -> dict[int, int]:
        oldest = int(now // _BUCKET) - _BUCKETS
        return {bucket: count for bucket, count in self.counts.items() if bucket > oldest}

    def _sum(self, now: float) -> None:
        """Add up the last minute once: every answer tells how its limits stand, and this changes now and then."""
        recent = self._recent(now)
        self._total = sum(recent.values())
        last = max((bucket for bucket, count in recent.items() if count > 0), default=None)
        self._free_at = 0.0 if last is None else float((last + _BUCKETS) * _BUCKET)
        self._summed = int(now // _BUCKET)


class _Told(NamedTuple):
    """What others were told of something in which epoch, and what they told."""

    epoch: int = -1
    here: int = 0
    elsewhere: int = 0


class Sharing:
    """Draws permits from, and gives them back to, counts in a `Cache` that all processes use."""

    def __init__(self, cache: Cache, *, seconds: float = 1.0, now: Callable[[], float] = time.time) -> None:
        """Exchange every `seconds`; `now` returns seconds since 1970."""
        self._cache = cache
        self._pause = seconds
        self._now = now
        self._windows: list[SharedWindow] = []
        self._told: dict[str, _Told] = {}
        self._counted: Callable[[], Iterable[Counted]] = lambda: ()
        self._exchanging: asyncio.Task[None] | None = None
        self._epoch = -1
        self._warn_at = 0.0
        self._stopping = asyncio.Event()
        self.processes = 1

    async def start(self, counted: Callable[[], Iterable[Counted]] = lambda: ()) -> None:
        """Begin to exchange; `counted` returns what others must know of."""
        self._counted = counted
        self._stopping.clear()
        if self._exchanging is None:
            self._exchanging = asyncio.create_task(self._exchange(), name="limits")

    async def stop(self) -> None:
        """Give everything back."""
        # By a flag, not by cancelling: a client of the shared counts may take a cancellation for its own timeout.
        self._stopping.set()
        if self._exchanging is not None:
            await self._exchanging
            self._exchanging = None
        with suppress(*_AWAY):
            for window in self._windows:
                await self._give_back(window, window.held)
            for key, told in self._told.items():
                if told.here:
                    await self._cache.increment(_busy(key, told.epoch), -told.here, 2.5 * _EPOCH)
        self._told.clear()

    def window(self, meter: str, metric: str, limit: int) -> Window:
        """Return a window that draws on the common count of a meter."""
        window = SharedWindow(f"limit:{meter}:{metric}", limit)
        self._windows.append(window)
        return window

    async def fill(self, window: Window, amount: int) -> bool:
        """Draw permits until the window has room for `amount`; tell whether it has."""
        assert isinstance(window, SharedWindow)
        amount = min(amount, window.limit)
        if window.room(self._now()) >= amount:
            return True
        async with window.drawing:
            now = self._now()
            if window.room(now) < amount and now >= window.dry_until:
                try:
                    await self._draw(window, amount)
                except _AWAY as error:
                    self._warn(error, now)
                    window.go_alone(max(1, window.limit // self.processes), now)
            return window.room(self._now()) >= amount

    async def claim(self, name: str, seconds: float) -> bool:
        """Tell whether this process is the first to name this; if nobody can say, it is."""
        try:
            return await self._cache.increment(f"limit:told:{name}", 1, seconds) == 1
        except _AWAY:
            return True

    async def exchange(self) -> None:
        """Give back what lies idle, pay what is owed, tell others what is under way here, and hear of theirs."""
        now = self._now()
        for window in self._windows:
            spare = window.held if now - window.used_at > _IDLE else max(window.held - window.limit // _LOTS * 2, 0)
            await self._give_back(window, window.held if window.held < 0 else spare)
        epoch = int(now // _EPOCH)
        if any(now - window.used_at < SECONDS for window in self._windows):
            joined = 0 if epoch == self._epoch else 1
            count = await self._cache.increment(f"limit:processes:{epoch}", joined, 2.5 * _EPOCH)
            # Not everybody has joined a new epoch yet.
            self.processes = max(count, 1) if not joined else max(count, self.processes)
            self._epoch = epoch
        for item in self._counted():
            await self._tell(item, now)

    def _warn(self, error: Exception, now: float) -> None:
        if now >= self._warn_at:
            self._warn_at = now + SECONDS
            log.warning("limits are counted alone: the shared counts are away (%s)", type(error).__name__)

    async def _draw(self, window: SharedWindow, amount: int) -> None:
        now = self._now()
        bucket = int(now // _BUCKET)
        window.forget(bucket)
        closed = range(max(window.closed, bucket - _BUCKETS + 1), bucket)
        ttl = float(SECONDS + 2 * _BUCKET)
        found = await asyncio.gather(*(self._cache.increment(f"{window.key}:{past}", 0, ttl) for past in closed))
        window.learn(dict(zip(closed, found, strict=True)))
        # What was on its way when a bucket ended may still arrive in it.
        window.closed = bucket if now % _BUCKET > _LATE else bucket - 1
        before = sum(count for past, count in window.counts.items() if past < bucket)
        known = window.counts.get(bucket, 0)
        wanted = max(amount - window.held, (window.limit - before - known) // _LOTS)
        total = await self._cache.increment(f"{window.key}:{bucket}", wanted, ttl)
        granted = min(wanted, max(window.limit - before - (total - wanted), 0))
        if granted < wanted:
            total = await self._cache.increment(f"{window.key}:{bucket}", granted - wanted, ttl)
        window.learn({bucket: total})
        window.held += granted
        if window.held < amount:
            # Many may be refused; one question in a while is enough to hear of what was given back.
            window.dry_until = self._now() + _DRY

    async def _give_back(self, window: SharedWindow, amount: int) -> None:
        if not amount:
            return
        bucket = int(self._now() // _BUCKET)
        window.held -= amount
        try:
            total = await self._cache.increment(f"{window.key}:{bucket}", -amount, float(SECONDS + 2 * _BUCKET))
        except BaseException:
            window.held += amount
            raise
        window.learn({bucket: total})

    async def _tell(self, item: Counted, now: float) -> None:
        here, key, epoch = item.here(), item.key, int(now // _EPOCH)
        told = self._told.get(key, _Told())
        if not here and not told.here and now - item.used_at >= SECONDS:
            self._told.pop(key, None)
            return
        before = told.here if told.epoch == epoch else 0
        total = await self._cache.increment(_busy(key, epoch), here - before, 2.5 * _EPOCH)
        elsewhere = max(total - here, 0)
        if now % _EPOCH < 2 * self._pause:
            elsewhere = max(elsewhere, told.elsewhere)  # not everybody has spoken in this epoch yet
        self._told[key] = _Told(epoch, here, elsewhere)
        item.learn(elsewhere)

    async def _exchange(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._pause)
            if self._stopping.is_set():
                return
            with suppress(*_AWAY):
                await self.exchange()


def _busy(key: str, epoch: int) -> str:
    return f"limit:busy:{key}:{epoch}"
