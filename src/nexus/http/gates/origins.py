"""Refuses state-changing requests that a page of another origin makes a browser send."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from nexus.core.errors import NexusError
from nexus.http.errors import OriginNotAllowed

_SAFE: Final = frozenset({"GET", "HEAD"})
# The MCP specification wants the check on every method.
_ALWAYS_CHECKED: Final = "/mcp"


class OriginGate:
    """Allows no Origin (programs), the server's own, and a list; an allow-list, whatever the verb is called.

    There is no CORS: nothing is ever answered to a preflight of another origin.
    """

    def __init__(self, origins: Iterable[str]) -> None:
        """`origins` are allowed besides the server's own, as `https://nexus.example`."""
        self._origins = frozenset(filter(None, map(normal_origin, origins)))

    def refusal(self, method: str, path: str, headers: Mapping[bytes, bytes], *, several: bool) -> NexusError | None:
        """Return why a page may not make a browser send this, or None; `several` tells of repeated headers."""
        if b"origin" not in headers and b"sec-fetch-site" not in headers:
            return None
        if method in _SAFE and not path.startswith(_ALWAYS_CHECKED):
            return None
        return None if self._allowed(headers, several=several) else OriginNotAllowed()

    def _allowed(self, headers: Mapping[bytes, bytes], *, several: bool) -> bool:
        origin = headers.get(b"origin")
        if origin is None:
            return headers.get(b"sec-fetch-site") not in (b"cross-site", b"same-site")
        normal = normal_origin(origin.decode("latin-1"))
        if normal is None or several:
            return False
        # The Host header has been checked before; the scheme is what the browser says, as proxies may end TLS.
        host = headers.get(b"host", b"").decode("latin-1")
        return normal in self._origins or normal.partition("://")[2] == _with_port(normal, host)


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
