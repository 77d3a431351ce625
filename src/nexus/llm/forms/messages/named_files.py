"""Where Messages name files: sources of type `file`, also in results of tools and in documents of blocks.

Source: https://platform.claude.com/docs/en/build-with-claude/files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nexus.llm.errors import Unsupported
from nexus.llm.forms.named_files import NamedFile, Naming, Spot, parts_of, spot_of


def _spots(holder: Any, place: str) -> Iterator[Spot]:
    for j, block, blocks in parts_of(holder, "content"):
        here = f"{place}.content.{j}"
        source = block.get("source")
        if block.get("type") == "tool_result":
            yield from _spots(block, here)
        elif block.get("type") in ("image", "document") and isinstance(source, dict):
            if source.get("type") == "content":
                yield from _spots(source, f"{here}.source")
            elif source.get("type") == "file":
                yield from spot_of(source.get("file_id"), f"{here}.source.file_id", blocks, j, _put)


def _put(block: dict[str, Any], file: NamedFile, field: str) -> dict[str, Any]:
    kind = block["type"]
    if file.kind != kind:
        raise Unsupported(f"{field}: a block of type {kind} does not take a file of {file.media_type}.", field=field)
    if kind == "image":
        return block | {"source": {"type": "base64", "media_type": file.media_type, "data": file.data}}
    if file.is_words:
        source = {"type": "text", "media_type": "text/plain", "data": file.words(field)}
    else:
        source = {"type": "base64", "media_type": file.media_type, "data": file.data}
    return block | {"source": source, "title": block.get("title") or file.name}


NAMING = Naming({"messages": "messages"}, _spots)
