"""Caps what a request may send, counted on the bytes that arrive, and the time it may take over them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from nexus.core.errors import MalformedBody, NexusError, TooLarge
from nexus.http.errors import RequestTimeout
from nexus.http.problem import send_error
from nexus.http.types import App, Message, Receive, Scope, Send, header

_LINGER_BYTES: Final = 16 * 1024 * 1024
_LINGER_SECONDS: Final = 1.0

Limit = Callable[[Scope], int]


class BodyLimit:
    """Answers 413 for too much and 408 for too slow.

    A limit is enforced on the bytes read, so a missing or lying Content-Length changes nothing. When a layer
    below has already turned the broken read into another error, its answer is replaced by the right one.
    """

    def __init__(self, app: App, *, limit_of: Limit, timeout: float, rate: int) -> None:
        """`limit_of(scope)` is the cap in bytes.

        A body may pause for `timeout` seconds, and in all take that plus a second for each `rate` bytes.
        """
        self._app = app
        self._limit_of = limit_of
        self._timeout = timeout
        self._rate = rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit_of(scope)
        announced = header(scope, b"content-length")
        if announced is not None and (not announced.isdigit() or int(announced[:20]) > limit):
            error = _too_large(limit) if announced.isdigit() else MalformedBody("Content-Length is not a number.")
            await refuse(scope, receive, send, error)
            return
        await _Guarded(self._app, limit, self._timeout, self._rate).serve(scope, receive, send)


class _Guarded:
    """One request under guard."""

    def __init__(self, app: App, limit: int, timeout: float, rate: int) -> None:
        self._app, self._limit, self._timeout, self._rate = app, limit, timeout, rate
        self._size = 0
        self._complete = False
        self._failure: NexusError | None = None
        self._answering = False
        self._began = 0.0

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app; say the true reason when its reading failed."""
        self._receive, self._send = receive, send
        try:
            await self._app(scope, self._read, self._write)
        except NexusError as error:
            if error is not self._failure:
                raise
        if self._failure is not None and not self._answering:
            await refuse(scope, receive, send, self._failure)

    async def _read(self) -> Message:
        if self._complete:
            return await self._receive()
        if self._failure is not None:
            raise self._failure
        now = time.monotonic()
        self._began = self._began or now
        patience = min(self._timeout, self._began + self._timeout + self._size / self._rate - now)
        try:
            async with asyncio.timeout(patience):
                message = await self._receive()
        except TimeoutError:
            self._failure = RequestTimeout()
            raise self._failure from None
        self._size += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._size > self._limit:
            self._failure = _too_large(self._limit)
            raise self._failure
        return message

    async def _write(self, message: Message) -> None:
        if self._failure is not None and not self._answering:
            return
        self._answering = True
        await self._send(message)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body is larger than {limit} bytes.", limit=limit)


async def refuse(scope: Scope, receive: Receive, send: Send, error: NexusError) -> None:
    """Answer with `error` and close, after listening a little longer.

    A connection that is closed while the client still sends is reset, and the client never reads why.
    """

    async def send_open(message: Message) -> None:
        if message["type"] == "http.response.body":
            await send({**message, "more_body": True})
            await _linger(receive)
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    await send_error(scope, send_open, error, headers=[(b"connection", b"close")])


async def _linger(receive: Receive) -> None:
    size, more = 0, True
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while more and size < _LINGER_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                more = message.get("more_body", False)
    except TimeoutError:
        return
