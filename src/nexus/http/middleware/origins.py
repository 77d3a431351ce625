"""Refuses state-changing requests that a page of another origin makes a browser send."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from nexus.http.errors import OriginNotAllowed
from nexus.http.problem import send_error
from nexus.http.types import App, Receive, Scope, Send, path_of

_SAFE: Final = frozenset({"GET", "HEAD"})
# The MCP specification wants the check on every method.
_ALWAYS_CHECKED: Final = "/mcp"


class OriginCheck:
    """Allows no Origin (programs), the server's own, and a list; an allow-list, whatever the verb is called.

    There is no CORS: nothing is ever answered to a preflight of another origin.
    """

    def __init__(self, app: App, *, origins: Iterable[str]) -> None:
        """`origins` are allowed besides the server's own, as `https://nexus.example`."""
        self._app = app
        self._origins = frozenset(filter(None, map(normal_origin, origins)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http" and _is_checked(scope) and not self._allowed(scope):
            await send_error(scope, send, OriginNotAllowed())
            return
        await self._app(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        origin = site = host = None
        for name, value in scope["headers"]:
            if name == b"origin":
                if origin is not None:
                    return False
                origin = value.decode("latin-1")
            elif name == b"sec-fetch-site":
                site = value
            elif name == b"host":
                host = value.decode("latin-1")
        if origin is None:
            return site not in (b"cross-site", b"same-site")
        normal = normal_origin(origin)
        if normal is None:
            return False
        # The Host header has been checked before; the scheme is what the browser says, as proxies may end TLS.
        return normal in self._origins or normal.partition("://")[2] == _with_port(normal, host or "")


def _is_checked(scope: Scope) -> bool:
    return scope["method"] not in _SAFE or path_of(scope).startswith(_ALWAYS_CHECKED)


def normal_origin(text: str) -> str | None:
    """Return `scheme://host[:port]` in lower case without a default port, or None for anything else."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        return None
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = 443 if parts.scheme == "https" else 80
    return f"{parts.scheme}://{host}" if port in (None, default) else f"{parts.scheme}://{host}:{port}"


def _with_port(origin: str, host: str) -> str:
    """The Host header as it stands in an origin of this scheme."""
    normal = normal_origin(f"{origin.partition('://')[0]}://{host}")
    return normal.partition("://")[2] if normal else ""
