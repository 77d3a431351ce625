"""How an answer tells its caller what is left of their limits, in the words of the path's dialect."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from nexus.core.clock import rfc3339
from nexus.http.types import RawHeaders
from nexus.ledger.limiter import Standing
from nexus.ledger.windows import SECONDS


def rate_headers(path: str, requests: Standing | None, tokens: Standing | None) -> RawHeaders:
    """Return the headers for the limits that there are.

    OpenAI's names (https://platform.openai.com/docs/guides/rate-limits) on `/v1`, Anthropic's
    (https://docs.anthropic.com/en/api/rate-limits) on `/v1/messages`, and everywhere those of
    https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/.
    """
    if requests is None and tokens is None:
        return []
    headers: RawHeaders = []
    if path.startswith("/v1/"):
        names, span = _OPENAI, _span
        if path == "/v1/messages" or path.startswith("/v1/messages/"):
            names, span = _ANTHROPIC, _moment
        for (limit, left, reset), standing in zip(names, (requests, tokens), strict=True):
            if standing is not None:
                headers.append((limit, b"%d" % standing.limit))
                headers.append((left, b"%d" % standing.left))
                headers.append((reset, span(standing.reset)))
    if requests is None:
        told = b'"tok";r=%d;t=%d' % (tokens.left, math.ceil(tokens.reset)) if tokens is not None else b""
    else:
        told = b'"req";r=%d;t=%d' % (requests.left, math.ceil(requests.reset))
        if tokens is not None:
            told = b'%s, "tok";r=%d;t=%d' % (told, tokens.left, math.ceil(tokens.reset))
    policy = _policy(requests.limit if requests is not None else None, tokens.limit if tokens is not None else None)
    headers.append((b"ratelimit-policy", policy))
    headers.append((b"ratelimit", told))
    return headers


_METRICS: Final = ("requests", "tokens")
_OPENAI: Final = [
    (
        f"x-ratelimit-limit-{name}".encode(),
        f"x-ratelimit-remaining-{name}".encode(),
        f"x-ratelimit-reset-{name}".encode(),
    )
    for name in _METRICS
]
_ANTHROPIC: Final = [
    (
        f"anthropic-ratelimit-{name}-limit".encode(),
        f"anthropic-ratelimit-{name}-remaining".encode(),
        f"anthropic-ratelimit-{name}-reset".encode(),
    )
    for name in _METRICS
]


@lru_cache(maxsize=256)
def _policy(requests: int | None, tokens: int | None) -> bytes:
    policies = []
    if requests is not None:
        policies.append(b'"req";q=%d;w=%d' % (requests, SECONDS))
    if tokens is not None:
        policies.append(b'"tok";q=%d;w=%d;qu="tokens"' % (tokens, SECONDS))
    return b", ".join(policies)


def _span(seconds: float) -> bytes:
    """Return seconds as OpenAI writes them: `120ms`, `7.5s`, `1m0s`."""
    if seconds < 1:
        return b"%dms" % math.ceil(seconds * 1000)
    if seconds < SECONDS:
        return f"{seconds:.3g}s".encode()
    return b"%dm%ds" % (seconds // 60, math.ceil(seconds % 60))


def _moment(seconds: float) -> bytes:
    """Return when that will be, as Anthropic writes it (RFC 3339)."""
    return (rfc3339(datetime.fromtimestamp(time.time() + seconds, UTC)) or "").encode()
