"""Gives every request its id: `scope["request_id"]` and the header `x-request-id`."""

from __future__ import annotations

import re
from collections.abc import Callable
from secrets import token_hex
from typing import Final

from nexus.http.types import App, Message, Receive, Scope, Send, header, path_of

_ACCEPTED: Final = re.compile(rb"[A-Za-z0-9_-]{8,64}")


class RequestId:
    """Takes the caller's `x-request-id` when it is harmless, else makes one; answers always carry it.

    Paths of the Anthropic dialect carry `request-id` too, where its SDK looks for it.
    """

    def __init__(self, app: App, *, bind: Callable[[str], object] | None = None) -> None:
        """`bind` is told each id inside the request's own context (for logs)."""
        self._app = app
        self._bind = bind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = header(scope, b"x-request-id")
        # In the form of our ids, but all random: nobody sorts requests by id, and this is on the hot path.
        request_id = sent.decode() if sent and _ACCEPTED.fullmatch(sent) else "req_" + token_hex(13)
        scope["request_id"] = request_id
        if self._bind is not None:
            self._bind(request_id)
        added = [(b"x-request-id", request_id.encode())]
        if path_of(scope).startswith("/v1/messages"):
            added.append((b"request-id", request_id.encode()))

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await self._app(scope, receive, send_with_id)
