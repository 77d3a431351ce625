"""Answers only for its own names, so that a page whose name was rebound to this address gets nothing.

Also refuses what no honest client sends in a path: NUL characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from nexus.core.errors import MalformedBody, NexusError
from nexus.http.errors import HostNotAllowed
from nexus.http.types import Scope

LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
_REMEMBERED: Final = 64


def host_name(value: str) -> str:
    """Return the name in a Host header, in lower case, without port and brackets."""
    value = value.strip().lower()
    if value.startswith("["):
        return value[1:].partition("]")[0]
    if value.count(":") > 1:
        return value
    return value.partition(":")[0].removesuffix(".")


class HostGate:
    """Refuses requests for other hosts with 421 (RFC 9110, section 15.5.20)."""

    def __init__(self, hosts: Iterable[str]) -> None:
        """`hosts` are names or addresses; the address that a connection came in on is always allowed."""
        self._hosts = frozenset(filter(None, map(host_name, (*LOCAL_HOSTS, *hosts))))
        self._seen: set[bytes] = set()

    def refusal(self, scope: Scope, host: bytes | None) -> NexusError | None:
        """Return why a request that names `host` (None: none, or several) is not served, or None."""
        if host not in self._seen:
            if host is None or not self._allowed(scope, host_name(host.decode("latin-1"))):
                return HostNotAllowed()
            if host_name(host.decode("latin-1")) in self._hosts and len(self._seen) < _REMEMBERED:
                self._seen.add(host)
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            return MalformedBody("The URL contains a NUL character.")
        return None

    def _allowed(self, scope: Scope, name: str) -> bool:
        if name in self._hosts:
            return True
        # A rebound name is a name: by its plain address a server may always be asked for.
        server = scope.get("server")
        try:
            return server is not None and ip_address(name) == ip_address(str(server[0]))
        except ValueError:
            return False
