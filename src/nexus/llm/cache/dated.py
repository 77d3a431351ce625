"""What a cache keeps, as bytes, and how old it is."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Self, TypeVar

import msgspec

K = TypeVar("K", bound="Dated")


class Dated(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a cache keeps, and since when (Unix seconds)."""

    since: float

    @classmethod
    def read(cls, data: bytes) -> Self | None:
        """Read what `bytes` wrote; None for what an older version wrote in another shape."""
        try:
            found: Self = _decoder(cls).decode(data)
        except (msgspec.DecodeError, ValueError):
            return None
        return found

    def __bytes__(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @property
    def age(self) -> float:
        """Return the seconds since it came."""
        return max(0.0, now() - self.since)


def now() -> float:
    """Return the Unix seconds by which what is kept grows old."""
    return time.time()


@lru_cache
def _decoder(kind: type[K]) -> msgspec.msgpack.Decoder[K]:
    return msgspec.msgpack.Decoder(kind)
