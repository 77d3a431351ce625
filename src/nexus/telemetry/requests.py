"""How the web face does right now: rate, latency and errors of the last seconds, for the dashboard's live charts."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from nexus.telemetry.metrics import observe_request

_QUIET: Final = ("/livez", "/readyz", "/metrics", "/api/v1/events")


class RequestMeter:
    """Counts finished requests over a sliding window, and for `/metrics`. Thread-safe; memory is bounded."""

    def __init__(
        self, *, window: float = 10.0, most: int = 20_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Look back `window` seconds, at no more than `most` requests."""
        self._window = window
        self._clock = clock
        self._started = clock()
        self._seen: deque[tuple[float, str, int, float]] = deque(maxlen=most)
        self._guard = threading.Lock()

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Take one finished request (`observe` of the edge); probes and endless streams do not count here."""
        observe_request(route, method, status, seconds)
        self._seen.append((self._clock(), route, status, seconds))  # every request comes by here, so without a lock

    def summary(self) -> dict[str, Any]:
        """Return requests a second, latencies in milliseconds (None without requests) and the share of 5xx."""
        now = self._clock()
        with self._guard:
            while self._seen and self._seen[0][0] < now - self._window:
                self._seen.popleft()
            rows = [row for row in list(self._seen) if not row[1].startswith(_QUIET)]
        if not rows:
            return {"per_second": 0.0, "p50_ms": None, "p95_ms": None, "error_ratio": 0.0}
        span = max(1.0, min(self._window, now - self._started))
        times = sorted(seconds for _, _, _, seconds in rows)
        return {
            "per_second": round(len(rows) / span, 2),
            "p50_ms": round(times[len(times) // 2] * 1e3, 2),
            "p95_ms": round(times[min(len(times) - 1, int(len(times) * 0.95))] * 1e3, 2),
            "error_ratio": round(sum(status >= 500 for _, _, status, _ in rows) / len(rows), 4),
        }
