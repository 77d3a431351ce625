"""Searches in the web within answers of the Messages form: a call of the server's tool, and what it found.

Source: https://platform.claude.com/docs/en/agents-and-tools/tool-use/web-search-tool.
"""

from __future__ import annotations

from typing import Any, Final

from nexus.llm.types import Searched, WebSearch

TOOL: Final = "web_search"
# The version that every model with this tool has; later ones want a tool for code beside it.
_VERSION: Final = "web_search_20250305"


def write_search(search: WebSearch) -> dict[str, Any]:
    """Write the tool."""
    tool: dict[str, Any] = {"type": _VERSION, "name": TOOL}
    if search.domains:
        tool["allowed_domains"] = list(search.domains)
    if search.location:
        tool["user_location"] = {"type": "approximate"} | search.location
    return tool


class Searches:
    """Puts calls and results together, block by block."""

    def __init__(self) -> None:
        """Begin before the first block."""
        self._asked: dict[str, tuple[str, ...]] = {}

    def hear(self, block: dict[str, Any]) -> Searched | None:
        """Take a whole block into account; return the search that it ends."""
        kind, given = block.get("type"), block.get("input")
        if kind == "server_tool_use" and block.get("name") == TOOL:
            query = given.get("query") if isinstance(given, dict) else None
            self._asked[str(block.get("id"))] = (query,) if isinstance(query, str) else ()
        if kind != "web_search_tool_result":
            return None
        found = block.get("content")
        listed = found if isinstance(found, list) else []
        urls = [item["url"] for item in listed if isinstance(item, dict) and isinstance(item.get("url"), str)]
        queries = self._asked.pop(str(block.get("tool_use_id")), ())
        return Searched(queries=queries, sources=tuple(urls), failed=not isinstance(found, list))
