"""The head of an answer as bytes: written whole and checked whole; only names not known yet are looked at closely."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from nexus.http.types import RawHeaders

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-zA-Z]+")
_NO_VALUE: Final = bytes(byte for byte in range(32) if byte != 9) + b"\x7f"
_VALUE: Final = bytes(byte for byte in range(256) if byte not in _NO_VALUE)
_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding", b"connection"))
_REMEMBERED: Final = 512
_names: set[bytes] = set()
"""Names that are valid and in lower case."""


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


STATUS_LINES: Final = {status: _status_line(status) for status in range(100, 600)}


def write_headers(headers: RawHeaders) -> tuple[bytes, dict[bytes, bytes]]:
    """Return the lines of `headers`, and the fields among them, of which those that frame the body count.

    Raises RuntimeError for a name or a value that HTTP does not allow.
    """
    lines = b"\r\n".join(map(b": ".join, headers))
    fields = dict(headers)
    if len(fields) != len(headers) or not _names.issuperset(fields):
        fields = _framing(headers)
    # What is left without the bytes of proper values are the ends of lines: those written here, or others too.
    if headers and len(lines.translate(None, _VALUE)) != 2 * (len(headers) - 1):
        raise RuntimeError("a header is not valid")
    return lines + b"\r\n", fields


def _framing(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Check each name, which is remembered; return the fields that frame the body, the first of several."""
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        if not _NAME.fullmatch(name):
            raise RuntimeError("a header is not valid")
        lower = name.lower()
        if lower == name and len(_names) < _REMEMBERED:
            _names.add(name)
        if lower == b"connection" and lower in fields:
            fields[lower] += b"," + value
        elif lower in _FRAMING:
            fields.setdefault(lower, value)
    return fields
