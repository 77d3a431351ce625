"""The blocks of the Messages form read into our parts, those of requests and of answers.

Source: https://platform.claude.com/docs/en/api/messages. What has no word in our form is kept in `Foreign`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nexus.llm.errors import Unsupported
from nexus.llm.forms.cache_marks import read_mark
from nexus.llm.forms.signatures import unsealed
from nexus.llm.forms.unsaid import MESSAGES
from nexus.llm.types import AnyPart, Foreign, Media, Text, Thinking, ToolCall, ToolResult


def read_content(content: Any, place: str = "content") -> list[AnyPart]:
    """Read the content of a message, a system prompt or a tool result: one text, or blocks."""
    if isinstance(content, str):
        return [Text(text=content)]
    return [part for i, block in enumerate(content or ()) for part in read_block(block, f"{place}.{i}")]


def read_block(block: dict[str, Any], place: str = "block") -> list[AnyPart]:
    """Read one block, of a request or of an answer; some hold several parts.

    Raises `Unsupported` for what is asked about one that only Anthropic's own models do.
    """
    kind, cache = block.get("type"), read_mark(block)
    if kind == "text":
        return [Text(text=block["text"], cache=cache)]
    if kind == "thinking":
        return [Thinking(text=block.get("thinking") or "", signature=block.get("signature") or None)]
    if kind == "redacted_thinking":
        return [Thinking(redacted=block["data"])]
    if kind == "tool_use":
        call_id, seal = unsealed(block["id"])
        arguments = msgspec.json.encode(block.get("input") or {}).decode()
        return [ToolCall(id=call_id, name=block["name"], arguments=arguments, signature=seal, cache=cache)]
    if kind == "tool_result":
        return [_read_result(block, cache, place)]
    if kind == "image" and (image := _read_source("image", block["source"], cache)) is not None:
        _refuse_exactness(block, place)
        return [image]
    if kind == "document":
        _refuse_citations(block, place)
        return _read_document(block, cache, place)
    if kind == "search_result":
        _refuse_citations(block, place)
        said = [part for part in read_content(block.get("content")) if isinstance(part, Text)]
        head = f"{block.get('title') or ''}\n{block.get('source') or ''}\n"
        return [Text(text=head + "\n".join(part.text for part in said), cache=cache)]
    if kind == "tool_reference":
        return [Text(text=str(block.get("tool_name") or ""), cache=cache)]
    return [Foreign(dialect=MESSAGES, value=block)]


def _read_result(block: dict[str, Any], cache: str | None, place: str) -> ToolResult:
    told: list[Text | Media] = []
    for i, part in enumerate(read_content(block.get("content"), f"{place}.content")):
        if not isinstance(part, Text | Media):
            field = f"{place}.content.{i}"
            raise Unsupported(f"This model does not read this part of a result ({field}).", field=field)
        told.append(part)
    call_id, _ = unsealed(block["tool_use_id"])
    return ToolResult(id=call_id, content=tuple(told), is_error=bool(block.get("is_error")), cache=cache)


def _refuse_citations(block: dict[str, Any], place: str) -> None:
    """Refuse to answer with places in a source, which no other model gives."""
    asked = block.get("citations")
    if isinstance(asked, dict) and asked.get("enabled"):
        raise Unsupported("This model does not cite its sources.", field=f"{place}.citations")


def _refuse_exactness(block: dict[str, Any], place: str) -> None:
    """Refuse to fail where a picture would be made smaller: others do that unasked."""
    asked = block.get("transformations")
    if isinstance(asked, dict) and asked.get("oversized_image") == "error":
        field = f"{place}.transformations.oversized_image"
        raise Unsupported("This model may be shown a picture in a smaller size.", field=field)


def _read_document(block: dict[str, Any], cache: str | None, place: str) -> list[AnyPart]:
    """Read a document; one of plain words is words to every model, under its title."""
    source, title, about = block["source"], block.get("title"), block.get("context")
    head = "".join(f"{words}\n" for words in (title, about) if words)
    if source.get("type") == "text":
        return [Text(text=head + str(source.get("data") or ""), cache=cache)]
    if source.get("type") == "content":
        inside = read_content(source.get("content"), f"{place}.source.content")
        if cache and inside and isinstance(last := inside[-1], Text | Media):
            inside[-1] = msgspec.structs.replace(last, cache=cache)
        return ([Text(text=head)] if head else []) + inside
    found = _read_source("document", source, cache, name=title)
    if found is None:
        return [Foreign(dialect=MESSAGES, value=block)]
    return [Text(text=str(about)), found] if about else [found]


def _read_source(kind: Any, source: dict[str, Any], cache: str | None, name: str | None = None) -> Media | None:
    place = {"base64": "data", "url": "url", "file": "file_id"}.get(str(source.get("type")))
    if place is None:
        return None
    given = {place: source.get(place)}
    return Media(kind=kind, media_type=source.get("media_type"), name=name, cache=cache, **given)
