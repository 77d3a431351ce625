"""Deletes what has been kept for long enough, now and then."""

from __future__ import annotations

from typing import Final

from nexus.core.clock import Clock, SystemClock
from nexus.storage.events import Events

_EVERY: Final = 3600.0


class EventSweep:
    """The ticker that keeps the row of events from growing without end. Any number of them may tick at once."""

    name = "events"

    def __init__(self, *, events: Events, keep_days: float, clock: Clock | None = None) -> None:
        """Delete events older than `keep_days`, whether or not every reader has seen them."""
        self._events = events
        self._keep_days = keep_days
        self._clock = clock or SystemClock()
        self._again = 0.0

    async def tick(self) -> float | None:
        """Sweep once an hour; seconds until the next time."""
        now = self._clock.monotonic()
        if now >= self._again:
            await self._events.forget(self._keep_days)
            self._again = now + _EVERY
        return self._again - now
