"""Every cache keeps the same promises."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from nexus.storage.cache import Cache
from nexus.storage.caches.layered import LayeredCache
from nexus.storage.caches.memory import MemoryCache
from nexus.storage.caches.redis import CacheUnavailable, RedisCache
from nexus.storage.caches.sql import SqlCache
from nexus.storage.db import Base, Database


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not on this machine")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    server = subprocess.Popen(
        [program, "--port", str(port), "--save", "", "--dir", str(folder)], stdout=subprocess.DEVNULL
    )
    yield f"redis://127.0.0.1:{port}/0"
    server.kill()
    server.wait()


@pytest.fixture(params=["memory", "sql", pytest.param("redis", marks=pytest.mark.slow), "layered"])
async def cache(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cache]:
    made: Cache
    if request.param == "memory":
        made = MemoryCache()
    elif request.param in ("sql", "layered"):
        database = Database(f"sqlite:///{tmp_path / 'cache.db'}")
        Base.metadata.create_all(database.engine)
        made = SqlCache(database)
        if request.param == "layered":
            made = LayeredCache(MemoryCache(), made)
    else:
        made = RedisCache(request.getfixturevalue("redis_url"))
        for _ in range(600):
            try:
                await made.delete("warm")
                break
            except CacheUnavailable:
                await asyncio.sleep(0.05)
    yield made
    await made.purge("")
    await made.close()


async def test_gives_back_what_was_set(cache: Cache) -> None:
    await cache.set("a", b"\x00\xff", 60)
    await cache.set("a", b"new", 60)
    assert (await cache.get("a"), await cache.get("b")) == (b"new", None)
    await cache.delete("a")
    assert await cache.get("a") is None


async def test_gives_back_many_at_once(cache: Cache) -> None:
    values = {f"many:{n}": b"%d" % n for n in range(1_200)}
    await cache.set("many:7", b"old", 60)
    await cache.set_many(values, 60)
    await cache.set_many({}, 60)
    wanted = [*values, "none"][::-1]
    assert await cache.get_many(wanted) == values
    assert await cache.get_many([]) == {}
    assert await cache.purge("many:") == 1_200
    assert await cache.get_many(wanted) == {}


async def test_entries_end(cache: Cache) -> None:
    await cache.set("short", b"1", 0.15)
    assert await cache.increment("count", 1, 0.15) == 1
    await asyncio.sleep(0.4)
    assert await cache.get("short") is None
    assert await cache.increment("count", 1, 60) == 1


async def test_counts_are_exact_under_concurrency(cache: Cache) -> None:
    totals = await asyncio.gather(*(cache.increment("n", 2, 60) for _ in range(50)))
    assert sorted(totals) == list(range(2, 102, 2))


async def test_purge_takes_the_prefix_literally(cache: Cache) -> None:
    for key in ("p:*:1", "p:*:2", "p:x:1", "p%y"):
        await cache.set(key, b"v", 60)
    assert await cache.purge("p:*:") == 2
    assert await cache.get("p:x:1") == b"v"


@pytest.mark.slow
async def test_many_at_once_share_a_few_connections(redis_url: str) -> None:
    cache = RedisCache(redis_url)
    totals = await asyncio.gather(*(cache.increment("many", 1, 60) for _ in range(300)))
    assert sorted(totals) == list(range(1, 301))
    assert 1 < len(await cache._redis.client_list()) <= 16
    await cache.purge("")
    await cache.close()


async def test_redis_that_is_away_counts_as_a_miss() -> None:
    cache = RedisCache("redis://127.0.0.1:1/0")
    await cache.set("a", b"1", 60)
    await cache.set_many({"a": b"1"}, 60)
    assert await cache.get("a") is None
    assert await cache.get_many(["a"]) == {}
    with pytest.raises(CacheUnavailable):
        await cache.increment("a", 1, 60)
    await cache.close()


async def test_measures_what_is_kept(cache: Cache) -> None:
    await cache.set("a:1", b"12345", 60)
    await cache.set("a:2", b"123", 60)
    await cache.set("b:1", b"1", 60)
    assert await cache.measure("a:") == (2, 8)
    assert await cache.measure("") == (3, 9)
    await cache.purge("a:")
    assert await cache.measure("a:") == (0, 0)


async def test_layers_share_what_is_behind_them(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'cache.db'}")
    Base.metadata.create_all(database.engine)
    back = SqlCache(database)
    now = 0.0
    one, two = (LayeredCache(MemoryCache(timer=lambda: now), back, front_ttl=0.1) for _ in range(2))
    await one.set("k", b"v", 60)
    await one.close()
    assert await two.get("k") == b"v"
    await one.delete("k")
    assert await one.get("k") is None
    assert await two.get("k") == b"v", "its own front, for a moment"
    now = 0.15
    assert await two.get("k") is None
    database.close()
