"""Back-off for guessing: failures are counted for each account and for each address."""

from __future__ import annotations

import hashlib

from nexus.access.errors import TooManyAttempts
from nexus.storage.cache import Cache


class Attempts:
    """Attempts within a window, forgiven when they succeed; the cache may be shared by several processes."""

    def __init__(self, cache: Cache, *, limit: int, window: float) -> None:
        """Refuse after `limit` failures until `window` seconds from the first have passed."""
        self._cache = cache
        self._limit = limit
        self._window = window

    async def begin(self, ip: str | None, account: str | None = None) -> None:
        """Count an attempt before it is made, so that many at once count too. Raises `TooManyAttempts`."""
        for key in _keys(ip, account):
            if await self._cache.increment(key, 1, self._window) > self._limit:
                raise TooManyAttempts(retry_after=self._window)

    async def succeeded(self, ip: str | None, account: str) -> None:
        """Forgive the account, and this one attempt of the address."""
        for key in _keys(None, account):
            await self._cache.delete(key)
        for key in _keys(ip):
            await self._cache.increment(key, -1, self._window)


def _keys(ip: str | None, account: str | None = None) -> list[str]:
    found = []
    if ip is not None:
        found.append(f"attempts.ip.{ip[:64]}")
    if account is not None:
        # Hashed, because what is typed there may be a password.
        found.append(f"attempts.account.{hashlib.sha256(account.encode()).hexdigest()}")
    return found
