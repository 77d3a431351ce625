"""Who the client is when trusted proxies stand before us.

X-Forwarded-For is read from the right: each trusted proxy appends the address that it saw, so the first
address that is not a trusted proxy's is the client; whatever stands left of it the client may have invented
(research security_api F5).
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from nexus.http.settings import Network
from nexus.http.types import Scope

_MAX_HOPS: Final = 32


class TrustedProxies:
    """Replaces `scope["client"]` and `scope["scheme"]` by what trusted proxies say."""

    def __init__(self, networks: Sequence[Network]) -> None:
        """`networks` are the proxies' own; with none, forwarding headers are ignored."""
        self.networks = tuple(networks)

    def apply(self, scope: Scope) -> None:
        """Put what the proxies say into the scope, if they are to be trusted."""
        client = scope.get("client")
        if self.networks and client and self._trusted(client[0]):
            self._apply(scope, client[0])

    def _apply(self, scope: Scope, peer: str) -> None:
        hops: list[str] = []
        scheme = None
        for name, value in scope["headers"]:
            if name == b"x-forwarded-for":
                hops += value.decode("latin-1").split(",")
            elif name == b"x-forwarded-proto":
                scheme = value.decode("latin-1").rpartition(",")[2].strip().lower()
        found = peer
        for hop in reversed(hops[-_MAX_HOPS:]):
            address = _address(hop.strip())
            if address is None:
                break
            found = address
            if not self._trusted(address):
                break
        scope["client"] = (found, 0)
        if scheme in ("http", "https"):
            scope["scheme"] = scheme

    def _trusted(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed.version == network.version and parsed in network for network in self.networks)


def _address(text: str) -> str | None:
    """An address without port and brackets, or None."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None
