"""uvicorn's HTTP protocol with the time and size limits for request headers that it lacks (research F4)."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from nexus.core.errors import InvalidInput, MalformedBody, NexusError
from nexus.core.ids import new_id
from nexus.http.errors import Overloaded, RequestTimeout
from nexus.http.problem import render, send_error


class HeadersTooLarge(InvalidInput):
    """The request line and headers are larger than allowed."""

    code = "headers_too_large"
    status = 431


_DEFAULT_LIMIT: Final = 64 * 1024


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections whose headers are too slow (408) or too large (431), in the dialect of the path."""

    header_timeout: ClassVar[float] = 10.0
    header_limit: ClassVar[int] = _DEFAULT_LIMIT
    connection_limit: ClassVar[int] = 4096

    _deadline: asyncio.TimerHandle | None = None
    _header_bytes = 0
    _in_headers = True
    url = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count bytes while headers are incomplete."""
        if self._deadline is None and self._in_headers:
            self._expect_headers()
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        # Still in the headers after a whole piece: the pieces so far were headers only.
        if self._in_headers and self._header_bytes > self.header_limit and not self.transport.is_closing():
            self._refuse(HeadersTooLarge(limit=self.header_limit))

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_headers = True

    def on_headers_complete(self) -> None:
        """The headers are there in time."""
        self._stop_clock()
        self._in_headers = False
        self._header_bytes = 0
        crowded = len(self.connections) > self.connection_limit
        self.app = _answer_overloaded if crowded else self.config.loaded_app
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers of a chunked body are dropped, as they would change headers already judged."""
        if self._in_headers:
            super().on_header(name, value)

    def on_message_complete(self) -> None:
        """What comes next are the headers of another request, with a clock that starts with their first byte."""
        super().on_message_complete()
        self._in_headers = True

    def send_400_response(self, msg: str) -> None:
        """Say that this was no HTTP, in the dialect of the path if that much was readable."""
        self._refuse(MalformedBody("This is not a valid HTTP request."))

    def _expect_headers(self) -> None:
        self._deadline = self.loop.call_later(self.header_timeout, self._too_slow)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self._refuse(RequestTimeout())

    def _refuse(self, error: NexusError) -> None:
        self._stop_clock()
        busy = self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]
        if busy:
            # The app's own answer is cut off, or it comes too late.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.close()
                return
        path = self.url.partition(b"?")[0].decode("latin-1") or "/"
        request_id = new_id("req")
        answer = render(path, error, request_id)
        body = answer.encode()
        headers: list[Any] = [*self.server_state.default_headers, *answer.raw_headers(len(body))]
        headers += [(b"x-request-id", request_id.encode()), (b"connection", b"close")]
        lines = [STATUS_LINE[answer.status], *(name + b": " + value + b"\r\n" for name, value in headers)]
        self.transport.write(b"".join([*lines, b"\r\n", body]))
        self.transport.close()


async def _answer_overloaded(scope: Any, receive: Any, send: Any) -> None:
    await send_error(scope, send, Overloaded(retry_after=1), headers=[(b"connection", b"close")])


def bounded_protocol(*, header_timeout: float, header_limit: int, connection_limit: int) -> type[BoundedProtocol]:
    """Return the protocol class with these limits (seconds, bytes, open connections)."""
    limits = {"header_timeout": header_timeout, "header_limit": header_limit, "connection_limit": connection_limit}
    return type("ConfiguredProtocol", (BoundedProtocol,), limits)
