"""Where chat completions name files: parts of type `file`.

Source: https://platform.openai.com/docs/api-reference/chat/create. A picture or a sound named there goes into the
part that this form has for such.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nexus.llm.forms.chat.requests import write_part
from nexus.llm.forms.named_files import NamedFile, Naming, Spot, parts_of, spot_of


def _spots(message: Any, place: str) -> Iterator[Spot]:
    for j, part, parts in parts_of(message, "content"):
        if part.get("type") == "file" and isinstance(file := part.get("file"), dict):
            yield from spot_of(file.get("file_id"), f"{place}.content.{j}.file.file_id", parts, j, _put)


def _put(part: dict[str, Any], file: NamedFile, field: str) -> dict[str, Any]:
    rest = {name: value for name, value in part.items() if name not in ("type", "file")}
    return rest | write_part(file.part(field, part["file"].get("filename")))


NAMING = Naming({"messages": "messages"}, _spots)
