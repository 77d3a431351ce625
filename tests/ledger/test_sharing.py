"""Limits that processes share: through Redis, through SQLite, and with the shared counts away."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ledger.test_limiter import WHO, Limits, Moment, admitted, opened

from nexus.access.types import KeyLimits
from nexus.core.errors import Unavailable
from nexus.ledger.budgets import Budget
from nexus.ledger.errors import RateLimitExceeded
from nexus.ledger.limiter import Limiter
from nexus.ledger.sharing import Sharing
from nexus.storage.caches.memory import MemoryCache
from nexus.storage.caches.sql import SqlCache
from nexus.storage.db import Base, Database

HERE = Path(__file__).parent


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not on this machine")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.02)
    yield f"redis://127.0.0.1:{port}/0"
    server.kill()
    server.wait()


def run(url: str, processes: int, *, seconds: float, rpm: int = 0, tpm: int = 0) -> list[int]:
    """Let several processes work on the same key at the same time; return how many calls each admitted."""
    command = [sys.executable, str(HERE / "sharer.py"), url, str(seconds), "8", str(rpm), str(tpm)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(processes)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [int(process.communicate(timeout=60)[0]) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("rpm", [20, 200])
def test_processes_share_one_limit_through_redis(redis_url: str, rpm: int) -> None:
    counts = run(redis_url, 4, seconds=3, rpm=rpm)
    print(counts)
    assert rpm - 1 <= sum(counts) <= rpm


@pytest.mark.slow
def test_processes_share_one_limit_through_sqlite(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    database = Database(url)
    Base.metadata.create_all(database.engine)
    assert SqlCache(database)
    database.close()
    counts = run(url, 3, seconds=3, rpm=60)
    print(counts)
    assert 59 <= sum(counts) <= 60


@pytest.mark.slow
def test_processes_share_tokens_and_settle_them(redis_url: str) -> None:
    """Each call reserves 50 tokens and uses 10: what is not used comes back, whoever had drawn it."""
    counts = run(redis_url, 3, seconds=6, tpm=1000)
    print(counts)
    assert 85 <= sum(counts) <= 100


async def admits(limiter: Limiter) -> bool:
    try:
        await admitted(limiter)
    except RateLimitExceeded:
        return False
    return True


async def test_two_of_a_kind_never_exceed_the_limit_together() -> None:
    now, cache = Moment(), MemoryCache()
    limits = Limits(key_1=KeyLimits(rpm=50))
    both = [Limiter(limits, sharing=Sharing(cache, now=now), now=now) for _ in range(2)]
    granted = 0
    for step in range(200):
        granted += await admits(both[step % 2])
        now.seconds += 0.29
    assert granted == 50
    with pytest.raises(RateLimitExceeded) as refused:
        await admitted(both[0])
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after <= 60
    now.seconds += 60
    await admitted(both[0])
    standing = both[0].standing(WHO)[0]
    assert standing is not None
    assert standing.limit == 50
    assert 40 <= standing.left <= 49


async def test_many_at_once_in_one_process_get_all_of_it() -> None:
    limiter = Limiter(Limits(key_1=KeyLimits(rpm=40, tpm=100_000)), sharing=Sharing(MemoryCache()))

    async def call() -> bool:
        try:
            (await admitted(limiter, tokens=10)).settle(tokens=10)
        except RateLimitExceeded:
            return False
        return True

    assert sum(await asyncio.gather(*(call() for _ in range(100)))) == 40


async def test_what_lies_idle_goes_back() -> None:
    now, cache = Moment(), MemoryCache()
    limits = Limits(key_1=KeyLimits(rpm=640))
    sharings = [Sharing(cache, now=now) for _ in range(2)]
    first, second = (Limiter(limits, sharing=sharing, now=now) for sharing in sharings)
    await admitted(first)
    count = sum([await admits(second) for _ in range(700)])
    assert count == 600, "the first holds forty, of which it used one"
    now.seconds += 2
    await sharings[0].exchange()
    assert sum([await admits(second) for _ in range(100)]) == 39


async def test_calls_and_reservations_elsewhere_are_heard_of() -> None:
    now, cache = Moment(), MemoryCache()
    limits = Limits(key_1=KeyLimits(parallel=3))
    sharings = [Sharing(cache, now=now) for _ in range(2)]
    first, second = (Limiter(limits, sharing=sharing, now=now) for sharing in sharings)
    for sharing, limiter in zip(sharings, (first, second), strict=True):
        sharing._counted = limiter.counted
    holds = [await admitted(first), await admitted(first)]
    (await admitted(second)).settle()
    for sharing in (*sharings, *sharings):
        await sharing.exchange()
    third = await admitted(second)
    with pytest.raises(RateLimitExceeded, match="3 parallel"):
        await admitted(second)
    for hold in holds:
        hold.settle()
    third.settle()
    for _ in range(2):
        now.seconds += 5
        for sharing in (*sharings, *sharings):
            await sharing.exchange()
    for _ in range(3):
        await admitted(second)


async def test_reservations_of_a_dead_process_end_within_seconds() -> None:
    now, cache = Moment(), MemoryCache()
    dead, alive = Sharing(cache, now=now), Sharing(cache, now=now)
    budgets = [Budget("bud_1", amount=10.0, period="total", project_id="prj_1") for _ in range(2)]
    dead._counted, alive._counted = lambda: budgets[:1], lambda: budgets[1:]
    budgets[0].reserve(7.0)
    budgets[1].reserve(1.0)
    for sharing in (dead, alive):
        await sharing.exchange()
    assert budgets[1].elsewhere == 7.0
    for _ in range(25):
        now.seconds += 1
        await alive.exchange()
    assert budgets[1].elsewhere == 0.0


class AwayCache(MemoryCache):
    """A cache that does not answer."""

    async def increment(self, key: str, by: int, ttl: float) -> int:
        raise Unavailable


async def test_each_goes_on_with_its_share_while_the_counts_are_away() -> None:
    sharing = Sharing(AwayCache())
    sharing.processes = 4
    limiter = Limiter(Limits(key_1=KeyLimits(rpm=40)), sharing=sharing)
    for _ in range(10):
        await admitted(limiter)
    with pytest.raises(RateLimitExceeded) as refused:
        await admitted(limiter)
    assert refused.value.retry_after is not None
    assert await sharing.claim("something", 10)
    assert opened(limiter).open is False
