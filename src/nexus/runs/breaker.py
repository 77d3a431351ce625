"""Circuit breakers: a target that keeps failing is left alone for a while, instead of burning attempts.

One for each project and target, in the memory of each engine: `threshold` failures in a row that say the other
side is away open it. Then nobody calls, until after a pause one is let through as a probe; its success closes the
breaker, its failure opens it for twice as long. No I/O.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

AWAY: Final = frozenset({"timeout", "rate_limited", "unavailable"})
"""The classes of errors that speak of the target and not of the request."""
_MOST: Final = 10_000


@dataclass(slots=True)
class _State:
    failures: int = 0
    trips: int = 0
    open_until: float = 0.0
    probing_until: float = 0.0


class Breakers:
    """The breakers of one engine. May be used from many threads."""

    def __init__(self, *, threshold: int = 5, pause: float = 5.0, longest: float = 300.0, probe: float = 60.0) -> None:
        """Open after `threshold` failures in a row for `pause` seconds, then twice that, up to `longest`.

        A probe that is not back after `probe` seconds no longer keeps the others waiting.
        """
        self._threshold, self._pause, self._longest, self._probe = threshold, pause, longest, probe
        self._states: OrderedDict[tuple[str, str], _State] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, target: tuple[str, str], now: float) -> float:
        """Return how many seconds the target is to be left alone: 0 lets this caller through."""
        with self._lock:
            state = self._states.get(target)
            if state is None or state.failures < self._threshold:
                return 0.0
            if now < state.open_until:
                return state.open_until - now
            if now < state.probing_until:
                return min(state.probing_until - now, self._pause)
            state.probing_until = now + self._probe
            return 0.0

    def succeeded(self, target: tuple[str, str]) -> None:
        """Note that the target answers."""
        with self._lock:
            self._states.pop(target, None)

    def failed(self, target: tuple[str, str], now: float, retry_after: float | None = None) -> bool:
        """Note that the target is away, perhaps for as long as it says; tell whether this opened the breaker."""
        with self._lock:
            state = self._states.setdefault(target, _State())
            self._states.move_to_end(target)
            while len(self._states) > _MOST:
                self._states.popitem(last=False)
            state.failures += 1
            state.probing_until = 0.0
            if state.failures < self._threshold:
                return False
            pause = min(self._longest, self._pause * 2.0 ** min(state.trips, 20))
            state.trips += 1
            state.open_until = now + max(pause, min(retry_after or 0.0, 10 * self._longest))
            return True
