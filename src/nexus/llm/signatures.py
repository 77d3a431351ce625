"""Thought signatures for clients whose dialect has no place for them.

Some providers seal a tool call and want the seal back with it. Where the client's dialect cannot carry
it, the seal travels inside the call's id, which every client sends back unchanged.
"""

from __future__ import annotations

_MARK = "-sealed-"


def sealed_id(call_id: str, signature: str | None) -> str:
    """Return the id with the seal in it; base64 is written with the letters that ids may have."""
    if not signature:
        return call_id
    return call_id + _MARK + signature.replace("+", "-").replace("/", "_").rstrip("=")


def unsealed(call_id: str) -> tuple[str, str | None]:
    """Return the id as it was, and the seal that was in it."""
    plain, mark, seal = call_id.partition(_MARK)
    if not mark:
        return call_id, None
    seal = seal.replace("-", "+").replace("_", "/")
    return plain, seal + "=" * (-len(seal) % 4)
