"""What providers answer, as JSON: an object, or the error of a provider that does not keep to its form."""

from __future__ import annotations

from typing import Any

import msgspec

from nexus.llm.errors import UpstreamMalformed

_any = msgspec.json.Decoder()


def json_of(data: bytes) -> dict[str, Any]:
    """Return an upstream's JSON object. Raises `UpstreamMalformed`."""
    try:
        body = _any.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamMalformed from None
    if not isinstance(body, dict):
        raise UpstreamMalformed
    return body
