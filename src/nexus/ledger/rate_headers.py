"""How an answer tells its caller what is left of their limits, in the words of the path's dialect."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
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
    found = [(name, standing) for name, standing in (("requests", requests), ("tokens", tokens)) if standing]
    if not found:
        return []
    headers: RawHeaders = []
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        for name, standing in found:
            reset = rfc3339(datetime.fromtimestamp(time.time() + standing.reset, UTC)) or ""
            headers += zip(
                _ANTHROPIC[name], (b"%d" % standing.limit, b"%d" % standing.left, reset.encode()), strict=True
            )
    elif path.startswith("/v1/"):
        for name, standing in found:
            reset = _span(standing.reset)
            figures = (b"%d" % standing.limit, b"%d" % standing.left, reset.encode())
            headers += zip(_OPENAI[name], figures, strict=True)
    told = [b'"%s";r=%d;t=%d' % (_SHORT[name], item.left, math.ceil(item.reset)) for name, item in found]
    headers += ((b"ratelimit-policy", _policy(*found)), (b"ratelimit", b", ".join(told)))
    return headers


_OPENAI: Final = {
    name: [f"x-ratelimit-{what}-{name}".encode() for what in ("limit", "remaining", "reset")]
    for name in ("requests", "tokens")
}
_ANTHROPIC: Final = {
    name: [f"anthropic-ratelimit-{name}-{what}".encode() for what in ("limit", "remaining", "reset")]
    for name in ("requests", "tokens")
}
_SHORT: Final = {"requests": b"req", "tokens": b"tok"}
_UNIT: Final = {"requests": b"", "tokens": b';qu="tokens"'}


def _policy(*found: tuple[str, Standing]) -> bytes:
    return b", ".join(b'"%s";q=%d;w=%d%s' % (_SHORT[name], item.limit, SECONDS, _UNIT[name]) for name, item in found)


def _span(seconds: float) -> str:
    """Return seconds as OpenAI writes them: `120ms`, `7.5s`, `1m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < SECONDS:
        return f"{seconds:.3g}s"
    return f"{int(seconds // 60)}m{math.ceil(seconds % 60)}s"
