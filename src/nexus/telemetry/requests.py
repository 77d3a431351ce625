"""How the web face does right now: rate, latency and errors of the last seconds, for the dashboard's live charts."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from nexus.telemetry.metrics import observe_request

_ENOUGH: Final = 5_000
_QUIET: Final = ("/livez", "/readyz", "/metrics", "/api/v1/events")


class _Second(NamedTuple):
    """The requests that were finished within one second: how many failed, and their times in seconds, sorted."""

    began: int
    failed: int
    times: list[float]


class RequestMeter:
    """Counts finished requests over a sliding window, and for `/metrics`. Thread-safe; memory is bounded.

    The window moves by whole seconds, which are gone through once each: with thousands of requests a second
    whoever serves them would feel it otherwise.
    """

    def __init__(
        self, *, window: float = 10.0, most: int = 60_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Look back `window` seconds, at no more than about `most` requests."""
        self._window = window
        self._most = most
        self._clock = clock
        self._since = clock()
        self._seen: deque[tuple[float, str, int, float]] = deque(maxlen=most)
        self._seconds: deque[_Second] = deque()
        self._guard = threading.Lock()

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Take one finished request (`observe` of the edge); probes and endless streams do not count here."""
        observe_request(route, method, status, seconds)
        self._seen.append((self._clock(), route, status, seconds))  # every request comes by here, so without a lock

    def summary(self) -> dict[str, Any]:
        """Return requests a second, latencies in milliseconds (None without requests) and the share of 5xx."""
        now = self._clock()
        with self._guard:
            self._sort_in(now - self._window)
            seconds = list(self._seconds)
        count = sum(len(second.times) for second in seconds)
        if not count:
            return {"per_second": 0.0, "p50_ms": None, "p95_ms": None, "error_ratio": 0.0}
        span = max(1.0, min(now - self._since, max(self._window, now - seconds[0].began)))
        # Every so many of sorted times tell as much as all of them.
        step = 1 + count // _ENOUGH
        times = sorted(itertools.chain.from_iterable(second.times[step // 2 :: step] for second in seconds))
        return {
            "per_second": round(count / span, 2),
            "p50_ms": round(times[len(times) // 2] * 1e3, 2),
            "p95_ms": round(times[min(len(times) - 1, int(len(times) * 0.95))] * 1e3, 2),
            "error_ratio": round(sum(second.failed for second in seconds) / count, 4),
        }

    def _sort_in(self, oldest: float) -> None:
        """Put what came since the last time where it belongs, and forget what is too old or too much."""
        rows = [self._seen.popleft() for _ in range(len(self._seen))]
        rows = [row for row in rows if row[0] >= oldest and not row[1].startswith(_QUIET)]
        for began, group in itertools.groupby(rows, lambda row: int(row[0])):
            several = list(group)
            failed, times = sum(row[2] >= 500 for row in several), sorted(row[3] for row in several)
            self._seconds.append(_Second(began, failed, times))
        count = sum(len(second.times) for second in self._seconds)
        while self._seconds and (self._seconds[0].began + 1 <= oldest or count > self._most):
            gone = self._seconds.popleft()
            count -= len(gone.times)
            self._since = max(self._since, gone.began + 1)
