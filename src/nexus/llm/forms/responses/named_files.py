"""Where Responses name files: parts `input_file` and `input_image`, in messages and in what tools returned.

Source: https://platform.openai.com/docs/api-reference/responses/create.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from nexus.llm.errors import Unsupported
from nexus.llm.forms.named_files import NamedFile, Naming, Spot, parts_of, spot_of
from nexus.llm.forms.responses.items import write_media
from nexus.llm.types import Text

# How this form says what a part holds.
_WAYS: Final = frozenset(("type", "file_id", "filename", "file_data", "file_url", "image_url"))


def _spots(item: Any, place: str) -> Iterator[Spot]:
    for name in ("content", "output"):
        for j, part, parts in parts_of(item, name):
            if part.get("type") in ("input_file", "input_image"):
                yield from spot_of(part.get("file_id"), f"{place}.{name}.{j}.file_id", parts, j, _put)


def _put(part: dict[str, Any], file: NamedFile, field: str) -> dict[str, Any]:
    kind = part["type"]
    rest = {name: value for name, value in part.items() if name not in _WAYS}
    if file.kind == "video" or (kind == "input_image" and file.kind != "image"):
        raise Unsupported(f"{field}: a part of type {kind} does not take a file of {file.media_type}.", field=field)
    given = file.part(field, part.get("filename"))
    if isinstance(given, Text):
        rest.pop("detail", None)
        return rest | {"type": "input_text", "text": given.text}
    detail = {"detail": rest["detail"]} if rest.get("detail") else {}
    return rest | write_media(given) | (detail if given.kind != "audio" else {})


NAMING = Naming({"input": "input"}, _spots)
