"""One of several processes that share limits: admits what it can, and says how much that was.

    sharer.py CACHE SECONDS PARALLEL RPM TPM

prints `ready`, waits for a line, works for SECONDS, and prints the number admitted.
"""

from __future__ import annotations

import asyncio
import sys
import time

from nexus.access.types import KeyLimits, Principal
from nexus.ledger.errors import RateLimitExceeded
from nexus.ledger.limiter import Limiter
from nexus.ledger.sharing import Sharing
from nexus.storage.cache import Cache
from nexus.storage.caches.redis import RedisCache
from nexus.storage.caches.sql import SqlCache
from nexus.storage.db import Database

WHO = Principal("key", "key_1", "prj_1", key_id="key_1")


class Limits:
    """The limits of one key."""

    def __init__(self, limits: KeyLimits) -> None:
        self.limits = limits
        self.generation = self

    def limits_of(self, owner: str) -> KeyLimits | None:
        return self.limits if owner == "key_1" else None


async def work(cache: Cache, seconds: float, parallel: int, limits: KeyLimits) -> int:
    sharing = Sharing(cache)
    limiter = Limiter(Limits(limits), sharing=sharing)
    await sharing.start(limiter.counted)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    until, admitted = time.monotonic() + seconds, 0

    async def ask() -> None:
        nonlocal admitted
        while time.monotonic() < until:
            hold = limiter.open(WHO)
            assert hold is not None
            try:
                await hold.admit(tokens=50)
            except RateLimitExceeded:
                await asyncio.sleep(0.02)
                continue
            admitted += 1
            await asyncio.sleep(0.001)
            hold.settle(tokens=10)

    await asyncio.gather(*(ask() for _ in range(parallel)))
    await sharing.stop()
    return admitted


def main(url: str, seconds: str, parallel: str, rpm: str, tpm: str) -> None:
    database = None if url.startswith("redis://") else Database(url)
    cache: Cache = RedisCache(url) if database is None else SqlCache(database)
    limits = KeyLimits(rpm=int(rpm) or None, tpm=int(tpm) or None)
    print(asyncio.run(work(cache, float(seconds), int(parallel), limits)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
