"""One request and its answer on a connection: what ASGI calls `receive` and `send`.

Nothing goes to the socket before there is a body or the loop has turned, which spares every short answer a system
call and its reader a wake-up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from nexus.http.connection import Connection
from nexus.http.heads import STATUS_LINES, OwnLines, write_headers
from nexus.http.types import FINISH, LEAVING, PUSH, SHORT_WAYS, WHOLE, App, Message, RawHeaders, Scope

log = logging.getLogger("uvicorn.error")

_own: Final = OwnLines()
_NO_WAYS: Final = dict.fromkeys(SHORT_WAYS)
_FAILED: Final = b"Internal Server Error"
_FAILED_HEADERS: Final[RawHeaders] = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"content-length", b"%d" % len(_FAILED)),
    (b"connection", b"close"),
]


class Cycle:
    """The `receive` and `send` of one request.

    The connection puts what arrives into `pieces` and `more_body`, says so with `tell`, and sets `disconnected`.
    """

    __slots__ = (
        *("_arrival", "_chunked", "_connection", "_head", "_hears", "_left", "_streams", "_until_close"),
        *("complete", "disconnected", "expects_continue", "held", "keep_alive", "more_body", "news", "pieces"),
        *("scope", "started", "task"),
    )

    task: asyncio.Task[None]

    def __init__(
        self, connection: Connection, scope: Scope, keep_alive: bool, expects_continue: bool, body: bytes | None = None
    ) -> None:
        """Put the short ways into `scope`. Nothing has been sent yet, nor read but for a `body` that is there whole."""
        self._connection = connection
        self.scope = scope
        scope[PUSH], scope[FINISH], scope[LEAVING], scope[WHOLE] = self.push, self.finish, self.leaving, self.whole
        self.keep_alive = keep_alive
        self.expects_continue = expects_continue
        self.news = body is not None
        self.pieces = [] if body is None else [body]
        self.held = 0
        self.more_body = body is None
        self.disconnected = self.started = self.complete = False
        self._arrival: asyncio.Event | None = None
        self._hears: Callable[[], None] | None = None
        self._head = b""
        self._left = 0
        self._chunked = self._streams = self._until_close = False

    async def run(self, app: App) -> None:
        """Let the app answer; an answer that it leaves unfinished ends the connection."""
        connection = self._connection
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException as error:  # whatever it was, this request ends here and the next one is served
            log.error("Exception in ASGI application\n", exc_info=error)
            await self._break_off()
        else:
            if not self.complete and not self.disconnected:
                how = "completing" if self.started else "starting"
                log.error("ASGI callable returned without %s response.", how)
                await self._break_off()
        finally:
            connection.tasks.discard(self.task)
            # They lead back to here, and circles wait long for the collector.
            self.scope.update(_NO_WAYS)

    async def _break_off(self) -> None:
        if self.started:
            self._connection.close()
            return
        await self.send({"type": "http.response.start", "status": 500, "headers": _FAILED_HEADERS})
        await self.send({"type": "http.response.body", "body": _FAILED})

    async def receive(self) -> Message:
        """Return what has arrived of the body, wait for more of it, or for the end of the exchange."""
        connection = self._connection
        if self.expects_continue and not connection.transport.is_closing():
            connection.cork.write(connection.transport, b"HTTP/1.1 100 Continue\r\n\r\n")
            self.expects_continue = False
        if not self.disconnected and not self.complete:
            if connection.read_paused:
                connection.resume_reading()
            if not self.news:
                await self._wait()
            self.news = False
        if self.disconnected or self.complete:
            return {"type": "http.disconnect"}
        body = b"".join(self.pieces)
        self.pieces, self.held = [], 0
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    def whole(self) -> bytes | None:
        """Return the body where all of it has come; None where `receive` has to be asked."""
        if self.more_body or self.disconnected or self.expects_continue or self._connection.read_paused:
            return None
        body = b"".join(self.pieces)
        self.pieces, self.held = [], 0
        self.news = False
        return body

    async def _wait(self) -> None:
        if self._arrival is None:
            self._arrival = asyncio.Event()
        self._arrival.clear()
        await self._arrival.wait()

    def tell(self) -> None:
        """Say that there is something to receive."""
        self.news = True
        if self._arrival is not None:
            self._arrival.set()

    def leaving(self, hears: Callable[[], None] | None) -> asyncio.Task[None]:
        """Tell `hears` when the client leaves before its answer is complete; return the task of the answer."""
        self._hears = hears
        if hears is not None and self.disconnected:
            self._connection.loop.call_soon(hears)
        return self.task

    def leave(self) -> None:
        """Note that nobody waits for the rest of the answer."""
        if not self.complete and not self.disconnected:
            self.disconnected = True
            if self._hears is not None:
                self._hears()
        self.tell()

    async def send(self, message: Message) -> None:
        """Take a piece of the answer. Raises RuntimeError for one that breaks HTTP or ASGI."""
        if self._connection.write_paused and not self.disconnected:
            await self._connection.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if not self.started:
            if kind != "http.response.start":
                raise RuntimeError(f"an answer begins with http.response.start, not {kind}")
            self._begin(message["status"], message.get("headers", ()), message.get("nexus.lines", b""))
        elif self.complete:
            raise RuntimeError("the answer is complete")
        elif kind != "http.response.body":
            raise RuntimeError(f"an answer goes on with http.response.body, not {kind}")
        else:
            self._go_on(message.get("body", b""), more=message.get("more_body", False))

    def push(self, body: bytes, more: bool) -> bool:
        """Send a piece of a body that has begun, at once; False where it must go by `send`, which waits."""
        if self._connection.write_paused or self.disconnected or self.complete or not self.started:
            return False
        if more and body and self._streams and not self._head:
            self._connection.cork.write(self._connection.transport, b"%x\r\n%b\r\n" % (len(body), body))
        else:
            self._go_on(body, more=more)
        return True

    def finish(self, status: int, lines: bytes, body: bytes) -> bool:
        """Send a whole answer at once; False where it must go by `send`, which waits or knows what is special."""
        connection = self._connection
        if connection.write_paused or self.disconnected or self.started or self.scope["method"] == "HEAD":
            return False
        self.started = True
        self.expects_continue = False
        own = _own.of(connection.state.default_headers)
        close = b"" if self.keep_alive else b"connection: close\r\n"
        head = (STATUS_LINES[status], own, lines, close, len(body), body)
        connection.cork.write(connection.transport, b"%s%s%s%scontent-length: %d\r\n\r\n%s" % head)
        self._end()
        return True

    def _begin(self, status: int, headers: RawHeaders, finished: bytes) -> None:
        """Prepare the head; it is written with the first bytes of the body, or when the loop turns.

        To a server that says so in `scope["nexus.takes_lines"]` our own edge gives most headers as finished lines.
        """
        self.started = True
        self.expects_continue = False
        connection = self._connection
        lines, fields = write_headers([*connection.state.default_headers, *headers])
        lines += finished
        if b"connection" in fields and b"close" in map(bytes.strip, fields[b"connection"].lower().split(b",")):
            self.keep_alive = False
        elif not self.keep_alive:
            lines += b"connection: close\r\n"
        if b"transfer-encoding" in fields and fields[b"transfer-encoding"].lower() == b"chunked":
            self._chunked = True
        elif b"content-length" in fields:
            self._left = int(fields[b"content-length"])
            self._head = b"%s%s\r\n" % (STATUS_LINES[status], lines)
            return
        elif self.scope["method"] != "HEAD" and status not in (204, 304):
            if self.scope["http_version"] == "1.0":
                # Such a client knows no chunks; its connection is closed after the answer.
                self._until_close = True
            else:
                self._chunked = True
                lines += b"transfer-encoding: chunked\r\n"
        self._head = b"%s%s\r\n" % (STATUS_LINES[status], lines)
        self._streams = self._chunked and self.scope["method"] != "HEAD"
        # How soon bytes follow is not known, and a client of a stream waits for its head.
        connection.loop.call_soon(self._write_head)

    def _write_head(self) -> None:
        if self._head and not self.disconnected:
            head, self._head = self._head, b""
            self._connection.cork.write(self._connection.transport, head)

    def _go_on(self, body: bytes, *, more: bool) -> None:
        out, self._head = self._head, b""
        if self._chunked:
            if self.scope["method"] != "HEAD":
                if body:
                    out = b"%s%x\r\n%s\r\n" % (out, len(body), body)
                if not more:
                    out += b"0\r\n\r\n"
        elif self._until_close:
            out += body
        elif self.scope["method"] != "HEAD":
            self._left -= len(body)
            if self._left < 0:
                raise RuntimeError("the body is longer than its Content-Length")
            if not more and self._left:
                raise RuntimeError("the body is shorter than its Content-Length")
            out += body
        connection = self._connection
        if out:
            connection.cork.write(connection.transport, out)
        if not more:
            self._end()

    def _end(self) -> None:
        self.complete = True
        self.tell()
        if not self.keep_alive:
            self._connection.close()
        self._connection.answered()
