"""Thought signatures for clients whose dialect has no place for them.

Some providers seal a tool call or a text and want the seal back with it. In the chat-completions form it
stands where Google's own servers of that form put it (https://ai.google.dev/gemini-api/docs/thought-signatures).
Where the client's dialect cannot carry it, the seal travels inside the call's id, which every client sends
back unchanged.
"""

from __future__ import annotations

from typing import Any

_PLACE = "extra_content.google.thought_signature"
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


def beside(signature: str | None) -> dict[str, Any]:
    """Return the field that carries a seal beside a call or message of the chat-completions form."""
    outer, maker, name = _PLACE.split(".")
    return {outer: {maker: {name: signature}}} if signature else {}


def found_beside(told: dict[str, Any]) -> str | None:
    """Return the seal beside a call or message of the chat-completions form."""
    value: Any = told
    for name in _PLACE.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) and value else None
