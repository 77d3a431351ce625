"""Cache marks on parts and tools: `{"cache_control": {"type": "ephemeral", "ttl": "1h"}}`.

Source: https://platform.claude.com/docs/en/build-with-claude/prompt-caching. Many clients of chat completions set them
too, though the documents of that form have no such field.
"""

from __future__ import annotations

from typing import Any


def read_mark(marked: dict[str, Any]) -> str | None:
    """Return how long the marked part is to be kept ("5m", "1h"), or None."""
    mark = marked.get("cache_control")
    return str(mark.get("ttl") or "5m") if isinstance(mark, dict) else None


def write_mark(mark: str | None) -> dict[str, Any]:
    """Return the field to add to a part or tool; the shorter time goes without saying."""
    return {"cache_control": {"type": "ephemeral"} | ({"ttl": mark} if mark != "5m" else {})} if mark else {}
