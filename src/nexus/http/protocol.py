"""HTTP/1.1 for uvicorn's server, with the limits of time and size that its own lacks (research security_api F4)."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.server import ServerState

from nexus.core.errors import InvalidInput, MalformedBody, NexusError
from nexus.core.ids import new_id
from nexus.http.connection import Connection
from nexus.http.cycle import Cycle
from nexus.http.errors import Overloaded, RequestTimeout
from nexus.http.heads import STATUS_LINES, write_headers
from nexus.http.problem import render, send_error
from nexus.http.types import App, RawHeaders, Scope

log = logging.getLogger("uvicorn.error")

_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}
_HIGH_WATER: Final = 64 * 1024
"""So many bytes of a body wait for the application before the client has to."""


class HeadersTooLarge(InvalidInput):
    """The request line and headers are larger than allowed."""

    code = "headers_too_large"
    status = 431


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may take: seconds, bytes, bytes per second, open connections."""

    header_timeout: float = 10.0
    header_bytes: int = 64 * 1024
    body_timeout: float = 30.0
    body_rate: int = 1024
    connections: int = 4096


class _Target(NamedTuple):
    """What a request is for: as it came, and as the scope has it."""

    url: bytes
    path: str
    below: str
    """The path below the root path."""
    raw_path: bytes
    query: bytes


class BoundedProtocol(Connection):
    """Reads requests for uvicorn's server and has them answered one after another.

    Closes connections whose headers or body come too slowly (408) or whose headers are too large (431). A body may
    pause for `body_timeout`, and in all take that plus a second for each `body_rate` bytes; time in which the
    application does not read is not the client's. A request that arrives in one piece costs no timer.
    """

    __slots__ = (
        *("_begun", "_body_began", "_body_bytes", "_cycle", "_expects_continue", "_header_bytes"),
        *("_headers", "_in_headers", "_limits", "_parser", "_queue", "_root", "_serving", "_shared", "_target"),
        *("_url", "_wishes"),
    )

    def __init__(
        self,
        limits: Limits,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Wait for the connection; all but `limits` is given by uvicorn's server."""
        super().__init__(config, server_state, _loop)
        self._limits = limits
        self._root = config.root_path
        self._shared = app_state
        self._parser = httptools.HttpRequestParser(self)
        # What follows a request that closes is not an error of that request.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._cycle: Cycle | None = None
        self._serving: Cycle | None = None
        self._queue: deque[tuple[Cycle, App]] = deque()
        self._header_bytes, self._body_bytes, self._body_began = 0, 0, 0.0
        self._in_headers = True
        self._begun = self._wishes = self._expects_continue = False
        self._url = b""
        self._target = _Target(b"", "", "", b"", b"")
        self._headers: RawHeaders = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self.expect(self._limits.header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who reads or writes."""
        for cycle in (self._serving, self._cycle):
            if cycle is not None:
                cycle.leave()
        super().connection_lost(exc)
        # Circles would wait long for the collector.
        self._parser = self._cycle = self._serving = None  # type: ignore[assignment]
        self._queue.clear()

    def data_received(self, data: bytes) -> None:
        """Count bytes while headers are incomplete, watch the time while the body is."""
        if self._in_headers:
            self._header_bytes += len(data)
        try:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as wish:
                self._read_again(data[wish.args[0] :])
        except httptools.HttpParserError:
            log.warning("Invalid HTTP request received.")
            self._refuse(MalformedBody("This is not a valid HTTP request."))
        if self._in_headers:
            if not self._begun and self._header_bytes == 0:
                return  # a whole request was there
            # Still in the headers after a whole piece: the pieces so far were headers only.
            if self.transport.is_closing():
                self.stop_clock()
            elif self._header_bytes > self._limits.header_bytes:
                self._refuse(HeadersTooLarge(limit=self._limits.header_bytes))
            elif self._begun and self.clock is None:
                self.expect(self._limits.header_timeout)
        elif self.transport.is_closing():
            self.stop_clock()
        elif self._cycle is not None and self._cycle.more_body:
            self._watch_body(len(data))

    def _read_again(self, rest: bytes) -> None:
        """Pass over a wish for another protocol (h2c of Java's clients, say), RFC 9110, section 7.8.

        The parser leaves the body to the other protocol, so it reads the request again without the wish.
        """
        while self._wishes:
            self._wishes = False
            target = (self._parser.get_method(), self._url, self._parser.get_http_version().encode("ascii"))
            data = b"%s %s HTTP/%s\r\n%s\r\n%s" % (*target, _without_wish(self._headers), rest)
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as wish:
                rest = data[wish.args[0] :]

    def on_message_begin(self) -> None:
        """A request begins; the clock for its headers starts if they do not come at once."""
        self._begun = self._in_headers = True
        self._expects_continue = False
        self._url = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        """Take the target of the request, or a piece of it."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers of a chunked body are dropped, as they would change headers already judged."""
        if self._in_headers:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self._expects_continue = True
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The headers are there in time: have the request answered, or wait for the ones before it."""
        parser = self._parser
        if parser.should_upgrade() and parser.get_method() != b"CONNECT":
            self._wishes = True
            return
        if self.clock is not None:
            self.stop_clock()
        self._in_headers = False
        self._header_bytes = self._body_bytes = 0
        version = parser.get_http_version()
        if self._target.url != self._url:  # clients mostly ask for the same again
            self._target = _target_of(self._url, self._root)
        _, path, below, raw_path, query = self._target
        scope: Scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self._server,
            "client": self._client,
            "scheme": self._scheme,
            "root_path": self._root,
            "headers": self._headers,
            "state": self._shared.copy(),
            "method": parser.get_method().decode("ascii"),
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "nexus.takes_lines": True,
            "nexus.path": below,
        }
        keep_alive = version != "1.0" and parser.should_keep_alive()
        cycle = self._cycle = Cycle(self, scope, keep_alive, self._expects_continue)
        app = _answer_overloaded if len(self._connections) > self._limits.connections else self.app
        if self._serving is None or self._serving.complete:
            self._serve(cycle, app)
        else:
            # Pipelined requests wait for the one before them.
            self.pause_reading()
            self._queue.append((cycle, app))

    def _serve(self, cycle: Cycle, app: App) -> None:
        self._serving = cycle
        # By itself, since the loop's way costs twice the time to count up a name.
        cycle.task = asyncio.Task(cycle.run(app), loop=self.loop, name="request")
        self.tasks.add(cycle.task)

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body until it is asked for; too much of it stops the reading."""
        cycle = self._cycle
        if cycle is None or cycle.complete:
            return
        cycle.pieces.append(body)
        cycle.held += len(body)
        if cycle.held > _HIGH_WATER:
            self.pause_reading()
        cycle.tell()

    def on_message_complete(self) -> None:
        """What comes next are the headers of another request."""
        if self._wishes:
            return
        if self._cycle is not None:
            self._cycle.more_body = False
            self._cycle.tell()
        if self.clock is not None:
            self.stop_clock()
        self._in_headers = True
        self._begun = False

    def answered(self) -> None:
        """Begin the next pipelined request, or to wait for one."""
        self.state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.read_paused:
            self.resume_reading()
        if self._queue:
            self._serve(*self._queue.popleft())
        else:
            self.watch_idle()

    def is_busy(self) -> bool:
        """Whether a request is on its way in, or its answer on its way out."""
        return self._begun or (self._serving is not None and not self._serving.complete)

    def shutdown(self) -> None:
        """End: at once, or after the answer that is being given. Called by uvicorn's server."""
        if self._cycle is None or self._cycle.complete:
            self.close()
        else:
            self._cycle.keep_alive = False

    def _watch_body(self, arrived: int) -> None:
        now = self.loop.time()
        if self._body_bytes == 0:
            self._body_began = now
        self._body_bytes += arrived
        patience = self._limits.body_timeout
        self.expect(min(patience, self._body_began + patience + self._body_bytes / self._limits.body_rate - now))

    def too_slow(self) -> None:
        """Refuse who has not sent in time what was expected."""
        self.clock = None
        if self.transport.is_closing():
            return
        if not self._in_headers and self.read_paused:
            # Nothing comes because the application takes nothing.
            self._body_began += self._limits.body_timeout
            self.expect(self._limits.body_timeout)
            return
        self._refuse(RequestTimeout())

    def _refuse(self, error: NexusError) -> None:
        self.stop_clock()
        self._queue.clear()
        given = None
        if self._serving is not None and not self._serving.complete:
            # The app's own answer is cut off, or it comes too late; its reading ends with a disconnect.
            self._serving.leave()
            if self._serving.started:
                self.close()
                return
            given = self._serving.scope.get("request_id")
        path = self._url.partition(b"?")[0].decode("latin-1") or "/"
        self.cork.write(self.transport, _refusal(path, error, str(given or new_id("req")), self.state.default_headers))
        self.close()


def _refusal(path: str, error: NexusError, request_id: str, headers: RawHeaders) -> bytes:
    """Return a whole answer in the dialect of `path`, after which the connection closes."""
    answer = render(path, error, request_id)
    body = answer.encode()
    own = [(b"x-request-id", request_id.encode()), (b"connection", b"close")]
    lines, _ = write_headers([*headers, *answer.raw_headers(len(body)), *own])
    return b"%s%s\r\n%s" % (STATUS_LINES[answer.status], lines, body)


def _target_of(url: bytes, root: str) -> _Target:
    """Understand a request's target, which may be absolute (RFC 9112, section 3.2.2)."""
    if url.startswith(b"/"):
        path, _, query = url.partition(b"#")[0].partition(b"?")
    else:
        parsed = httptools.parse_url(url)
        path, query = parsed.path or b"/", parsed.query or b""
    below = unquote(path.decode("ascii"))
    return _Target(url, root + below, below, root.encode("ascii") + path, query)


def _without_wish(headers: RawHeaders) -> bytes:
    """Return the lines of a request's headers but of those that ask for another protocol."""
    lines = []
    for name, value in headers:
        if name == b"connection":
            tokens = (token.strip() for token in value.split(b","))
            value = b", ".join(token for token in tokens if token.lower() not in (b"upgrade", b"http2-settings"))
            if not value:
                continue
        if name not in (b"upgrade", b"http2-settings"):
            lines.append(b"%s: %s\r\n" % (name, value))
    return b"".join(lines)


async def _answer_overloaded(scope: Any, receive: Any, send: Any) -> None:
    await send_error(scope, send, Overloaded(retry_after=1), headers=[(b"connection", b"close")])
