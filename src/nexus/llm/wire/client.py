"""A small HTTP/1.1 client: keep-alive connections, TLS, a deadline for each phase, bounded sizes.

    async with client.send(request, timeouts, stream=True) as answer:
        while data := await answer.next():
            ...

It never follows redirects, never asks for compression, never reads proxies from the environment, and
sends a request a second time only when a kept connection turns out to be dead before any byte came.
Leaving the block before the end of the answer closes the socket at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from functools import lru_cache
from types import TracebackType
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec

from nexus.core.errors import NexusError
from nexus.core.per_loop import PerLoop
from nexus.llm.errors import UpstreamMalformed, UpstreamTimeout, UpstreamUnavailable
from nexus.llm.types import Timeouts
from nexus.llm.wire.connection import Connection, ConnectionLost

_KEPT = 128


class Origin(NamedTuple):
    """Where a request goes: scheme, host, port, and the path that comes before every target."""

    secure: bool
    host: str
    port: int


class Wrapping(Protocol):
    """What an answer comes wrapped in, where its codec reads what is inside. One for each answer."""

    def feed(self, data: bytes) -> bytes:
        """Return what `data` completes of a body that is read in pieces."""
        ...

    def end(self) -> bytes:
        """Return the rest. Raises `UpstreamTruncated` in the middle of something."""
        ...

    def whole(self, answer: HttpAnswer) -> HttpAnswer:
        """Return a whole answer as its codec reads it."""
        ...


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to an absolute `url`. Host, length and connection headers are added when it is sent.

    `wrapping` makes what unwraps the answer, from its headers.
    """

    url: str
    body: bytes = b""
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = ()
    wrapping: Callable[[dict[str, str]], Wrapping] | None = None


class HttpAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@lru_cache(maxsize=1024)
def _locate(url: str) -> tuple[Origin, bytes]:
    """Split a URL into its origin and the head of the request up to the path. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http(s) URL")
    secure = parts.scheme == "https"
    origin = Origin(secure, parts.hostname, parts.port or (443 if secure else 80))
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    name = f"[{origin.host}]" if ":" in origin.host else origin.host
    host = name if parts.port is None else f"{name}:{origin.port}"
    if any(ord(c) <= 32 or ord(c) > 126 for c in path + host):
        raise ValueError("a URL has only printable ASCII")
    return origin, f" {path} HTTP/1.1\r\nhost: {host}\r\naccept-encoding: identity\r\n".encode()


@lru_cache(maxsize=1024)
def _lines(headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return header lines; most calls of an account have the same. Raises ValueError for one with a line break."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "\0" in lines:
        raise ValueError("a header has a line break")
    return lines.encode("latin-1")


def render(request: HttpRequest) -> tuple[Origin, bytes]:
    """Return where the request goes and its bytes. Raises ValueError for a URL or header that is none."""
    origin, head = _locate(request.url)
    body = request.body
    return origin, b"%s%s%scontent-length: %d\r\n\r\n%s" % (
        request.method.encode(),
        head,
        _lines(request.headers),
        len(body),
        body,
    )


class _Here:
    """What one event loop has: the pools by origin, and the timer that closes what nobody uses."""

    __slots__ = ("pools", "sweeping")

    def __init__(self) -> None:
        self.pools: dict[Origin, _Pool] = {}
        self.sweeping: asyncio.TimerHandle | None = None


class _Pool:
    """The connections of one event loop to one origin."""

    __slots__ = ("here", "idle", "open", "waiting")

    def __init__(self, here: _Here) -> None:
        self.here = here
        self.idle: deque[Connection] = deque()
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.open = 0


class HttpClient:
    """Connections to any number of upstreams. Safe to use from several event loops, each with its own."""

    def __init__(
        self,
        *,
        connections: int = 2048,
        keepalive: float = 30.0,
        answer_limit: int = 128_000_000,
        ca_file: str | None = None,
    ) -> None:
        """Allow `connections` to one origin at once, and keep unused ones for `keepalive` seconds."""
        self.connections = connections
        self.keepalive = keepalive
        self.answer_limit = answer_limit
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None
        self._here = PerLoop(_Here)

    def send(self, request: HttpRequest, timeouts: Timeouts, *, stream: bool = False) -> Answer:
        """Prepare an exchange; it begins when the returned object is entered.

        With `stream`, the first-token and between-token limits hold besides connect and total.
        """
        return Answer(self, request, timeouts, stream)

    async def fetch(self, request: HttpRequest, timeouts: Timeouts) -> HttpAnswer:
        """Send and read a whole answer. Raises as `Answer.begin` and `Answer.whole` do."""
        pool, connection = await self._open(request, timeouts, stream=False)
        if request.wrapping is None and (body := connection.whole()) is not None:
            self._release(pool, connection)
            return HttpAnswer(status=connection.status, headers=connection.headers, body=body)
        answer = Answer(self, request, timeouts, stream=False)
        answer.goes_on(pool, connection)
        async with answer:
            return await answer.whole()

    async def _open(self, request: HttpRequest, timeouts: Timeouts, *, stream: bool) -> tuple[_Pool, Connection]:
        """Connect, send, and wait for status and headers; see `Answer.begin`."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            origin, data = render(request)
        except ValueError:
            raise UpstreamUnavailable("The provider's address or credential is not usable.") from None
        pool = self._pool(loop, origin)
        fresh = False
        while True:
            connection = None if fresh else self._unused(pool, started)
            if connection is None:
                connect = min(timeouts.connect, timeouts.total)
                connection = await self._acquire(loop, pool, origin, connect, fresh=fresh)
            kept = connection.used > 0
            connection.begin(data, timeouts, stream=stream, started=started)
            try:
                while not connection.head_done:
                    await connection.news()
            except ConnectionLost:
                self._drop(pool, connection)
                if not kept or fresh:
                    raise
                fresh = True  # it had died while unused, so the request was never read
            except BaseException:
                self._drop(pool, connection)
                raise
            else:
                return pool, connection

    def open_connections(self) -> int:
        """Return how many connections of this event loop are open."""
        here = self._here.known(asyncio.get_running_loop())
        return sum(pool.open for pool in here.pools.values()) if here is not None else 0

    async def close(self) -> None:
        """Close every unused connection of this event loop; those in use close when their answers end."""
        here = self._here.pop(asyncio.get_running_loop())
        if here is None:
            return
        for pool in here.pools.values():
            while pool.idle:
                pool.idle.pop().abort()
                pool.open -= 1
        if here.sweeping is not None:
            here.sweeping.cancel()
            here.sweeping = None

    def _pool(self, loop: asyncio.AbstractEventLoop, origin: Origin) -> _Pool:
        here = self._here.of(loop)
        pool = here.pools.get(origin)
        if pool is None:
            pool = here.pools[origin] = _Pool(here)
        return pool

    async def _acquire(
        self, loop: asyncio.AbstractEventLoop, pool: _Pool, origin: Origin, limit: float, *, fresh: bool
    ) -> Connection:
        """Return an unused connection, or a new one. Raises `UpstreamUnavailable` and `UpstreamTimeout`."""
        if not fresh and (connection := self._unused(pool, loop.time())) is not None:
            return connection
        try:
            async with asyncio.timeout(limit):
                while pool.open >= self.connections:
                    if fresh and pool.idle:
                        self._drop(pool, pool.idle.popleft())
                        continue
                    turn = loop.create_future()
                    pool.waiting.append(turn)
                    try:
                        await turn
                    except BaseException:
                        if turn.done() and not turn.cancelled():
                            _next(pool)
                        raise
                    if (connection := self._unused(pool, loop.time())) is not None:
                        return connection
                return await self._connect(loop, pool, origin)
        except TimeoutError:
            raise UpstreamTimeout("The provider could not be reached in time.") from None

    def _unused(self, pool: _Pool, now: float) -> Connection | None:
        oldest = now - self.keepalive
        while pool.idle:
            connection = pool.idle.pop()
            if connection.open and connection.idle_since >= oldest:
                return connection
            self._drop(pool, connection)
        return None

    async def _connect(self, loop: asyncio.AbstractEventLoop, pool: _Pool, origin: Origin) -> Connection:
        pool.open += 1
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(loop),
                origin.host,
                origin.port,
                ssl=self._context() if origin.secure else None,
                server_hostname=origin.host if origin.secure else None,
            )
        except (OSError, UnicodeError):
            # Also what TLS and the resolver raise; their texts name addresses.
            self._freed(pool)
            raise UpstreamUnavailable("The provider could not be reached.") from None
        except BaseException:
            self._freed(pool)
            raise
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            if self._ca_file:
                self._tls.load_verify_locations(self._ca_file)
        return self._tls

    def _release(self, pool: _Pool, connection: Connection) -> None:
        """Keep a connection whose answer is complete, else close it."""
        connection.busy = False
        good = connection.open and connection.complete and connection.reusable and len(pool.idle) < _KEPT
        if not good or self.keepalive <= 0:
            self._drop(pool, connection)
            return
        loop = connection.loop
        connection.idle_since = loop.time()
        pool.idle.append(connection)
        if pool.waiting:
            _next(pool)
        if pool.here.sweeping is None:
            pool.here.sweeping = loop.call_later(self.keepalive, self._sweep, loop, pool.here)

    def _drop(self, pool: _Pool, connection: Connection) -> None:
        connection.busy = False
        connection.abort()
        self._freed(pool)

    def _freed(self, pool: _Pool) -> None:
        pool.open -= 1
        _next(pool)

    def _sweep(self, loop: asyncio.AbstractEventLoop, here: _Here) -> None:
        """Close what has been unused for too long, and come back while anything is kept."""
        oldest = loop.time() - self.keepalive
        kept = False
        for pool in here.pools.values():
            while pool.idle and (not pool.idle[0].open or pool.idle[0].idle_since <= oldest):
                self._drop(pool, pool.idle.popleft())
            kept = kept or bool(pool.idle)
        here.sweeping = loop.call_later(max(self.keepalive / 4, 0.05), self._sweep, loop, here) if kept else None


def _next(pool: _Pool) -> None:
    """Let the next waiter have its turn."""
    while pool.waiting:
        turn = pool.waiting.popleft()
        if not turn.done():
            turn.set_result(None)
            return


class Answer:
    """One exchange: entered it has status and headers, left it has given its connection back or closed it."""

    __slots__ = ("_client", "_connection", "_pool", "_request", "_stream", "_timeouts", "_wrapping")

    def __init__(self, client: HttpClient, request: HttpRequest, timeouts: Timeouts, stream: bool) -> None:
        """Begin nothing yet."""
        self._client = client
        self._request = request
        self._timeouts = timeouts
        self._stream = stream
        self._wrapping: Wrapping | None = None
        self._connection: Connection | None = None
        self._pool: _Pool | None = None

    async def __aenter__(self) -> Answer:
        """Do as `begin` does, unless that has been done."""
        if self._connection is None:
            await self.begin()
        return self

    async def begin(self) -> None:
        """Connect, send, and wait for status and headers.

        Raises `UpstreamUnavailable`, `UpstreamTimeout`, `UpstreamTruncated` or `UpstreamMalformed`.
        """
        self.goes_on(*await self._client._open(self._request, self._timeouts, stream=self._stream))  # noqa: SLF001

    def goes_on(self, pool: _Pool, connection: Connection) -> None:
        """Take over an exchange that has begun."""
        self._pool, self._connection = pool, connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the connection back if the answer was read to its end, else close it."""
        self._leave(failed=kind is not None)

    def close(self) -> None:
        """Close the connection at once."""
        self._leave(failed=True)

    @property
    def status(self) -> int:
        """Return the status code."""
        assert self._connection is not None
        return self._connection.status

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers, names in lower case."""
        assert self._connection is not None
        return self._connection.headers

    def next(self) -> Awaitable[bytes]:
        """Return the next bytes of the body, `b""` at its end."""
        assert self._connection is not None
        return self._connection.read() if self._request.wrapping is None else self._unwrapped(self._request.wrapping)

    def has_begun(self) -> None:
        """Tell that the first words have come: from here on the limit for the time between pieces holds."""
        connection = self._connection
        assert connection is not None
        if connection.open and not connection.complete:
            connection.watch(connection.loop.time())

    async def pass_on(self, take: Callable[[bytes], bool]) -> None:
        """Hand the bytes of the body to `take` as they come, until it says no or `next` has to be asked."""
        assert self._connection is not None
        if self._request.wrapping is None:
            await self._connection.pass_on(take)

    async def _unwrapped(self, wrapping: Callable[[dict[str, str]], Wrapping]) -> bytes:
        assert self._connection is not None
        data = await self._connection.read()
        if self._wrapping is None:
            self._wrapping = wrapping(self.headers)
        while data:
            if inside := self._wrapping.feed(data):
                return inside
            data = await self._connection.read()
        return self._wrapping.end()

    async def whole(self) -> HttpAnswer:
        """Read the whole body. Raises `UpstreamMalformed` when it is larger than allowed."""
        pieces, size = [], 0
        while data := await self.next():
            pieces.append(data)
            size += len(data)
            if size > self._client.answer_limit:
                raise UpstreamMalformed("The provider sent an answer that is too large.")
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        answer = HttpAnswer(status=self.status, headers=self.headers, body=body)
        return answer if self._request.wrapping is None else self._unwrapped_whole(answer)

    def _unwrapped_whole(self, answer: HttpAnswer) -> HttpAnswer:
        wrapping = self._wrapping
        if wrapping is None:
            assert self._request.wrapping is not None
            wrapping = self._request.wrapping(answer.headers)
        return wrapping.whole(answer)

    async def drain(self, seconds: float) -> None:
        """Wait a moment for the formal end of a body whose content is known to be over, to keep the connection."""
        assert self._connection is not None
        if self._connection.complete:
            return
        with contextlib.suppress(TimeoutError, NexusError):
            async with asyncio.timeout(seconds):
                while await self.next():
                    pass

    def _leave(self, *, failed: bool) -> None:
        connection, pool = self._connection, self._pool
        if connection is None or pool is None:
            return
        self._connection = None
        if failed:
            self._client._drop(pool, connection)  # noqa: SLF001
        else:
            self._client._release(pool, connection)  # noqa: SLF001
