"""Counts running requests, refuses more than the process can carry, and tells each about the end."""

from __future__ import annotations

from nexus.http.errors import Overloaded
from nexus.http.lifecycle import Lifecycle
from nexus.http.problem import send_error
from nexus.http.types import App, Receive, Scope, Send


class InFlight:
    """Puts the lifecycle into the scope and keeps its count."""

    def __init__(self, app: App, *, lifecycle: Lifecycle, limit: int) -> None:
        """Serve at most `limit` requests at once; the others get 503 with Retry-After."""
        self._app = app
        self._lifecycle = lifecycle
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        lifecycle = self._lifecycle
        scope["lifecycle"] = lifecycle
        if lifecycle.inflight >= self._limit:
            await send_error(scope, send, Overloaded(retry_after=1))
            return
        lifecycle.inflight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            lifecycle.inflight -= 1
