"""uvicorn's HTTP protocol with the limits of time and size that it lacks (research security_api F4)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from nexus.core.errors import InvalidInput, MalformedBody, NexusError
from nexus.core.ids import new_id
from nexus.http.cycle import Cycle
from nexus.http.errors import Overloaded, RequestTimeout
from nexus.http.problem import render, send_error


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


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections whose headers or body come too slowly (408) or whose headers are too large (431).

    A body may pause for `body_timeout`, and in all take that plus a second for each `body_rate` bytes; time in
    which the application does not read is not the client's. A request that arrives in one piece costs no timer.
    """

    limits: ClassVar[Limits] = Limits()

    _clock: asyncio.TimerHandle | None = None
    _begun = False
    _in_headers = True
    _header_bytes = 0
    _body_bytes = 0
    _body_began = 0.0
    _idle_since = 0.0
    _wishes = False
    url = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self._expect(self.limits.header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._stop_clock()
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def data_received(self, data: bytes) -> None:
        """Count bytes while headers are incomplete, watch the time while the body is."""
        if self._in_headers:
            self._header_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("")
        if self.transport.is_closing():
            self._stop_clock()
        elif self._in_headers:
            # Still in the headers after a whole piece: the pieces so far were headers only.
            if self._header_bytes > self.limits.header_bytes:
                self._refuse(HeadersTooLarge(limit=self.limits.header_bytes))
            elif self._begun and self._clock is None:
                self._expect(self.limits.header_timeout)
        elif self.cycle.more_body:
            self._watch_body(len(data))

    def _feed(self, data: bytes) -> None:
        """Parse. A wish for another protocol (h2c of Java's clients, say) is passed over, RFC 9110, section 7.8."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as wish:
            # The parser leaves the body to the other protocol, so it reads the request again without the wish.
            if not self._wishes:
                return
            self._wishes = False
            method, version = self.parser.get_method(), self.parser.get_http_version().encode("ascii")
            lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
            lines += [b"%s: %s" % header for header in _without_wish(self.headers)]
            self._feed(b"\r\n".join(lines) + b"\r\n\r\n" + data[wish.args[0] :])

    def on_message_begin(self) -> None:
        """A request begins; the clock for its headers starts if they do not come at once."""
        super().on_message_begin()
        self._begun = self._in_headers = True

    def on_headers_complete(self) -> None:
        """The headers are there in time."""
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._wishes = True
            return
        if self._clock is not None:
            self._stop_clock()
        self._in_headers = False
        self._header_bytes = self._body_bytes = 0
        parser, scope = self.parser, self.scope
        before: RequestResponseCycle | None = self.cycle
        version = parser.get_http_version()
        scope["http_version"], scope["method"] = version, parser.get_method().decode("ascii")
        raw_path, scope["query_string"] = _split(self.url)
        path = raw_path.decode("ascii")
        scope["path"] = self.root_path + (unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + raw_path
        cycle = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        cycle.loop = self.loop
        self.cycle = cycle
        app = _answer_overloaded if len(self.connections) > self.limits.connections else self.config.loaded_app
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, app)
        else:
            # Pipelined requests wait for the one before them.
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, app))

    def on_response_complete(self) -> None:
        """Begin the next pipelined request, or to wait for one.

        The timer of an idle connection is left alone when the next request comes, and looks at the time when it
        fires: moving it twice for each request would cost more.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._watch_idle(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for too long."""
        self.timeout_keep_alive_task = None
        if self.transport.is_closing():
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if self._begun or not self.cycle.response_complete:
            return  # busy; the end of the answer watches again
        if left > 0:
            self._watch_idle(left)
        else:
            self.transport.close()

    def _watch_idle(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        """Leave the timer alone; see `on_response_complete`."""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers of a chunked body are dropped, as they would change headers already judged."""
        if self._in_headers:
            super().on_header(name, value)

    def on_message_complete(self) -> None:
        """What comes next are the headers of another request."""
        if self._wishes:
            return
        super().on_message_complete()
        if self._clock is not None:
            self._stop_clock()
        self._in_headers = True
        self._begun = False

    def send_400_response(self, msg: str) -> None:
        """Say that this was no HTTP, in the dialect of the path if that much was readable."""
        self._refuse(MalformedBody("This is not a valid HTTP request."))

    def _expect(self, seconds: float) -> None:
        self._stop_clock()
        self._clock = self.loop.call_later(max(0.0, seconds), self._too_slow)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _watch_body(self, arrived: int) -> None:
        now = self.loop.time()
        if self._body_bytes == 0:
            self._body_began = now
        self._body_bytes += arrived
        patience = self.limits.body_timeout
        self._expect(min(patience, self._body_began + patience + self._body_bytes / self.limits.body_rate - now))

    def _too_slow(self) -> None:
        self._clock = None
        if self.transport.is_closing():
            return
        if not self._in_headers and self.flow.read_paused:
            # Nothing comes because the application takes nothing.
            self._body_began += self.limits.body_timeout
            self._expect(self.limits.body_timeout)
            return
        self._refuse(RequestTimeout())

    def _refuse(self, error: NexusError) -> None:
        self._stop_clock()
        busy = self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]
        if busy:
            # The app's own answer is cut off, or it comes too late; its reading ends with a disconnect.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.close()
                return
        path = self.url.partition(b"?")[0].decode("latin-1") or "/"
        given = self.scope.get("request_id") if busy else None
        request_id = str(given or new_id("req"))
        answer = render(path, error, request_id)
        body = answer.encode()
        headers: list[Any] = [*self.server_state.default_headers, *answer.raw_headers(len(body))]
        headers += [(b"x-request-id", request_id.encode()), (b"connection", b"close")]
        lines = [STATUS_LINE[answer.status], *(name + b": " + value + b"\r\n" for name, value in headers)]
        self.transport.write(b"".join([*lines, b"\r\n", body]))
        self.transport.close()


def _split(url: bytes) -> tuple[bytes, bytes]:
    """Return path and query of a request's target, which may be absolute (RFC 9112, section 3.2.2)."""
    if url.startswith(b"/"):
        path, _, query = url.partition(b"#")[0].partition(b"?")
        return path, query
    parsed = httptools.parse_url(url)
    return parsed.path or b"/", parsed.query or b""


def _without_wish(headers: list[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the headers of a request but those that ask for another protocol."""
    for name, value in headers:
        if name == b"connection":
            tokens = (token.strip() for token in value.split(b","))
            value = b", ".join(token for token in tokens if token.lower() not in (b"upgrade", b"http2-settings"))
            if not value:
                continue
        if name not in (b"upgrade", b"http2-settings"):
            yield name, value


async def _answer_overloaded(scope: Any, receive: Any, send: Any) -> None:
    await send_error(scope, send, Overloaded(retry_after=1), headers=[(b"connection", b"close")])


def bounded_protocol(limits: Limits) -> type[BoundedProtocol]:
    """Return the protocol class with these limits."""
    return type("ConfiguredProtocol", (BoundedProtocol,), {"limits": limits})
