"""A cache that processes of one machine share through the database, and that outlives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import CursorResult, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from nexus.core.clock import Clock, SystemClock
from nexus.storage.db import Database
from nexus.storage.tables import CacheEntry

_SWEEP_EVERY = 500
_AT_ONCE = 500


class SqlCache:
    """Entries as rows; expired ones are swept as new ones are written."""

    def __init__(self, database: Database, *, clock: Clock | None = None) -> None:
        """Keep entries in `database`."""
        self._database = database
        self._clock = clock or SystemClock()
        self._writes = 0

    async def get(self, key: str) -> bytes | None:
        """Return the value or None."""
        return await self._database.read(_get, key, self._clock.now())

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the values that are there."""
        return await self._database.read(_get_many, keys, self._clock.now())

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep the value."""
        await self.set_many({key: value}, ttl)

    async def set_many(self, values: Mapping[str, bytes], ttl: float) -> None:
        """Keep several values."""
        now = self._clock.now()
        await self._database.write(_set, values, now + timedelta(seconds=ttl))
        await self._sweep(now)

    async def delete(self, key: str) -> None:
        """Forget the value."""
        await self._database.write(_delete, key)

    async def increment(self, key: str, by: int, ttl: float) -> int:
        """Add to a counter."""
        now = self._clock.now()
        total = await self._database.write(_increment, key, by, now, ttl)
        await self._sweep(now)
        return total

    async def purge(self, prefix: str) -> int:
        """Forget every key with the prefix."""
        return await self._database.write(_purge, prefix)

    async def measure(self, prefix: str) -> tuple[int, int]:
        """Count keys and bytes."""
        return await self._database.read(_measure, prefix, self._clock.now())

    async def _sweep(self, now: datetime) -> None:
        self._writes += 1
        if self._writes % _SWEEP_EVERY == 0:
            await self._database.write(_forget_expired, now)

    async def close(self) -> None:
        """Nothing is held: the database belongs to whoever made it."""


def _get(session: Session, key: str, now: datetime) -> bytes | None:
    return session.scalar(select(CacheEntry.value).where(CacheEntry.key == key, CacheEntry.expires_at > now))


def _get_many(session: Session, keys: Sequence[str], now: datetime) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for start in range(0, len(keys), _AT_ONCE):
        wanted = CacheEntry.key.in_(keys[start : start + _AT_ONCE])
        query = select(CacheEntry.key, CacheEntry.value).where(wanted, CacheEntry.expires_at > now)
        found |= {row.key: row.value for row in session.execute(query)}
    return found


def _set(session: Session, values: Mapping[str, bytes], until: datetime) -> None:
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = insert(CacheEntry)
    changed = {"value": row.excluded.value, "expires_at": row.excluded.expires_at}
    rows = [{"key": key, "value": value, "expires_at": until} for key, value in sorted(values.items())]
    if rows:
        session.execute(row.on_conflict_do_update(index_elements=["key"], set_=changed), rows)


def _forget_expired(session: Session, now: datetime) -> None:
    session.execute(delete(CacheEntry).where(CacheEntry.expires_at <= now))


def _delete(session: Session, key: str) -> None:
    session.execute(delete(CacheEntry).where(CacheEntry.key == key))


def _increment(session: Session, key: str, by: int, now: datetime, ttl: float) -> int:
    # The row is made first, so that two processes counting a new key meet at its lock.
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    fresh = insert(CacheEntry).values(key=key, value=b"0", expires_at=now + timedelta(seconds=ttl))
    session.execute(fresh.on_conflict_do_nothing())
    entry = session.scalars(select(CacheEntry).where(CacheEntry.key == key).with_for_update()).one()
    if entry.expires_at <= now:
        entry.value, entry.expires_at = b"0", now + timedelta(seconds=ttl)
    total = int(entry.value) + by
    entry.value = str(total).encode()
    return total


def _purge(session: Session, prefix: str) -> int:
    result = session.execute(delete(CacheEntry).where(CacheEntry.key.startswith(prefix, autoescape=True)))
    return result.rowcount if isinstance(result, CursorResult) else 0


def _measure(session: Session, prefix: str, now: datetime) -> tuple[int, int]:
    living = (CacheEntry.key.startswith(prefix, autoescape=True), CacheEntry.expires_at > now)
    size = func.coalesce(func.sum(func.length(CacheEntry.value)), 0)
    count, total = session.execute(select(func.count(), size).where(*living)).one()
    return int(count), int(total)
