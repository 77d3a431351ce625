"""Values that may be forgotten at any time: answers, counters, nonces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Cache(Protocol):
    """A key-value store whose entries end by themselves. Keys are text, values bytes."""

    async def get(self, key: str) -> bytes | None:
        """Return the value, or None when there is none or its time has passed."""
        ...

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the values of those keys that have one."""
        ...

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep the value for `ttl` seconds at the most."""
        ...

    async def set_many(self, values: Mapping[str, bytes], ttl: float) -> None:
        """Keep several values for `ttl` seconds at the most."""
        ...

    async def delete(self, key: str) -> None:
        """Forget the value; nothing happens when it is not there."""
        ...

    async def increment(self, key: str, by: int, ttl: float) -> int:
        """Add to a counter in one atomic step and return it; a new one starts at 0 and lives `ttl` seconds."""
        ...

    async def purge(self, prefix: str) -> int:
        """Forget every key that begins with `prefix`; return how many."""
        ...

    async def measure(self, prefix: str) -> tuple[int, int]:
        """Count the living keys that begin with `prefix`, and the bytes of their values."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
