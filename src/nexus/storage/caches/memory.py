"""A cache inside one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from cachetools import TLRUCache


class MemoryCache:
    """Entries in this process, the least recently used dropped past `capacity` bytes."""

    def __init__(self, capacity: int = 64 * 2**20, *, timer: Callable[[], float] = time.monotonic) -> None:
        """Hold at most `capacity` bytes of values."""
        self._timer = timer
        self._entries: TLRUCache[str, tuple[bytes, float]] = TLRUCache(
            capacity, ttu=lambda _key, entry, _now: entry[1], timer=timer, getsizeof=lambda entry: len(entry[0]) + 64
        )
        self._capacity = capacity

    async def get(self, key: str) -> bytes | None:
        """Return the value or None."""
        entry = self._entries.get(key)
        return entry[0] if entry else None

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the values that are there."""
        return {key: entry[0] for key in keys if (entry := self._entries.get(key))}

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep the value; one larger than the whole cache is not kept."""
        if len(value) + 64 <= self._capacity:
            self._entries[key] = (value, self._timer() + ttl)

    async def set_many(self, values: Mapping[str, bytes], ttl: float) -> None:
        """Keep several values."""
        for key, value in values.items():
            await self.set(key, value, ttl)

    async def delete(self, key: str) -> None:
        """Forget the value."""
        self._entries.pop(key, None)

    async def increment(self, key: str, by: int, ttl: float) -> int:
        """Add to a counter."""
        value, until = self._entries.get(key) or (b"0", self._timer() + ttl)
        total = int(value) + by
        self._entries[key] = (str(total).encode(), until)
        return total

    async def purge(self, prefix: str) -> int:
        """Forget every key with the prefix."""
        keys = [key for key in self._entries if key.startswith(prefix)]
        for key in keys:
            self._entries.pop(key, None)
        return len(keys)

    async def measure(self, prefix: str) -> tuple[int, int]:
        """Count keys and bytes."""
        self._entries.expire()
        sizes = [len(self._entries[key][0]) for key in list(self._entries) if key.startswith(prefix)]
        return len(sizes), sum(sizes)

    async def close(self) -> None:
        """Drop everything."""
        self._entries.clear()
