"""How much was used within the last minute. Pure arithmetic: whoever asks says what time it is.

A window slides by the second: what was used at second 10 is free again at second 70, so a limit holds for
every minute, not only for those of the clock.
"""

from __future__ import annotations

import math

import msgspec

SECONDS = 60


class Standing(msgspec.Struct, frozen=True, gc=False):
    """How a limit stands: the most in a minute, what is left of it, seconds until all of it is there again."""

    limit: int
    left: int
    reset: float


class Window:
    """Counts of the last 60 seconds, by the second; `limit` is the most they may add up to."""

    __slots__ = ("_counts", "_second", "_used", "limit")

    def __init__(self, limit: int) -> None:
        """Begin with nothing used."""
        self.limit = limit
        self._counts = [0] * SECONDS
        self._second = 0
        self._used = 0

    def room(self, now: float) -> int:
        """Return how much may be used now; below 0 where calls used more than they had reserved."""
        if int(now) != self._second:
            self._advance(int(now))
        return self.limit - self._used

    def take(self, amount: int, now: float) -> None:
        """Use `amount`, whether there is room or not."""
        if int(now) != self._second:
            self._advance(int(now))
        self._counts[self._second % SECONDS] += amount
        self._used += amount

    def correct(self, by: int, at: float, now: float) -> None:
        """Change what was used at the second of `at`, while that still counts."""
        if int(now) != self._second:
            self._advance(int(now))
        if self._second - int(at) < SECONDS:
            self._counts[int(at) % SECONDS] += by
            self._used += by

    def wait(self, amount: int, now: float) -> float:
        """Return the seconds until there is room for `amount`."""
        missing = min(amount, self.limit) - self.room(now)
        for second in range(self._second - SECONDS + 1, self._second + 1):
            if missing <= 0:
                break
            missing -= self._counts[second % SECONDS]
            if missing <= 0:
                return second + SECONDS - now
        return 0.0

    def standing(self, now: float) -> Standing:
        """Return what a caller may be told."""
        left = max(self.room(now), 0)
        for second in range(self._second, self._second - SECONDS, -1):
            if self._counts[second % SECONDS]:
                return Standing(self.limit, left, second + SECONDS - now)
        return Standing(self.limit, left, 0.0)

    def _advance(self, second: int) -> None:
        if second < self._second:
            return  # a clock that was set back: the present second goes on
        for passed in range(self._second + 1, min(second, self._second + SECONDS) + 1):
            self._used -= self._counts[passed % SECONDS]
            self._counts[passed % SECONDS] = 0
        self._second = second


def whole_seconds(seconds: float) -> int:
    """Return the seconds as a header says them: never too early, at least one."""
    return max(1, math.ceil(seconds))
