"""Pictures, clips, sounds and documents in the Converse form, both ways."""

from __future__ import annotations

import re
from typing import Any, Final, Literal
from urllib.parse import parse_qs, urlsplit

from nexus.llm.errors import InvalidRequest, Unsupported
from nexus.llm.types import Media

MediaKind = Literal["image", "audio", "video", "document"]
_OFFICE: Final = "application/vnd.openxmlformats-officedocument"
_TYPES: Final[dict[MediaKind, dict[str, str]]] = {
    "image": {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"},
    "video": {
        "video/mp4": "mp4",
        "video/quicktime": "mov",
        "video/x-matroska": "mkv",
        "video/webm": "webm",
        "video/x-flv": "flv",
        "video/mpeg": "mpeg",
        "video/x-ms-wmv": "wmv",
        "video/3gpp": "three_gp",
    },
    "audio": {
        "audio/mpeg": "mp3",
        "audio/wav": "wav",
        "audio/flac": "flac",
        "audio/ogg": "ogg",
        "audio/opus": "opus",
        "audio/aac": "aac",
        "audio/mp4": "m4a",
        "audio/webm": "webm",
        "audio/pcm": "pcm",
        "audio/x-matroska": "mka",
    },
    "document": {
        "application/pdf": "pdf",
        "text/plain": "txt",
        "text/markdown": "md",
        "text/csv": "csv",
        "text/html": "html",
        "application/msword": "doc",
        f"{_OFFICE}.wordprocessingml.document": "docx",
        "application/vnd.ms-excel": "xls",
        f"{_OFFICE}.spreadsheetml.sheet": "xlsx",
    },
}
# Formats that go by more than one name, in types and in the ends of file names.
_ALSO: Final[dict[MediaKind, dict[str, str]]] = {
    "image": {"jpg": "jpeg"},
    "video": {"3gp": "three_gp", "3gpp": "three_gp", "mpg": "mpg", "quicktime": "mov", "x-msvideo": "", "avi": ""},
    "audio": {"mpeg": "mp3", "x-wav": "wav", "x-flac": "flac", "x-m4a": "m4a", "x-aac": "aac", "mpga": "mp3"},
    "document": {"htm": "html", "text": "txt", "markdown": "md", "x-markdown": "md"},
}
_STARTS: Final = (("iVBORw0KGgo", "png"), ("/9j/", "jpeg"), ("R0lGOD", "gif"), ("UklGR", "webp"))
_UNFIT: Final = re.compile(r"[^0-9A-Za-z\s\-()\[\]]+")


class DocumentNames:
    """Gives the documents of one request names that the API takes: plain characters, each only once."""

    def __init__(self) -> None:
        """Know none yet."""
        self._given: set[str] = set()

    def name(self, wanted: str | None) -> str:
        """Return a name close to `wanted`."""
        stem = (wanted or "").rpartition("/")[2]
        stem = stem.rpartition(".")[0] or stem
        plain = " ".join(_UNFIT.sub("-", stem).split())[:180].strip("- ")
        number, name = 1, plain or "Document 1"
        while name in self._given:
            number += 1
            name = f"{plain} ({number})" if plain else f"Document {number}"
        self._given.add(name)
        return name


def write_media(part: Media, names: DocumentNames, field: str) -> dict[str, Any]:
    """Write a content block. Raises `Unsupported` naming the field for what the API cannot be given."""
    place = part.url if part.url is not None else part.file_id
    if place is not None:
        if not place.startswith("s3://"):
            raise Unsupported(
                f"{field}: this provider fetches no {part.kind} itself; send it as base64 data or as an s3:// address.",
                field=field,
            )
        parts = urlsplit(place)
        where: dict[str, Any] = {"uri": f"s3://{parts.netloc}{parts.path}"}
        if owner := parse_qs(parts.query).get("bucketOwner"):
            where["bucketOwner"] = owner[0]
        source: dict[str, Any] = {"s3Location": where}
        end = parts.path
    elif part.data:
        source, end = {"bytes": part.data}, part.name or ""
    else:
        raise InvalidRequest(f"{field} has no data.", field=field)
    block: dict[str, Any] = {"format": _format(part, end, field), "source": source}
    if part.kind == "document":
        block["name"] = names.name(part.name)
    return {part.kind: block}


def read_media(kind: MediaKind, block: dict[str, Any]) -> Media:
    """Read a content block."""
    source, form = block.get("source") or {}, str(block.get("format", ""))
    types = {known: media_type for media_type, known in _TYPES[kind].items()}
    return Media(
        kind=kind,
        media_type=types.get(form, f"{kind}/{form}" if form and kind != "document" else None),
        data=source.get("bytes"),
        url=(source.get("s3Location") or {}).get("uri"),
        name=block.get("name"),
    )


def _format(part: Media, name: str, field: str) -> str:
    media_type = (part.media_type or "").partition(";")[0].strip().lower()
    end = name.rpartition(".")[2].lower() if "." in name else ""
    known = _TYPES[part.kind]
    if media_type in known:
        return known[media_type]
    formats = {*known.values(), "mpg"}
    for word in (media_type.partition("/")[2], end):
        if (found := _ALSO[part.kind].get(word, word if word in formats else "")) != "":
            return found
    if part.kind == "image" and part.data:
        for start, form in _STARTS:
            if part.data.startswith(start):
                return form
    told = media_type or "a file of unknown type"
    raise Unsupported(f"{field}: this provider takes no {told} as {part.kind}.", field=field)
