"""The only way to reach a URL that a user can influence: images, datasets, webhooks, discovery documents.

The name is resolved once, every answer is checked, and the connection goes to a checked address, with the
original name in Host and SNI; so neither redirects nor a name that changes its mind (DNS rebinding) lead
inside. No proxy of the environment is used. Everything is bounded: bytes, time, redirects.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_network
from typing import Final

import h11

from nexus.core.errors import InvalidInput, TooLarge
from nexus.http.errors import FetchFailed, FetchTimeout, UrlNotAllowed
from nexus.http.urls import Network, Target, check_answers, follow, parse_url

Resolver = Callable[[str, int], Awaitable[list[str]]]

MAX_REDIRECTS: Final = 3
DEFAULT_LIMIT: Final = 20 * 1024 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_HEADER: Final = 64 * 1024
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\x20-\x7e\x80-\xff\t]*")
# Ours to say: they would let a caller speak for another host or break the framing.
_RESERVED: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "te"})
_CREDENTIALS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a server answered. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    url: str

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300


@dataclass
class _Defaults:
    allow: tuple[Network, ...] = ()


_defaults = _Defaults()


def configure(allow: Iterable[str | Network]) -> None:
    """Set the private networks that may be reached by calls that name none (`NEXUS_FETCH_ALLOW`)."""
    _defaults.allow = _networks(allow)


def _networks(allow: Iterable[str | Network]) -> tuple[Network, ...]:
    return tuple(ip_network(item) if isinstance(item, str) else item for item in allow)


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of `host` as the system's resolver knows them. Raises `FetchFailed`."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise FetchFailed("The host of the URL is not known.", field="url") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def checked_addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a host that a user named and may reach, for what speaks another protocol.

    Connect to these, not to the name again. Raises `FetchFailed` and `UrlNotAllowed`.
    """
    return check_answers(await resolve(host, port), _defaults.allow)


async def safe_fetch(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    limit: int = DEFAULT_LIMIT,
    timeout: float = 10.0,  # noqa: ASYNC109  one limit over all steps is the contract, and callers set it per call
    allow: Iterable[str | Network] | None = None,
    resolver: Resolver = resolve,
) -> Fetched:
    """Fetch `url`, following up to three redirects for GET and HEAD only.

    Another method's redirect is returned as it is, so that a webhook can count it as a failure. `limit` is
    in bytes of the body, `timeout` in seconds over everything, `allow` the private networks that may be
    reached (default: those of `configure`).

    Raises `UrlNotAllowed`, `FetchFailed`, `FetchTimeout` and `TooLarge`.
    """
    networks = _defaults.allow if allow is None else _networks(allow)
    target = parse_url(url)
    sent = _checked_headers(headers or {})
    method = method.upper()
    if not _TOKEN.fullmatch(method):
        raise InvalidInput("The HTTP method is not valid.", field="method")
    try:
        async with asyncio.timeout(timeout):
            for _ in range(MAX_REDIRECTS + 1):
                answers = await resolver(target.host, target.port)
                addresses = check_answers(answers, networks)
                fetched = await _exchange(target, addresses, method, sent, body, limit)
                location = fetched.headers.get("location")
                if fetched.status not in _REDIRECTS or not location or method not in ("GET", "HEAD"):
                    return fetched
                following = follow(target, location)
                if following.origin != target.origin:
                    sent = {name: value for name, value in sent.items() if name not in _CREDENTIALS}
                target = following
    except TimeoutError:
        raise FetchTimeout(field="url") from None
    raise UrlNotAllowed(f"The URL redirects more than {MAX_REDIRECTS} times.", field="url")


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    checked = {}
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value) or name.lower() in _RESERVED:
            raise InvalidInput("A header is not valid or not for the caller to set.", field="headers")
        checked[name.lower()] = value
    return checked


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


async def _connect(target: Target, addresses: list[str]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    tls = _tls() if target.scheme == "https" else None
    name = target.host if tls else None
    for address in addresses:
        try:
            return await asyncio.open_connection(address, target.port, ssl=tls, server_hostname=name)
        except ssl.SSLError:
            raise FetchFailed("The server's certificate or TLS set-up is not valid.", field="url") from None
        except OSError:
            continue
    raise FetchFailed("The server does not accept connections.", field="url")


async def _exchange(
    target: Target, addresses: list[str], method: str, headers: Mapping[str, str], body: bytes, limit: int
) -> Fetched:
    reader, writer = await _connect(target, addresses)
    try:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEADER)
        # `identity`: a compressed bomb is then merely a long body, and that has a cap.
        fields = {
            "host": target.host_header,
            "user-agent": "nexus",
            "accept": "*/*",
            **headers,
            "accept-encoding": "identity",
            "connection": "close",
        }
        if body or method not in ("GET", "HEAD"):
            fields["content-length"] = str(len(body))
        request = h11.Request(method=method, target=target.path, headers=list(fields.items()))
        writer.write(connection.send(request) or b"")
        if body:
            writer.write(connection.send(h11.Data(data=body)) or b"")
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        return await _response(connection, reader, target, limit, announced=method != "HEAD")
    except h11.RemoteProtocolError:
        raise FetchFailed("The server's answer is not valid HTTP, or it was cut off.", field="url") from None
    except OSError:
        raise FetchFailed("The connection to the server broke.", field="url") from None
    finally:
        writer.transport.abort()


async def _response(
    connection: h11.Connection, reader: asyncio.StreamReader, target: Target, limit: int, *, announced: bool
) -> Fetched:
    """Read the answer; `announced` says that its Content-Length is that of a body which follows."""
    status, headers = 0, {}
    chunks: list[bytes] = []
    size = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Response):
            status = event.status_code
            headers = {name.decode().lower(): value.decode("latin-1") for name, value in event.headers}
            if announced and int(headers.get("content-length", "0")) > limit:
                raise _too_large(limit)
        elif isinstance(event, h11.Data):
            size += len(event.data)
            if size > limit:
                raise _too_large(limit)
            chunks.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            return Fetched(status, headers, b"".join(chunks), target.url)
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise FetchFailed("The server closed the connection without an answer.", field="url")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"What the URL holds is larger than {limit} bytes.", field="url", limit=limit)
