"""What bytes really are, by their first few: what the sender says is believed only where nothing speaks against it."""

from __future__ import annotations

import re
from typing import Final

HEAD: Final = 4096
"""How many bytes `content_type_of` wants to see."""

_FALLBACK: Final = "application/octet-stream"
_FORM: Final = re.compile(
    r"[a-z0-9][a-z0-9.+-]{0,126}/[a-z0-9][a-z0-9.+-]{0,126}(;\s?charset=[a-z0-9-]{1,40})?", re.ASCII
)

# https://mimesniff.spec.whatwg.org and the formats' own specifications.
_MAGIC: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"BM", "image/bmp"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypheic", "image/heic"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (8, b"AVI ", "video/x-msvideo"),
    (8, b"WAVE", "audio/wav"),
    (0, b"OggS", "audio/ogg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"PAR1", "application/vnd.apache.parquet"),
    (0, b"ARROW1", "application/vnd.apache.arrow.file"),
    (0, b"GGUF", "application/gguf"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"(\xb5/\xfd", "application/zstd"),
    (0, b"BZh", "application/x-bzip2"),
    (0, b"\xfd7zXZ\x00", "application/x-xz"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"SQLite format 3\x00", "application/vnd.sqlite3"),
    (0, b"\x7fELF", "application/x-executable"),
    (0, b"MZ", "application/x-executable"),
    (0, b"\x80\x02", "application/x-pickle"),
    (0, b"\x80\x03", "application/x-pickle"),
    (0, b"\x80\x04", "application/x-pickle"),
    (0, b"\x80\x05", "application/x-pickle"),
)
_ZIP: Final = b"PK\x03\x04"
_ZIPPED: Final = ("application/vnd.openxmlformats", "application/vnd.oasis", "application/epub+zip", "application/zip")
_RIFF: Final = ("image/webp", "video/x-msvideo", "audio/wav")
_MARKUP: Final = re.compile(rb"<(!doctype\s+html|html|head|body|script|svg|iframe|img|\?xml)\b", re.IGNORECASE)
_MARKUP_TYPES: Final = ("text/html", "image/svg+xml", "application/xhtml+xml", "text/xml", "application/xml")


def content_type_of(head: bytes, declared: str) -> str:
    """Return the content type by the first bytes, else the declared one when it is possible, else octet-stream."""
    said = declared.strip().lower()
    said = said if _FORM.fullmatch(said) else _FALLBACK
    bare = said.partition(";")[0]
    if head.startswith(_ZIP):
        return said if bare.startswith(_ZIPPED) else "application/zip"
    for offset, magic, kind in _MAGIC:
        if head.startswith(magic, offset) and (kind not in _RIFF or head.startswith(b"RIFF")):
            return bare if bare.partition("/")[0] == kind.partition("/")[0] == "video" else kind
    if _MARKUP.match(_without_comments(head)):
        return said if bare in _MARKUP_TYPES else "text/html"
    if _is_text(head):
        possible = bare.startswith("text/") or (bare.startswith("application/") and bare != _FALLBACK)
        return said if possible else "text/plain"
    if bare.startswith(("text/", "image/")) or bare == "application/json":
        return _FALLBACK
    return said


def is_active(content_type: str) -> bool:
    """Tell whether a browser that shows such content would run what is in it."""
    bare = content_type.partition(";")[0]
    return bare in ("text/html", "application/pdf") or "xml" in bare or "script" in bare


def _without_comments(head: bytes) -> bytes:
    rest = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    while rest.startswith(b"<!--"):
        _, end, rest = rest.partition(b"-->")
        rest = rest.lstrip() if end else b""
    return rest


def _is_text(head: bytes) -> bool:
    if b"\x00" in head:
        return False
    try:
        # The head may end inside a character.
        head[: max(0, len(head) - 3)].decode() if len(head) >= HEAD else head.decode()
    except UnicodeDecodeError as error:
        return len(head) >= HEAD and error.start >= len(head) - 6
    return True
