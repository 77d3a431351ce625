"""Reads JSON bodies strictly before FastAPI does, which would answer some of them with 500 (research F16)."""

from __future__ import annotations

from typing import Final

from nexus.core.errors import MalformedBody
from nexus.http.body import parse_json, read_body
from nexus.http.types import App, Message, Receive, Scope, Send, header

_NO_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class StrictJSON:
    """Checks every JSON body and hands it on unchanged; raises `MalformedBody` or `TooLarge`."""

    def __init__(self, app: App) -> None:
        """Wrap `app`. The size is capped by `BodyLimit` further out."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] in _NO_BODY:
            await self._app(scope, receive, send)
            return
        kind = (header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
        if kind == b"application/x-www-form-urlencoded":
            body = await read_body(receive)
            if b"%00" in body or b"\0" in body:
                raise MalformedBody("The form contains a NUL character.")
        elif kind == b"application/json" or kind.endswith(b"+json"):
            body = await read_body(receive, 1 << 62)
            if body:
                parse_json(body)
        else:
            await self._app(scope, receive, send)
            return
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(scope, receive_again, send)
