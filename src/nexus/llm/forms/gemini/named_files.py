"""Where Gemini requests name files: `fileData`, also beside what a function returned.

Source: https://ai.google.dev/api/caching#FileData. A `fileUri` is an id of ours, alone or at the end of an address
(`files/<id>`, `https://host/v1/files/<id>`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from nexus.llm.forms.gemini.names import camel
from nexus.llm.forms.named_files import NamedFile, Naming, Spot, spot_of

_PLACE: Final = re.compile(r"(?:(?:\S*/)?files/)?(file_\w{26})(?:/content)?", re.ASCII)


def _spots(content: Any, place: str) -> Iterator[Spot]:
    for part, parts, key, here in _parts(content, place):
        yield from _spot(part, parts, key, here, _put)
        for shown, beside, number, there in _parts(_told(part, "functionResponse"), f"{here}.functionResponse"):
            yield from _spot(shown, beside, number, there, _show)


def _parts(holder: Any, place: str) -> Iterator[tuple[Any, Any, Any, str]]:
    """Yield each part, what holds it, under which key, and its place; one alone may stand there without a list."""
    found = _told(holder, "parts")
    if isinstance(found, list):
        yield from ((part, found, j, f"{place}.parts.{j}") for j, part in enumerate(found))
    elif isinstance(found, dict):
        yield found, holder, "parts", f"{place}.parts"


def _told(holder: Any, name: str) -> Any:
    """Return a field in either spelling."""
    if not isinstance(holder, dict):
        return None
    return next((value for key, value in holder.items() if camel(key) == name), None)


def _spot(part: Any, parts: Any, key: Any, place: str, put: Any) -> Iterator[Spot]:
    uri = _told(_told(part, "fileData"), "fileUri")
    if isinstance(uri, str) and (found := _PLACE.fullmatch(uri)) is not None:
        yield from spot_of(found.group(1), f"{place}.fileData.fileUri", parts, key, put)


def _put(part: dict[str, Any], file: NamedFile, field: str) -> dict[str, Any]:
    if not file.is_words:
        return _show(part, file, field)
    named = _told(_told(part, "fileData"), "displayName")
    words = f"{named if isinstance(named, str) and named else file.name}\n{file.words(field)}"
    return _without_file(part) | {"text": words}


def _show(part: dict[str, Any], file: NamedFile, field: str) -> dict[str, Any]:
    named = _told(_told(part, "fileData"), "displayName")
    data = {"mimeType": file.media_type, "data": file.data} | ({"displayName": named} if named else {})
    return _without_file(part) | {"inlineData": data}


def _without_file(part: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if camel(name) != "fileData"}


NAMING = Naming(
    {"contents": "contents", "systemInstruction": "systemInstruction", "system_instruction": "systemInstruction"},
    _spots,
    inside=("generateContentRequest", "generate_content_request"),
)
