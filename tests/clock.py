"""A clock for tests that wait for nothing."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


class MovedClock:
    """The machine's clock, ahead by as many seconds as a test says."""

    ahead = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead)

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead
