"""Read the head of a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), bounded."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO, Any, Final

from nexus.catalog.errors import ModelRefused

MAGIC: Final = b"GGUF"
_SCALARS: Final[dict[int, str]] = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING: Final = 8
_ARRAY: Final = 9
_MOST_PAIRS: Final = 4096
_MOST_BYTES: Final = 256 << 20
# A chat template that knows tools is longer than a few thousand characters.
_LONGEST_KEPT: Final = 1 << 16


def read_head(path: Path) -> dict[str, Any]:
    """Return the metadata whose values are numbers, booleans or short strings. Raises `ModelRefused`."""
    try:
        with path.open("rb") as file:
            return _Reader(file).head()
    except (struct.error, ValueError, OverflowError):
        raise ModelRefused("The file is no whole GGUF file.", field="file") from None


class _Reader:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.read_bytes = 0

    def head(self) -> dict[str, Any]:
        if self.take(4) != MAGIC or self.number("I") not in (2, 3):
            raise ValueError
        _tensors, pairs = self.number("Q"), self.number("Q")
        if pairs > _MOST_PAIRS:
            raise ValueError
        found = {}
        for _ in range(pairs):
            key = self.text()
            value = self.value(self.number("I"))
            if value is not None:
                found[key] = value
        return found

    def take(self, count: int) -> bytes:
        self.read_bytes += count
        if self.read_bytes > _MOST_BYTES:
            raise ValueError
        data = self.file.read(count)
        if len(data) != count:
            raise ValueError
        return data

    def number(self, kind: str) -> Any:
        return struct.unpack("<" + kind, self.take(struct.calcsize("<" + kind)))[0]

    def text(self) -> str:
        return self.take(self.number("Q")).decode()

    def value(self, kind: int) -> Any:
        """Return a scalar or a short text; read over anything longer."""
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            text = self.text()
            return text if len(text) <= _LONGEST_KEPT else None
        if kind != _ARRAY:
            raise ValueError
        inner, count = self.number("I"), self.number("Q")
        if inner in _SCALARS:
            self.take(count * struct.calcsize("<" + _SCALARS[inner]))
        elif inner == _STRING:
            for _ in range(count):
                self.take(self.number("Q"))
        else:
            raise ValueError
        return None
