"""A cache in this process in front of one that is shared and outlives it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from nexus.core.errors import NexusError
from nexus.storage.cache import Cache

log = logging.getLogger(__name__)

_FRONT_TTL = 30.0


class LayeredCache:
    """Reads the front first. What another process forgets is forgotten here within half a minute.

    Values are written to the back beside whatever goes on, so that nobody waits for it; counts are the back's.
    """

    def __init__(self, front: Cache, back: Cache, *, front_ttl: float = _FRONT_TTL) -> None:
        """Keep values in `front` for at most `front_ttl` seconds."""
        self._front = front
        self._back = back
        self._front_ttl = front_ttl
        self._writing: set[asyncio.Task[None]] = set()

    async def get(self, key: str) -> bytes | None:
        """Return the value or None."""
        value = await self._front.get(key)
        if value is None and (value := await self._back.get(key)) is not None:
            await self._front.set(key, value, self._front_ttl)
        return value

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the values that are there."""
        found = await self._front.get_many(keys)
        if more := [key for key in keys if key not in found]:
            behind = await self._back.get_many(more)
            await self._front.set_many(behind, self._front_ttl)
            found |= behind
        return found

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep the value."""
        await self.set_many({key: value}, ttl)

    async def set_many(self, values: Mapping[str, bytes], ttl: float) -> None:
        """Keep several values."""
        await self._front.set_many(values, min(ttl, self._front_ttl))
        task = asyncio.get_running_loop().create_task(self._write(values, ttl))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def delete(self, key: str) -> None:
        """Forget the value."""
        await self._settle()
        await self._front.delete(key)
        await self._back.delete(key)

    async def increment(self, key: str, by: int, ttl: float) -> int:
        """Add to a counter."""
        return await self._back.increment(key, by, ttl)

    async def purge(self, prefix: str) -> int:
        """Forget every key with the prefix."""
        await self._settle()
        await self._front.purge(prefix)
        return await self._back.purge(prefix)

    async def measure(self, prefix: str) -> tuple[int, int]:
        """Count the keys with the prefix, and the bytes of their values."""
        await self._settle()
        return await self._back.measure(prefix)

    async def close(self) -> None:
        """Finish what is being written; the two caches belong to whoever made them."""
        await self._settle()

    async def _write(self, values: Mapping[str, bytes], ttl: float) -> None:
        try:
            await self._back.set_many(values, ttl)
        except NexusError as error:
            log.warning("a cached value was not kept: %s", error.code)

    async def _settle(self) -> None:
        if self._writing:
            await asyncio.gather(*self._writing)
