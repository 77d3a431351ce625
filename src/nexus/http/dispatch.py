"""Which of the three inner apps answers a path: hot raw handlers, the FastAPI app, or the dashboard's files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Mapping
from typing import Final

from nexus.core.cause import HEADER, behind, run_of_key
from nexus.core.errors import MethodNotAllowed
from nexus.core.services import Services
from nexus.http.problem import send_error
from nexus.http.types import KNOWN, App, Handler, Receive, Scope, Send, header, path_of

_HOT: Final = "dispatch.hot"
"""Where a scope has path and handler of the same head before."""

API_PREFIXES: Final = (
    "/v1",
    "/v1beta",
    "/v2",
    "/api",
    "/mcp",
    "/hooks",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/.well-known",
)


def is_api_path(path: str) -> bool:
    """Tell whether `path` belongs to the API; everything else is the dashboard's."""
    return any(path == prefix or path.startswith(prefix + "/") for prefix in API_PREFIXES)


class Dispatch:
    """Routes by exact path to hot handlers, by prefix to the API, and the rest to the dashboard.

    Handlers find services in `scope["app_services"]`.
    """

    def __init__(
        self, api: App, *, services: Services, hot: Mapping[tuple[str, str], Handler], pages: App | None = None
    ) -> None:
        """`hot` maps (method, path), `*` at its end for all below, to raw handlers; `pages` serves the dashboard."""
        self._api = api
        self._pages = pages or api
        self._services = services
        self._hot = dict(hot)
        self._methods: dict[str, list[str]] = defaultdict(list)
        for (method, path), handler in hot.items():
            self._methods[path].append(method)
            if method == "GET":
                # RFC 9110, section 9.3.2; the server leaves the body out.
                self._methods[path].append("HEAD")
                self._hot.setdefault(("HEAD", path), handler)
        self._below = {key: handler for key, handler in self._hot.items() if key[1].endswith("*")}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        if scope["type"] != "http":
            return self._api(scope, receive, send)
        scope["app_services"] = self._services
        path, handler = scope.get(_HOT) or self._exactly(scope)
        if handler is not None:
            scope["route_template"] = path
            return handler(scope, receive, send)
        if (handler := self._handler_below(scope, path)) is not None:
            return handler(scope, receive, send)
        if path in self._methods:
            scope["route_template"] = path
            return send_error(scope, send, MethodNotAllowed(allow=", ".join(sorted(self._methods[path]))))
        if is_api_path(path):
            return self._called(scope, receive, send)
        scope["route_template"] = "dashboard"
        return self._pages(scope, receive, send)

    def _exactly(self, scope: Scope) -> tuple[str, Handler | None]:
        path = path_of(scope)
        found = path, self._hot.get((scope["method"], path))
        if KNOWN in scope:
            scope[KNOWN][_HOT] = found
        return found

    async def _called(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve by the API, which knows the run whose step calls."""
        with behind(run_of_key(header(scope, HEADER))):
            await self._api(scope, receive, send)

    def _handler_below(self, scope: Scope, path: str) -> Handler | None:
        for (method, pattern), handler in self._below.items():
            if method == scope["method"] and path.startswith(pattern[:-1]):
                scope["route_template"] = pattern
                return handler
        return None
