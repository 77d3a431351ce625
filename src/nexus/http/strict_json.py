"""Reads JSON bodies strictly before FastAPI does, which would answer some of them with 500 (research F16)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nexus.core.errors import MalformedBody
from nexus.http.body import parse_json, read_body
from nexus.http.problem import send_error
from nexus.http.types import App, Message, Receive, Scope, Send, header

# `BodyLimit`, further out, has counted already.
_UNLIMITED: Final = 1 << 62
_NO_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class StrictJSON:
    """Checks every JSON body and hands it on unchanged, or answers with `MalformedBody`."""

    def __init__(self, app: App) -> None:
        """Wrap `app`. The size is capped by `BodyLimit` further out."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] in _NO_BODY:
            await self._app(scope, receive, send)
            return
        kind = (header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
        check = _check_of(kind)
        if check is None:
            await self._app(scope, receive, send)
            return
        body = await read_body(receive, _UNLIMITED)
        try:
            check(body)
        except MalformedBody as error:
            # Answered here, as FastAPI's own middleware would take a raised error for an accident.
            await send_error(scope, send, error)
            return
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(scope, receive_again, send)


def _check_of(kind: bytes) -> Callable[[bytes], object] | None:
    if kind == b"application/json" or kind.endswith(b"+json"):
        return _check_json
    return _check_form if kind == b"application/x-www-form-urlencoded" else None


def _check_json(body: bytes) -> None:
    # Without a body the route decides: many take one or none.
    if body:
        parse_json(body)


def _check_form(body: bytes) -> None:
    if b"%00" in body or b"\0" in body:
        raise MalformedBody("The form contains a NUL character.")
