"""Answers only for its own names, so that a page whose name was rebound to this address gets nothing.

Also refuses what no honest client sends in a path: NUL characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from nexus.core.errors import MalformedBody
from nexus.http.errors import HostNotAllowed
from nexus.http.problem import send_error
from nexus.http.types import App, Receive, Scope, Send

LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")


def host_name(value: str) -> str:
    """Return the name in a Host header, in lower case, without port and brackets."""
    value = value.strip().lower()
    if value.startswith("["):
        return value[1:].partition("]")[0]
    if value.count(":") > 1:
        return value
    return value.partition(":")[0].removesuffix(".")


class HostCheck:
    """Refuses requests for other hosts with 421 (RFC 9110, section 15.5.20)."""

    def __init__(self, app: App, *, hosts: Iterable[str]) -> None:
        """`hosts` are names or addresses; the address that a connection came in on is always allowed."""
        self._app = app
        self._hosts = frozenset(filter(None, map(host_name, (*LOCAL_HOSTS, *hosts))))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            sent = [value for name, value in scope["headers"] if name == b"host"]
            if len(sent) != 1 or not self._allowed(scope, host_name(sent[0].decode("latin-1"))):
                await send_error(scope, send, HostNotAllowed())
                return
            if "\0" in scope["path"] or b"%00" in scope["query_string"]:
                await send_error(scope, send, MalformedBody("The URL contains a NUL character."))
                return
        await self._app(scope, receive, send)

    def _allowed(self, scope: Scope, name: str) -> bool:
        if name in self._hosts:
            return True
        # A rebound name is a name: by its plain address a server may always be asked for.
        server = scope.get("server")
        try:
            return server is not None and ip_address(name) == ip_address(str(server[0]))
        except ValueError:
            return False
