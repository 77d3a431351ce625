"""How an answer tells its caller what is left of their limits, in the words of the path's dialect."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime

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
            figures = (("limit", standing.limit), ("remaining", standing.left), ("reset", reset))
            headers += [_line(f"anthropic-ratelimit-{name}-{what}", figure) for what, figure in figures]
    elif path.startswith("/v1/"):
        for name, standing in found:
            figures = (("limit", standing.limit), ("remaining", standing.left), ("reset", _span(standing.reset)))
            headers += [_line(f"x-ratelimit-{what}-{name}", figure) for what, figure in figures]
    policies, standings = [], []
    for name, standing in found:
        short, unit = ("req", "") if name == "requests" else ("tok", ';qu="tokens"')
        policies.append(f'"{short}";q={standing.limit};w={SECONDS}{unit}')
        standings.append(f'"{short}";r={standing.left};t={math.ceil(standing.reset)}')
    return [*headers, _line("ratelimit-policy", ", ".join(policies)), _line("ratelimit", ", ".join(standings))]


def _line(name: str, value: object) -> tuple[bytes, bytes]:
    return name.encode(), str(value).encode()


def _span(seconds: float) -> str:
    """Return seconds as OpenAI writes them: `120ms`, `7.5s`, `1m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < SECONDS:
        return f"{seconds:.3g}s"
    return f"{int(seconds // 60)}m{math.ceil(seconds % 60)}s"
