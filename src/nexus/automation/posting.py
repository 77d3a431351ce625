"""Posting JSON to where people are told, and what the answers mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from nexus.automation.channel import Notice
from nexus.automation.errors import ChannelGone, CredentialMissing, RequestFailed, RequestFailedForNow
from nexus.http.fetch import Fetched, safe_fetch

TIMEOUT: Final = 20.0
_ANSWER: Final = 256 * 1024
_TRANSIENT: Final = frozenset({408, 409, 423, 425, 429, 500, 502, 503, 504, 529})
_LONGEST_PAUSE: Final = 3600.0


async def post(url: str, content: bytes, headers: Mapping[str, str] | None = None, *, patient: bool = False) -> Fetched:
    """Post JSON and return a good answer.

    No redirect is followed: one is a failure. Raises `ChannelGone` for 410, `RequestFailedForNow` for what may
    pass (with `patient`: for every other failure too), `RequestFailed`, and what fetching raises. No message
    holds the address, which may be a credential.
    """
    sent = {"content-type": "application/json", **(headers or {})}
    fetched = await safe_fetch(url, method="POST", headers=sent, body=content, limit=_ANSWER, timeout=TIMEOUT)
    if fetched.ok:
        return fetched
    if fetched.status == 410:
        raise ChannelGone(answer_status=410)
    message = f"The other side answered with status {fetched.status}."
    if fetched.status in _TRANSIENT or patient:
        pause = _seconds(fetched.headers.get("retry-after", ""))
        raise RequestFailedForNow(message, answer_status=fetched.status, retry_after=pause)
    raise RequestFailed(message, answer_status=fetched.status)


async def post_json(url: str, payload: Any, headers: Mapping[str, str] | None = None) -> Fetched:
    """Post a value as JSON. Raises as `post` does."""
    return await post(url, orjson.dumps(payload), headers)


def link_text(notice: Notice) -> str:
    """Return what the link of a notice is for."""
    return "Answer in NEXUS" if notice.event == "approval.requested" else "Open in NEXUS"


def needed(credential: str | None) -> str:
    """Return the credential. Raises `CredentialMissing`."""
    if not credential:
        raise CredentialMissing
    return credential


def _seconds(text: str) -> float | None:
    try:
        return min(max(0.0, float(text)), _LONGEST_PAUSE)
    except ValueError:
        return None
