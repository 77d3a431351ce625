"""One log line and one measurement for every request, by the template of its route, never by its URL."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from nexus.http.types import App, Message, Receive, Scope, Send, path_of

log = logging.getLogger("nexus.access")

Observe = Callable[[str, str, int, float], object]
"""Called with route template, method, status and seconds."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUIET: Final = frozenset({"/livez", "/readyz", "/metrics"})


class AccessLog:
    """Logs and measures each request when its answer has ended."""

    def __init__(self, app: App, *, observe: Observe | None = None) -> None:
        """`observe` receives every measurement (metrics)."""
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def send_seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.perf_counter()
        try:
            await self._app(scope, receive, send_seen)
        finally:
            self._report(scope, status, time.perf_counter() - started)

    def _report(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        route = route_of(scope)
        # 499: the client left before there was an answer.
        if self._observe is not None:
            self._observe(route, method, status or 499, seconds)
        path = path_of(scope)
        if path in _QUIET or not log.isEnabledFor(logging.INFO):
            return
        client = scope.get("client")
        fields: dict[str, Any] = {
            "request_id": scope.get("request_id"),
            "method": method,
            "path": path[:512],
            "route": route,
            "status": status or 499,
            "ms": round(seconds * 1000, 2),
            "client": client[0] if client else None,
        }
        log.info("%s %s %d %.1f ms", method, path[:512], status or 499, seconds * 1000, extra=fields)


def route_of(scope: Scope) -> str:
    """Return the template of the route that served this request, or `unmatched`."""
    named = scope.get("route_template")
    if named is not None:
        return str(named)
    context = scope.get("fastapi", {}).get("effective_route_context")
    path = getattr(context, "path", None) or getattr(scope.get("route"), "path", None)
    return str(path) if path else "unmatched"
