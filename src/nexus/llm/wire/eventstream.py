"""Binary event streams (`application/vnd.amazon.eventstream`), read as they come, and written for tests.

Source: https://smithy.io/2.0/aws/amazon-eventstream.html. A frame is

    total length (u32) | headers length (u32) | CRC of these eight bytes | headers | payload | CRC of all before

in network order, with CRC-32 as in gzip. Bytes may be cut anywhere.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Mapping
from enum import IntEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from nexus.llm.errors import UpstreamMalformed, UpstreamTruncated

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
_PRELUDE: Final = 12
_FRAME: Final = 16  # prelude and closing checksum
_SHORT: Final = 256
_MOST_HEADERS: Final = 128 * 1024
_MOST_PAYLOAD: Final = 24 * 1024 * 1024


class HeaderType(IntEnum):
    """The type byte of a header."""

    TRUE = 0
    FALSE = 1
    INT8 = 2
    INT16 = 3
    INT32 = 4
    INT64 = 5
    BYTES = 6
    STRING = 7
    TIMESTAMP = 8
    UUID = 9


HeaderValue: TypeAlias = bool | int | bytes | str | uuid.UUID
_NUMBERS: Final = {
    HeaderType.INT8: struct.Struct(">b"),
    HeaderType.INT16: struct.Struct(">h"),
    HeaderType.INT32: struct.Struct(">i"),
    HeaderType.INT64: struct.Struct(">q"),
    HeaderType.TIMESTAMP: struct.Struct(">q"),
}
_lengths = struct.Struct(">III")
_u16 = struct.Struct(">H")
_u32 = struct.Struct(">I")


class Frame(NamedTuple):
    """One message: its headers by name, a timestamp as milliseconds since 1970, and its payload."""

    headers: Mapping[str, HeaderValue]
    payload: bytes

    def header(self, name: str) -> str:
        """Return a header of text, or nothing."""
        value = self.headers.get(name)
        return value if isinstance(value, str) else ""


class FrameSplitter:
    """Cuts a byte stream into frames, checking both checksums of each."""

    __slots__ = ("_checked", "_held")

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._held = bytearray()
        self._checked = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes; those before a broken one come first, it is raised next time.

        Raises `UpstreamMalformed` for a wrong checksum, a length beyond the limits or headers that cannot be read.
        """
        self._held += data
        frames: list[Frame] = []
        while len(self._held) >= _PRELUDE:
            try:
                total = self._checked or self._check_prelude()
                if len(self._held) < total:
                    break
                frames.append(_read(bytes(self._held[:total])))
            except UpstreamMalformed:
                if not frames:
                    raise
                break
            del self._held[:total]
            self._checked = 0
        return frames

    def end(self) -> list[Frame]:
        """Return the rest. Raises `UpstreamTruncated` in the middle of a frame, `UpstreamMalformed` as `feed` does."""
        frames = self.feed(b"")
        if not frames and self._held:
            raise UpstreamTruncated
        return frames

    def _check_prelude(self) -> int:
        total, headers, checksum = _lengths.unpack_from(self._held)
        if zlib.crc32(self._held[:8]) != checksum:
            raise UpstreamMalformed
        if headers > _MOST_HEADERS or total < _FRAME + headers or total - _FRAME - headers > _MOST_PAYLOAD:
            raise UpstreamMalformed
        self._checked = int(total)
        return self._checked


def _read(frame: bytes) -> Frame:
    if zlib.crc32(frame[:-4]) != _u32.unpack_from(frame, len(frame) - 4)[0]:
        raise UpstreamMalformed
    start = _PRELUDE + _u32.unpack_from(frame, 4)[0]
    head = frame[_PRELUDE:start]
    try:
        headers = _usual(head) if len(head) <= _SHORT else _read_headers(head)
    except (ValueError, IndexError, struct.error):
        raise UpstreamMalformed from None
    return Frame(headers, frame[start:-4])


@lru_cache(maxsize=64)
def _usual(head: bytes) -> Mapping[str, HeaderValue]:
    """Read short headers once: the frames of a stream differ little in them."""
    return MappingProxyType(_read_headers(head))


def _read_headers(data: bytes) -> dict[str, HeaderValue]:
    """Read all headers. Raises ValueError, IndexError or struct.error for what is none."""
    headers: dict[str, HeaderValue] = {}
    at = 0
    while at < len(data):
        name, at = _take(data, at + 1, data[at])
        kind = HeaderType(data[at])
        at += 1
        value: HeaderValue
        if kind in (HeaderType.TRUE, HeaderType.FALSE):
            value = kind is HeaderType.TRUE
        elif kind in _NUMBERS:
            value = _NUMBERS[kind].unpack_from(data, at)[0]
            at += _NUMBERS[kind].size
        elif kind is HeaderType.UUID:
            plain, at = _take(data, at, 16)
            value = uuid.UUID(bytes=plain)
        else:
            plain, at = _take(data, at + 2, _u16.unpack_from(data, at)[0])
            value = plain if kind is HeaderType.BYTES else plain.decode()
        text = name.decode()
        if text in headers:
            raise ValueError("a header comes twice")
        headers[text] = value
    return headers


def _take(data: bytes, start: int, length: int) -> tuple[bytes, int]:
    end = start + length
    if end > len(data):
        raise ValueError("a header ends too early")
    return data[start:end], end


def encode(headers: Mapping[str, HeaderValue | tuple[HeaderType, HeaderValue]], payload: bytes = b"") -> bytes:
    """Write one frame. A whole number is written in 32 bits, or 64; a pair names the header's type.

    Raises ValueError or struct.error for what the format has no room for.
    """
    written = b"".join(_write_header(name, value) for name, value in headers.items())
    if len(written) > _MOST_HEADERS or len(payload) > _MOST_PAYLOAD:
        raise ValueError("a frame is too large")
    lengths = struct.pack(">II", _FRAME + len(written) + len(payload), len(written))
    body = lengths + _u32.pack(zlib.crc32(lengths)) + written + payload
    return body + _u32.pack(zlib.crc32(body))


def _write_header(name: str, value: HeaderValue | tuple[HeaderType, HeaderValue]) -> bytes:
    kind, plain = value if isinstance(value, tuple) else (_type_of(value), value)
    head = name.encode()
    start = bytes((len(head),)) + head + bytes((kind,))
    if kind in (HeaderType.TRUE, HeaderType.FALSE):
        return start
    if kind in _NUMBERS:
        return start + _NUMBERS[kind].pack(plain)
    if isinstance(plain, uuid.UUID):
        return start + plain.bytes
    data = plain.encode() if isinstance(plain, str) else plain
    if not isinstance(data, bytes):
        raise ValueError("a header's value does not fit its type")
    return start + _u16.pack(len(data)) + data


def _type_of(value: HeaderValue) -> HeaderType:
    if isinstance(value, bool):
        return HeaderType.TRUE if value else HeaderType.FALSE
    if isinstance(value, int):
        return HeaderType.INT32 if -(2**31) <= value < 2**31 else HeaderType.INT64
    if isinstance(value, bytes):
        return HeaderType.BYTES
    return HeaderType.STRING if isinstance(value, str) else HeaderType.UUID
