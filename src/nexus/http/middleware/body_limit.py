"""Caps what a request may send, counted on the bytes that arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from nexus.core.errors import MalformedBody, NexusError, TooLarge
from nexus.http.problem import send_error
from nexus.http.types import App, Message, Receive, Scope, Send, header

_LINGER_BYTES: Final = 16 * 1024 * 1024
_LINGER_SECONDS: Final = 1.0

Limit = Callable[[Scope], int]


class BodyLimit:
    """Answers 413 for too much.

    A limit is enforced on the bytes read, so a missing or lying Content-Length changes nothing. When a layer
    below has already turned the broken read into another error, its answer is replaced by the right one.
    Bodies that come too slowly are the business of `nexus.http.protocol`.
    """

    def __init__(self, app: App, *, limit_of: Limit) -> None:
        """`limit_of(scope)` is the cap in bytes."""
        self._app = app
        self._limit_of = limit_of

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
        guarded = _Guarded(limit, receive, send)
        try:
            await self._app(scope, guarded.read, guarded.write)
        except NexusError as error:
            if error is not guarded.failure:
                raise
        if guarded.failure is not None and not guarded.answering:
            await refuse(scope, receive, send, guarded.failure)


class _Guarded:
    """One request under guard."""

    __slots__ = ("_limit", "_receive", "_send", "_size", "answering", "failure")

    def __init__(self, limit: int, receive: Receive, send: Send) -> None:
        self._limit, self._receive, self._send = limit, receive, send
        self._size = 0
        self.failure: NexusError | None = None
        self.answering = False

    async def read(self) -> Message:
        """Pass on what arrives, as long as it is not too much."""
        if self.failure is not None:
            raise self.failure
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > self._limit:
            self.failure = _too_large(self._limit)
            raise self.failure
        return message

    async def write(self, message: Message) -> None:
        """Pass on the answer, unless a better one will be given."""
        if self.failure is not None and not self.answering:
            return
        self.answering = True
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
