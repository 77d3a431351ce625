"""Cache marks on parts and tools: `{"cache_control": {"type": "ephemeral", "ttl": "1h"}}`.

Source: https://platform.claude.com/docs/en/build-with-claude/prompt-caching. Many clients of chat completions set them
too, though the documents of that form have another field for it: `{"prompt_cache_breakpoint": {"mode": "explicit",
"ttl": "30m"}}` (https://developers.openai.com/api/docs/guides/prompt-caching).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from nexus.llm.types import AnyPart, Message, ToolResult

# The lifetimes of breakpoints, the usual one first.
_BREAK: Final = "30m"
_LONG_BREAK: Final = "12h"
_TAKES_BREAKS: Final = re.compile(r"gpt-(?:5\.(?:[6-9]|\d\d)|[6-9]|\d\d)", re.ASCII)


def read_mark(marked: dict[str, Any]) -> str | None:
    """Return how long the marked part is to be kept ("5m", "1h"), or None."""
    mark = marked.get("cache_control")
    if isinstance(mark, dict):
        return str(mark.get("ttl") or "5m")
    mark = marked.get("prompt_cache_breakpoint")
    if not isinstance(mark, dict):
        return None
    return str(mark.get("ttl") or _BREAK)


def write_mark(mark: str | None) -> dict[str, Any]:
    """Return the field to add to a part or tool; the shorter time goes without saying."""
    if not mark:
        return {}
    lasting = kept_for(mark)
    return {"cache_control": {"type": "ephemeral"} | ({"ttl": lasting} if lasting != "5m" else {})}


def write_own_mark(mark: str | None) -> dict[str, Any]:
    """Return the field as a client of chat completions wrote it."""
    if mark not in (_BREAK, _LONG_BREAK):
        return write_mark(mark)
    return {"prompt_cache_breakpoint": {"mode": "explicit"} | ({"ttl": mark} if mark != _BREAK else {})}


def marked_for(model: str, messages: Iterable[Message]) -> tuple[Message, ...]:
    """Return messages whose marks are such breakpoints, or none where the model does not know them."""
    breaks = _TAKES_BREAKS.match(model) is not None
    return tuple(msgspec.structs.replace(said, parts=_remarked(said.parts, breaks=breaks)) for said in messages)


def _remarked(parts: Sequence[Any], *, breaks: bool) -> tuple[Any, ...]:
    return tuple(_marked_anew(part, breaks=breaks) for part in parts)


def _marked_anew(part: AnyPart, *, breaks: bool) -> AnyPart:
    if isinstance(part, ToolResult):
        return msgspec.structs.replace(part, cache=None, content=_remarked(part.content, breaks=breaks))
    if part.cache is None:
        return part
    lasting = _LONG_BREAK if part.cache in ("1h", _LONG_BREAK) else _BREAK
    return msgspec.structs.replace(part, cache=lasting if breaks else None)


def kept_for(mark: str) -> str:
    """Return the lifetime that caches elsewhere know: the least that lasts as long, an hour where none does."""
    return "1h" if mark in (_BREAK, _LONG_BREAK) else mark
