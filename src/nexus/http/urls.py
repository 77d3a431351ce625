"""Which URLs may be reached on a user's behalf. Pure: parsing and judging, no network.

There is ONE parser, here, and what it says is what is connected to: programs that parse twice are led astray
(research security_api F10). Whatever parsers are known to disagree on is refused, not interpreted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import quote, urljoin

from nexus.http.errors import UrlNotAllowed

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_MAX_URL: Final = 8192
_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f\\]")
_URL: Final = re.compile(r"(https?)://([^/?#]*)(/[^?#]*)?(\?[^#]*)?(#.*)?", re.IGNORECASE | re.DOTALL)
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@%]+)(?::([0-9]{1,5}))?")
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# `is_global` of Python 3.11 is true for the first four: NAT64 twice, 6to4, Teredo and its neighbours.
_TUNNELS: Final = tuple(map(ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/23")))


@dataclass(frozen=True, slots=True)
class Target:
    """A URL in the form that it is used."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def is_default_port(self) -> bool:
        """Whether the port is the usual one of the scheme."""
        return self.port == (443 if self.scheme == "https" else 80)

    @property
    def host_header(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.is_default_port else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"{self.scheme}://{self.host_header}{self.path}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """What decides whether credentials may go along on a redirect."""
        return self.scheme, self.host, self.port


def parse_url(url: str) -> Target:
    """Read an absolute http or https URL, or raise `UrlNotAllowed`."""
    if len(url) > _MAX_URL:
        raise UrlNotAllowed("The URL is too long.", field="url")
    if _FORBIDDEN.search(url):
        raise UrlNotAllowed("The URL contains a space, a backslash or a control character.", field="url")
    match = _URL.fullmatch(url)
    if match is None:
        raise UrlNotAllowed("Only http and https URLs are allowed.", field="url")
    scheme, authority, path, query = match[1].lower(), match[2], match[3] or "/", match[4] or ""
    if "@" in authority:
        raise UrlNotAllowed("The URL must not contain a user name or password.", field="url")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise UrlNotAllowed("The host of the URL is not valid.", field="url")
    port = int(parts[2]) if parts[2] else (443 if scheme == "https" else 80)
    # Mail, printers, databases on their usual low ports are nobody's web server.
    if not (port in (80, 443) or 1024 <= port <= 65535):
        raise UrlNotAllowed("The port of the URL is not allowed.", field="url")
    return Target(scheme, _host(parts[1]), port, quote(path + query, safe="/?:@!$&'()*+,;=-._~%[]|^"))


def _host(text: str) -> str:
    """Return the host in lower case: a name, or an address in its one canonical form."""
    if text.startswith("["):
        try:
            return str(IPv6Address(text[1:-1]))
        except ValueError:
            raise UrlNotAllowed("The host of the URL is not valid.", field="url") from None
    host = text.lower().removesuffix(".")
    labels = host.split(".")
    if not host.isascii() or len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UrlNotAllowed("The host of the URL is not valid; write other alphabets in punycode.", field="url")
    # "Ends in a number" of the WHATWG URL standard: 127.1, 2130706433, 0x7f000001, 0177.0.0.1.
    if labels[-1].isdigit() or re.fullmatch(r"0x[0-9a-f]*", labels[-1]):
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise UrlNotAllowed("Write an IPv4 address as four plain decimal numbers.", field="url") from None
    return host


def follow(target: Target, location: str) -> Target:
    """Return where a redirect leads. Raises `UrlNotAllowed`, also for a step down from https to http."""
    following = parse_url(urljoin(target.url, location) if not _FORBIDDEN.search(location) else location)
    if target.scheme == "https" and following.scheme == "http":
        raise UrlNotAllowed("The URL redirects from https to http.", field="url")
    return following


def is_allowed(address: Address, allow: Iterable[Network] = ()) -> bool:
    """Tell whether `address` is on the public internet, or in a network that the operator allows."""
    if any(address.version == network.version and address in network for network in allow):
        return True
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_allowed(address.ipv4_mapped, allow)
        if any(address in tunnel for tunnel in _TUNNELS):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def check_answers(answers: Iterable[str], allow: Iterable[Network] = ()) -> list[str]:
    """Return the addresses of a resolved name, all of which must be allowed; else raise `UrlNotAllowed`.

    One forbidden address among good ones is an attack, or a mistake; both are refused.
    """
    allow = tuple(allow)
    addresses = [ip_address(answer.partition("%")[0]) for answer in answers]
    if not addresses or not all(is_allowed(address, allow) for address in addresses):
        raise UrlNotAllowed("The URL leads to an address that may not be reached from here.", field="url")
    return [str(address) for address in addresses]
