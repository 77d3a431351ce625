"""How an answer tells its caller what is left of their limits, in the words of the path's dialect."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from math import ceil
from typing import Final

from nexus.core.clock import rfc3339
from nexus.ledger.windows import SECONDS, Standing


def rate_headers(path: str, requests: Standing | None, tokens: Standing | None) -> bytes:
    """Return the headers, as finished lines, for the limits that there are.

    OpenAI's names (https://platform.openai.com/docs/guides/rate-limits) on `/v1`, Anthropic's
    (https://docs.anthropic.com/en/api/rate-limits) on `/v1/messages`, and everywhere those of
    https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/.
    """
    # Nearly every caller with limits has both.
    if requests is not None and tokens is not None:
        form, span = _form(path, requests.limit, tokens.limit)
        told = (requests.left, ceil(requests.reset), tokens.left, ceil(tokens.reset))
        if span is None:
            return form % told
        return form % (requests.left, span(requests.reset), tokens.left, span(tokens.reset), *told)
    only = requests or tokens
    if only is None:
        return b""
    form, span = _form(path, requests and requests.limit, tokens and tokens.limit)
    own = () if span is None else (only.left, span(only.reset))
    return form % (*own, only.left, ceil(only.reset))


_Names = tuple[bytes, ...]
_Span = Callable[[float], bytes]
_NO_NAMES: Final[_Names] = ()
_OPENAI: Final = (b"x-ratelimit-limit-%b", b"x-ratelimit-remaining-%b", b"x-ratelimit-reset-%b")
_ANTHROPIC: Final = tuple(b"anthropic-ratelimit-%%b-%b" % part for part in (b"limit", b"remaining", b"reset"))


def _words(path: str) -> tuple[_Names, _Span | None]:
    """Return what the dialect of a path calls limits, and how it writes times."""
    if not path.startswith("/v1/"):
        return _NO_NAMES, None
    anthropic = path == "/v1/messages" or path.startswith("/v1/messages/")
    return (_ANTHROPIC, _moment) if anthropic else (_OPENAI, _span)


@lru_cache(maxsize=1024)
def _form(path: str, requests: int | None, tokens: int | None) -> tuple[bytes, _Span | None]:
    """Return the lines for these limits, with gaps for what is left of them and for how long, and how to write that."""
    names, span = _words(path)
    limits = [(name, limit) for name, limit in ((b"requests", requests), (b"tokens", tokens)) if limit is not None]
    lines = []
    for name, limit in limits if names else ():
        most, left, reset = (each % name for each in names)
        lines += [b"%b: %d" % (most, limit), b"%b: %%d" % left, b"%b: %%b" % reset]
    policies = {b"requests": b'"req";q=%d;w=%d', b"tokens": b'"tok";q=%d;w=%d;qu="tokens"'}
    told = {b"requests": b'"req";r=%d;t=%d', b"tokens": b'"tok";r=%d;t=%d'}
    lines.append(b"ratelimit-policy: " + b", ".join(policies[name] % (limit, SECONDS) for name, limit in limits))
    lines.append(b"ratelimit: " + b", ".join(told[name] for name, _ in limits))
    return b"".join(line + b"\r\n" for line in lines), span


def _span(seconds: float) -> bytes:
    """Return seconds as OpenAI writes them: `120ms`, `7.5s`, `1m0s`."""
    if seconds < 1:
        return b"%dms" % ceil(seconds * 1000)
    if seconds < SECONDS:
        return b"%.3gs" % seconds
    return b"%dm%ds" % (seconds // 60, ceil(seconds % 60))


def _moment(seconds: float) -> bytes:
    """Return when that will be, as Anthropic writes it (RFC 3339)."""
    return (rfc3339(datetime.fromtimestamp(time.time() + seconds, UTC)) or "").encode()
