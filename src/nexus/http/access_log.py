"""One log line and one measurement for every request, by the template of its route, never by its URL."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

from nexus.http.types import Scope

log = logging.getLogger("nexus.access")

Observe = Callable[[str, str, int, float], object]
"""Called with route template, method, status and seconds."""


class Write(Protocol):
    """Writes the line of a request by a way that is cheaper than `logging`; returns False if there is none."""

    def __call__(
        self, request_id: str, method: str, path: str, route: str, status: int, ms: float, client: str | None
    ) -> bool:
        """Take what the line tells."""
        ...


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUIET: Final = frozenset({"/livez", "/readyz", "/metrics"})


class AccessLog:
    """Logs and measures each request when its answer has ended."""

    def __init__(self, *, observe: Observe | None = None, write: Write | None = None) -> None:
        """`observe` receives every measurement (metrics), `write` every line."""
        self._observe = observe
        self._write = write

    def report(self, scope: Scope, path: str, status: int, seconds: float) -> None:
        """Note one request; a status of 0 (499): the client left before there was an answer."""
        method: str = scope["method"]
        if method not in _METHODS:
            method = "OTHER"
        route: str = scope.get("route_template") or _matched(scope)
        status = status or 499
        if self._observe is not None:
            self._observe(route, method, status, seconds)
        if path in _QUIET or not log.isEnabledFor(logging.INFO):
            return
        client, path, ms = scope.get("client"), path[:512], round(seconds * 1000, 2)
        address = client[0] if client else None
        if self._write is None or not self._write(scope["request_id"], method, path, route, status, ms, address):
            told = {"request_id": scope["request_id"], "method": method, "path": path, "route": route, "status": status}
            log.info(
                "%s %s %d %.1f ms", method, path, status, seconds * 1000, extra=told | {"ms": ms, "client": address}
            )


def _matched(scope: Scope) -> str:
    """Return the template of the FastAPI route that served this request, or `unmatched`."""
    context = scope.get("fastapi", {}).get("effective_route_context")
    path = getattr(context, "path", None) or getattr(scope.get("route"), "path", None)
    return str(path) if path else "unmatched"
