"""Where a process stands between start and end, for everybody who has to act on it.

`draining` is set at once at SIGTERM: readiness is false and endless streams say goodbye. `expired` is set
shortly before the time for a graceful end is over: streams still running end with an error event.
"""

from __future__ import annotations

import asyncio
from typing import Any

from nexus.http.types import Scope


class Lifecycle:
    """The state of the process; each ASGI scope carries it as `scope["lifecycle"]`."""

    def __init__(self, *, grace: float = 25.0) -> None:
        """`grace` is the time in seconds that running requests are given."""
        self.grace = grace
        self.started = False
        self.inflight = 0
        self.draining = asyncio.Event()
        self.expired = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def drain(self) -> None:
        """Begin to end: to be called in the event loop, once or more."""
        if not self.draining.is_set():
            self.draining.set()
            self._timer = asyncio.get_running_loop().call_later(max(0.1, self.grace - 4.0), self.expired.set)

    def close(self) -> None:
        """Forget the timer."""
        if self._timer is not None:
            self._timer.cancel()


def lifecycle_of(scope: Scope) -> Lifecycle | None:
    """Return the lifecycle of the process that serves this request, if it has one."""
    found: Any = scope.get("lifecycle")
    return found if isinstance(found, Lifecycle) else None
