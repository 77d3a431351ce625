"""Caps what a request may send, counted on the bytes that arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from nexus.core.errors import MalformedBody, NexusError, TooLarge
from nexus.http.problem import send_error
from nexus.http.types import Message, Receive, Scope, Send

_LINGER_BYTES: Final = 16 * 1024 * 1024
_LINGER_SECONDS: Final = 1.0

Limit = Callable[[Scope], int]


def announced(length: bytes | None, limit: int) -> NexusError | None:
    """Return what is wrong with a Content-Length, or None. A missing or lying one is found out while reading."""
    if length is None or (length.isdigit() and int(length[:20]) <= limit):
        return None
    return too_large(limit) if length.isdigit() else MalformedBody("Content-Length is not a number.")


def too_large(limit: int) -> TooLarge:
    """Return the error of a body beyond `limit` bytes."""
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
