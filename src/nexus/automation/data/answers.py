"""What a web server's answer means for a step: success, a failure, or one that may pass."""

from __future__ import annotations

from typing import Final

from nexus.automation.errors import RequestFailed, RequestFailedForNow
from nexus.core.errors import NexusError
from nexus.http.fetch import Fetched

_TRANSIENT: Final = frozenset({408, 409, 423, 425, 429, 500, 502, 503, 504, 529})


def seconds_of(text: str) -> float | None:
    """Return what a Retry-After header asks for, an hour at the most; None for none or a date."""
    return min(float(text), 3600.0) if text.isascii() and text.isdigit() and len(text) < 8 else None


def failure_of(fetched: Fetched) -> NexusError:
    """Return the error of an answer that is no success."""
    message = f"The other side answered with status {fetched.status}."
    if fetched.status not in _TRANSIENT:
        return RequestFailed(message, answer_status=fetched.status)
    after = fetched.headers.get("retry-after", "")
    return RequestFailedForNow(message, answer_status=fetched.status, retry_after=seconds_of(after))
