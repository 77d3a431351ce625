"""Every answer of a language model says what is left of its caller's limits, errors and streams too."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from nexus.http.types import Scope, Send, path_of
from nexus.ledger.rate_headers import rate_headers
from nexus.llm.service import LLMService


def announcing(scope: Scope, send: Send) -> Send:
    """Return a `send` that adds the headers; `send` itself for a caller without limits."""
    services, principal = scope.get("app_services"), scope.get("principal")
    limiter = services.get(LLMService).limiter if services is not None else None
    if limiter is None or principal is None or not limiter.binds(principal):
        return send

    def announce(message: Any) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            lines = rate_headers(path_of(scope), *limiter.standing(principal))
            message = {**message, "headers": [*message["headers"], *lines]}
        return send(message)

    return announce
