"""Google's error bodies, turned into ours.

Source: https://cloud.google.com/apis/design/errors. `{"error": {"code", "message", "status", "details"}}`,
which a stream without server-sent events wraps in an array. Bad keys come as 400, not as 401.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from nexus.core.errors import NexusError, TooLarge
from nexus.llm.errors import (
    ContextTooLong,
    UpstreamCredentials,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
    from_status,
)

_any = msgspec.json.Decoder()
_KEY_REASONS = re.compile(r"API_KEY|SERVICE_DISABLED|BILLING|CREDENTIALS|ACCESS_TOKEN|CONSUMER_")
_KEY_WORDS = re.compile(r"API key (?:not valid|expired|not found)|.*location is not supported|.*billing", re.IGNORECASE)
_TOO_LONG = re.compile(r"token count.*exceeds the maximum|exceeds the maximum number of tokens", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")
_CODES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def told_in(data: bytes) -> dict[str, Any]:
    """Return the error object of an answer; empty where there is none."""
    try:
        body = _any.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return told_of(body) or {}


def told_of(body: Any) -> dict[str, Any] | None:
    """Return the error object in decoded JSON, or None."""
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    told = body.get("error") if isinstance(body, dict) else None
    if told is None:
        return None
    return told if isinstance(told, dict) else {"message": str(told)}


def read_error(
    told: dict[str, Any],
    *,
    status: int | None = None,
    retry_after: float | None = None,
    body: bytes = b"",
    event: bytes = b"",
) -> NexusError:
    """Turn Google's error object into ours; `status` is that of the answer, where the error came as one.

    Where the fault is the caller's, `body` and `event` are kept for callers who speak Gemini; else its
    words stay here.
    """
    name, code, message = str(told.get("status") or ""), told.get("code"), told.get("message")
    if status is None:
        status = code if isinstance(code, int) and 400 <= code < 600 else _CODES.get(name, 503)
    message = message[:2000] if isinstance(message, str) and message else None
    details = [item for item in told.get("details") or () if isinstance(item, dict)]
    if status == 400 and _is_of_account(details, message or ""):
        return UpstreamCredentials()
    if status in (400, 413) and _TOO_LONG.search(message or ""):
        return ContextTooLong(message, field="contents")
    if status == 413:
        return TooLarge("The provider finds the request too large.")
    if status == 499:
        return UpstreamUnavailable()
    if status == 504:
        return UpstreamTimeout()
    found = from_status(status, message=message, body=body, retry_after=_retry_delay(details, retry_after))
    if isinstance(found, UpstreamRejected):
        found.event = event
        found.field = _field(details)
    return found


def _is_of_account(details: list[dict[str, Any]], message: str) -> bool:
    """Tell whether the fault is that of our own account: its key, its country, its unpaid bill."""
    reasons = (str(item.get("reason") or "") for item in details)
    return any(_KEY_REASONS.match(reason) for reason in reasons) or bool(_KEY_WORDS.match(message))


def _retry_delay(details: list[dict[str, Any]], otherwise: float | None) -> float | None:
    """Return the seconds of a RetryInfo, which Google sends in the place of a Retry-After header."""
    for item in details:
        if found := _DURATION.fullmatch(str(item.get("retryDelay") or "")):
            return min(float(found.group(1)), 86_400.0)
    return otherwise


def _field(details: list[dict[str, Any]]) -> str | None:
    for item in details:
        for violation in item.get("fieldViolations") or ():
            if isinstance(violation, dict) and isinstance(violation.get("field"), str):
                return re.sub(r"\[(\d+)\]", r".\1", violation["field"]) or None
    return None
