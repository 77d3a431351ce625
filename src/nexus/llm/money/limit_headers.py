"""Every answer of a language model says what is left of its caller's limits, errors and streams too."""

from __future__ import annotations

from typing import Final

from nexus.http.types import Scope, Send, path_of
from nexus.ledger.limiter import Hold
from nexus.ledger.rate_headers import rate_headers
from nexus.llm.service import LLMService


def announcing(scope: Scope, send: Send) -> Send:
    """Ask the edge to put the headers on the answer as it begins; return `send`."""
    scope["nexus.answer_lines"] = _standing
    return send


HOLD: Final = "nexus.hold"
"""Where a scope has the reservation of its call, once there is one."""


def _standing(scope: Scope) -> bytes:
    hold: Hold | None = scope.get(HOLD)
    if hold is not None:
        return rate_headers(path_of(scope), *hold.standing())
    services, principal = scope.get("app_services"), scope.get("principal")
    limiter = services.get(LLMService).limiter if services is not None else None
    if limiter is None or principal is None:
        return b""
    return rate_headers(path_of(scope), *limiter.standing(principal))
