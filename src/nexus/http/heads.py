"""The head of an answer as bytes, from forms: most answers have the same headers in the same order.

So names are looked at once for each order, and values are checked all together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

from nexus.http.types import RawHeaders

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-zA-Z]+")
_NO_VALUE: Final = bytes(byte for byte in range(32) if byte != 9) + b"\x7f"
_VALUE: Final = bytes(byte for byte in range(256) if byte not in _NO_VALUE)
_REMEMBERED: Final = 512
_forms: dict[tuple[bytes, ...], _Form] = {}


class _Form(NamedTuple):
    """What the names of an answer's headers, in their order, come to: a form for the values."""

    lines: bytes
    framing: tuple[tuple[bytes, int], ...]
    """The fields that frame the body, in lower case, and the places of their values."""


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


STATUS_LINES: Final = {status: _status_line(status) for status in range(100, 600)}


def write_headers(headers: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, dict[bytes, bytes]]:
    """Return the lines of `headers`, and those fields among them that frame the body, in lower case.

    Raises RuntimeError for a name or a value that HTTP does not allow.
    """
    if not headers:
        return b"", {}
    names, values = zip(*headers, strict=True)
    form = _forms.get(names) or _form_of(names)
    if b"".join(values).translate(None, _VALUE):
        raise RuntimeError("a header is not valid")
    fields: dict[bytes, bytes] = {}
    for name, place in form.framing:
        fields[name] = b"%s,%s" % (fields[name], values[place]) if name in fields else values[place]
    return form.lines % values, fields


class OwnLines:
    """The server's own headers as lines; uvicorn makes another list of them every second."""

    __slots__ = ("_headers", "_lines")

    def __init__(self) -> None:
        """Know none."""
        self._headers: RawHeaders | None = None
        self._lines = b""

    def of(self, headers: RawHeaders) -> bytes:
        """Return `headers` as lines."""
        if headers is not self._headers:
            self._headers, (self._lines, _) = headers, write_headers(headers)
        return self._lines


def _form_of(names: tuple[bytes, ...]) -> _Form:
    """Check the names; of several lengths or encodings the first counts."""
    framing: list[tuple[bytes, int]] = []
    for place, name in enumerate(names):
        if not _NAME.fullmatch(name):
            raise RuntimeError("a header is not valid")
        lower = name.lower()
        is_first = lower not in (known for known, _ in framing)
        if lower == b"connection" or (is_first and lower in (b"content-length", b"transfer-encoding")):
            framing.append((lower, place))
    form = _Form(b"".join(name.replace(b"%", b"%%") + b": %s\r\n" for name in names), tuple(framing))
    if len(_forms) < _REMEMBERED:
        _forms[names] = form
    return form
