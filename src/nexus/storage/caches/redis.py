"""A cache that every machine of a cluster shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nexus.core.errors import Unavailable

_PREFIX = "nexus:cache:"
_PATIENCE = 2.0  # seconds, for a connection, a free one, and an answer
_CONNECTIONS = 16
# INCRBY and the expiry of a new key in one step: a crash between them would count for ever.
_INCREMENT = "local n = redis.call('INCRBY', KEYS[1], ARGV[1]); if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end; return n"  # noqa: E501


class CacheUnavailable(Unavailable):
    """The cache server does not answer at the moment; try again shortly."""

    code = "cache_unavailable"


class RedisCache:
    """Entries in Redis. Reads and writes that fail count as misses; a failed count raises."""

    def __init__(self, url: str) -> None:
        """Connect when first needed."""
        import redis.asyncio as redis

        # Many callers at once wait for a few connections: opening one for each takes far longer than all their answers.
        pool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=_PATIENCE,
            socket_connect_timeout=_PATIENCE,
            socket_timeout=_PATIENCE,
        )
        self._redis: Any = redis.Redis.from_pool(pool)
        self._gone: tuple[type[Exception], ...] = (redis.RedisError, OSError)

    async def get(self, key: str) -> bytes | None:
        """Return the value or None."""
        try:
            value: bytes | None = await self._redis.get(_PREFIX + key)
        except self._gone:
            return None
        return value

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the values that are there, in one journey."""
        if not keys:
            return {}
        try:
            values = await self._redis.mget([_PREFIX + key for key in keys])
        except self._gone:
            return {}
        return {key: value for key, value in zip(keys, values, strict=True) if value is not None}

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep the value."""
        try:
            await self._redis.set(_PREFIX + key, value, px=max(1, int(ttl * 1000)))
        except self._gone:
            return

    async def set_many(self, values: Mapping[str, bytes], ttl: float) -> None:
        """Keep several values, in one journey."""
        journey = self._redis.pipeline(transaction=False)
        for key, value in values.items():
            journey.set(_PREFIX + key, value, px=max(1, int(ttl * 1000)))
        try:
            await journey.execute()
        except self._gone:
            return

    async def delete(self, key: str) -> None:
        """Forget the value. Raises `CacheUnavailable`: a caller who deletes must know that it is gone."""
        try:
            await self._redis.delete(_PREFIX + key)
        except self._gone:
            raise CacheUnavailable from None

    async def increment(self, key: str, by: int, ttl: float) -> int:
        """Add to a counter. Raises `CacheUnavailable`."""
        try:
            return int(await self._redis.eval(_INCREMENT, 1, _PREFIX + key, by, max(1, int(ttl * 1000))))
        except self._gone:
            raise CacheUnavailable from None

    async def purge(self, prefix: str) -> int:
        """Forget every key with the prefix."""
        count = 0
        try:
            async for key in self._redis.scan_iter(match=_PREFIX + _literal(prefix) + "*", count=500):
                count += int(await self._redis.delete(key))
        except self._gone:
            raise CacheUnavailable from None
        return count

    async def measure(self, prefix: str) -> tuple[int, int]:
        """Count keys and bytes. Raises `CacheUnavailable`."""
        count = size = 0
        try:
            async for key in self._redis.scan_iter(match=_PREFIX + _literal(prefix) + "*", count=500):
                count += 1
                size += int(await self._redis.strlen(key))
        except self._gone:
            raise CacheUnavailable from None
        return count, size

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


def _literal(prefix: str) -> str:
    return "".join("\\" + letter if letter in "*?[]\\^" else letter for letter in prefix)
