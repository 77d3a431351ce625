"""One HTTP/1.1 connection to an upstream, read by httptools (llhttp, which refuses ambiguous framing).

An exchange is one request and its answer. Its deadlines are watched by a single timer that is moved
lazily, since arming one for every piece of a stream costs more than reading the piece.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import lru_cache

import httptools

from nexus.core.cork import corks
from nexus.core.errors import NexusError
from nexus.llm.errors import UpstreamMalformed, UpstreamStalled, UpstreamTruncated, UpstreamUnavailable
from nexus.llm.types import Timeouts

HEADER_LIMIT = 65_536
BUFFER_LIMIT = 262_144


@lru_cache(maxsize=512)
def _name(name: bytes) -> str:
    return name.decode("latin-1").lower()


class ConnectionLost(UpstreamUnavailable):
    """The connection to the provider broke before it answered."""


class Connection(asyncio.Protocol):
    """The protocol of one connection. Busy from `begin` until the answer is complete or has failed."""

    __slots__ = (
        *("_between", "_buffered", "_chunks", "_cork", "_end", "_headers_size", "_interim", "_last", "_parser"),
        *("_paused", "_streaming", "_take", "_timer", "_until_close", "_waiter", "busy", "complete", "failure"),
        *("head_done", "headers", "idle_since", "loop", "on_body", "open", "reusable", "status", "touched", "used"),
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for the transport."""
        self.loop = loop
        self._cork = corks.of(loop)
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._take: Callable[[bytes], bool] | None = None
        self.open = False
        self.busy = False
        self.used = 0
        self.idle_since = 0.0
        self.failure: NexusError | None = None
        self._chunks: deque[bytes] = deque()
        self.on_body = self._chunks.append  # one read has many pieces, which are looked at together
        self._paused = False

    def begin(self, request: bytes, timeouts: Timeouts, *, stream: bool, started: float) -> None:
        """Send a whole request. `started` (loop time) is when its total time began to run."""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.head_done = self.complete = self.touched = self._interim = self._until_close = False
        self.reusable = self._paused = False
        self.failure = None
        self._headers_size = self._buffered = 0
        self._chunks.clear()
        self._streaming = stream
        self._between = timeouts.between_tokens
        self._end = started + timeouts.total
        now = self.loop.time()
        self._last = now + (timeouts.first_token - timeouts.between_tokens if stream else 0.0)
        self.busy = True
        self.used += 1
        self.watch(now)
        self._cork.write(self.transport, request)

    def news(self) -> asyncio.Future[None]:
        """Return what is done when something has come. Raises what went wrong instead."""
        if self.failure is not None:
            raise self.failure
        self._waiter = waiter = self.loop.create_future()
        return waiter

    async def read(self) -> bytes:
        """Return the bytes of the body that have come since, waiting for some; `b""` at the end."""
        while True:
            if self._chunks:
                return self._collected()
            if self.complete:
                return b""
            await self.news()

    async def pass_on(self, take: Callable[[bytes], bool]) -> None:
        """Hand what comes of the body to `take` as it comes, waking nobody, until that says no or nothing comes.

        What it says no to has been handed over all the same.
        """
        if self._chunks:
            return
        self._take = take
        try:
            while not self.complete and self.failure is None:
                self._waiter = waiter = self.loop.create_future()
                await waiter
                if self._take is None:
                    return
        finally:
            self._take = None

    def _collected(self) -> bytes:
        """Take the bytes of the body that have come."""
        data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        if self._paused:
            self._paused = False
            self._last = self.loop.time()
            if self.open:
                self.transport.resume_reading()
        return data

    def whole(self) -> bytes | None:
        """Return the body if it is complete and in one piece."""
        if not self.complete or len(self._chunks) != 1 or self.failure is not None:
            return None
        return self._chunks.popleft()

    def abort(self) -> None:
        """Close the socket at once, whatever is under way."""
        self.open = False
        self._stop_watching()
        self.transport.abort()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _fail(self, error: NexusError) -> None:
        if self.busy and not self.complete and self.failure is None:
            self.failure = error
            self._wake()
        self.abort()

    def watch(self, now: float) -> None:
        """Look at the next deadline, unless the timer that an earlier exchange has left fires before it."""
        when = min(self._end, self._last + self._between) if self._streaming else self._end
        timer = self._timer
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timer = self.loop.call_at(max(when, now + 0.001), self._look)

    def _look(self) -> None:
        """Fail the exchange if a deadline has passed, else look again at the next one."""
        self._timer = None
        if not self.busy or self.complete:
            return
        now = self.loop.time()
        if self._chunks:
            self._last = now  # whoever reads is slow, not the upstream
        if now >= self._end or (self._streaming and now >= self._last + self._between):
            self._fail(UpstreamStalled())
        else:
            self.watch(now)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]
        # One for all answers: a connection is used again only where the last one has ended as it should.
        self._parser = httptools.HttpResponseParser(self)
        self.open = True

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if not self.busy or self.complete:
            self.reusable = False
            self.abort()  # nobody asked for this
            return
        self.touched = True
        if not self.head_done:
            self._headers_size += len(data)
        take, chunks = self._take, self._chunks
        waiting = len(chunks)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(UpstreamMalformed())
            return
        if take is not None:
            if chunks:
                self._last = self.loop.time()
                data = chunks.popleft() if len(chunks) == 1 else self._collected()
                if not take(data):
                    self._take = None
                    self._wake()
        elif len(chunks) > waiting:
            self._queued(len(data))
        elif not self.head_done and self._headers_size > HEADER_LIMIT:
            self._fail(UpstreamMalformed("The provider sent headers that are too large."))

    def _queued(self, size: int) -> None:
        """Wake who waits for the body, and stop reading while too much of it waits."""
        self._buffered += size
        self._last = self.loop.time()
        if self._buffered > BUFFER_LIMIT and not self._paused and self.open:
            self._paused = True
            self.transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Finish a body that ends with the connection, or fail what was under way."""
        self.open = False
        if self.busy and not self.complete and self.failure is None:
            if exc is None and self.head_done and self._until_close:
                self._finish(reusable=False)
            elif self.touched:
                self.failure = UpstreamTruncated()
            else:
                self.failure = ConnectionLost()
        self._stop_watching()
        self._wake()
        # It knows us as we know it, and such circles wait long for the collector.
        self._parser = None  # type: ignore[assignment]  # nothing is read any more

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, repeated ones joined by a comma."""
        key, text = _name(name), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        """Note the status; 1xx answers are passed over."""
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._interim = True
            return
        self.status = status
        encoding = self.headers.get("content-encoding", "identity")
        self._until_close = (
            "content-length" not in self.headers and "chunked" not in self.headers.get("transfer-encoding", "")
        ) and status not in (204, 304)
        if encoding not in ("identity", ""):
            # We asked for none, and unpacking is how a small answer becomes a large one.
            self._fail(UpstreamMalformed("The provider sent a compressed answer, which was not asked for."))
            raise UpstreamMalformed  # the parser stops
        self.head_done = True
        if self._waiter is not None:
            self._wake()

    def on_message_begin(self) -> None:
        """Refuse a second answer to one request: the error makes the parser stop and the connection close."""
        if self.complete:
            self.reusable = False
            raise UpstreamMalformed

    def on_message_complete(self) -> None:
        """Note the end of the answer."""
        if self._interim:
            self._interim = False
            self.headers = {}
            return
        self._finish(reusable=self._parser.should_keep_alive())

    def _finish(self, *, reusable: bool) -> None:
        self.complete = True
        self.reusable = reusable
        if self._waiter is not None:
            self._wake()
