"""Real child processes: they crash, hang, grow and are many, and the caller only ever sees a clear error."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.clock import PATIENCE, soon
from tests.compute import workload
from tests.compute.workload import gone

from nexus.compute.errors import (
    ComputeBusy,
    ComputeCrashed,
    ComputeFailed,
    ComputeStopped,
    ComputeTimeout,
    OutOfMemory,
)
from nexus.compute.pool import ComputePool
from nexus.compute.settings import ComputeSettings
from nexus.core.errors import InvalidInput, NexusError


@pytest.fixture(scope="module")
def pool() -> Iterator[ComputePool]:
    pool = ComputePool(ComputeSettings(memory_mb=512, abandon_seconds=0.2))
    yield pool
    pool.stop_now()


async def test_runs_in_another_process_that_stays(pool: ComputePool) -> None:
    assert await pool.run(workload.add, 2, b=3) == 5
    first = await pool.run(workload.pid)
    assert first != os.getpid()
    assert await pool.run(workload.pid) == first


def test_runs_from_a_thread(pool: ComputePool) -> None:
    assert pool.run_now(workload.add, 2, 3) == 5


@pytest.mark.parametrize(
    ("function", "args", "error"),
    [
        (os.abort, (), ComputeCrashed),
        (workload.segfault, (), ComputeCrashed),
        (workload.exit_quietly, (), ComputeCrashed),
        (bytearray, (2 * 1024**3,), OutOfMemory),
        (workload.sleep_then, (90, 1), ComputeTimeout),
        (workload.read_a_file_that_is_not_there, (), ComputeFailed),
        (workload.unpicklable, (), ComputeFailed),
        (workload.refuse, (), InvalidInput),
    ],
)
async def test_failures_are_clear_and_the_next_call_works(
    pool: ComputePool, function: Callable[..., object], args: tuple[object, ...], error: type[NexusError]
) -> None:
    await pool.run(workload.add, 1, 1)
    with pytest.raises(error) as caught:
        await pool.run(function, *args, timeout=1 if error is ComputeTimeout else PATIENCE)
    assert type(caught.value) is error
    assert "secret-place" not in str(caught.value)
    assert await pool.run(workload.add, 1, 1) == 2


async def test_our_errors_arrive_whole(pool: ComputePool) -> None:
    with pytest.raises(InvalidInput) as caught:
        await pool.run(workload.refuse)
    assert (caught.value.message, caught.value.field) == ("The column is not there.", "columns.0")
    assert caught.value.details == {"known": ["a"]}


async def test_the_child_sees_no_secret_and_few_threads(
    pool: ComputePool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path))
    own = ComputePool(ComputeSettings(threads=1), warm_up=["statistics"])
    try:
        assert await own.run(workload.environment, "OPENAI_API_KEY") is None
        assert await own.run(workload.environment, "OMP_NUM_THREADS") == "1"
        assert await own.run(workload.environment, "PYTHONPYCACHEPREFIX") == str(tmp_path)
        assert "statistics" in await own.run(workload.modules)
    finally:
        await own.stop()


async def test_a_warm_pool_has_loaded_what_it_was_told() -> None:
    pool = ComputePool(ComputeSettings(warm_up=["statistics", "no.such.module"]), warm_up=["fractions"])
    try:
        await pool.warm()
        assert len(pool.pids()) == 1
        assert {"statistics", "fractions"} <= set(await pool.run(workload.modules))
    finally:
        await pool.stop()


async def test_many_calls_use_every_child_and_none_is_lost() -> None:
    pool = ComputePool(children=2)
    try:
        results = await asyncio.gather(*[pool.run(workload.sleep_then, 0.01, n) for n in range(60)])
        assert results == list(range(60))
        assert len(pool.pids()) == 2
        assert pool.stats() == {"children": 2, "busy": 0, "waiting": 0, "restarts": 0}
    finally:
        await pool.stop()


async def test_a_full_queue_is_429() -> None:
    pool = ComputePool(ComputeSettings(queue=2))
    try:
        running = [asyncio.create_task(pool.run(workload.sleep_then, 0.5, n)) for n in range(3)]
        await soon(lambda: pool.stats()["waiting"] == 2)
        with pytest.raises(ComputeBusy) as caught:
            await pool.run(workload.add, 1, 1)
        assert caught.value.status == 429
        assert await asyncio.gather(*running) == [0, 1, 2]
        assert await pool.run(workload.add, 1, 1) == 2
    finally:
        await pool.stop()


async def test_a_crash_harms_no_other_call() -> None:
    pool = ComputePool(children=2)
    try:
        calls = [pool.run(os.abort) if n % 5 == 0 else pool.run(workload.sleep_then, 0.01, n) for n in range(20)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        crashed = [n for n, result in enumerate(results) if isinstance(result, ComputeCrashed)]
        assert crashed == [0, 5, 10, 15]
        assert [result for result in results if isinstance(result, int)] == [n for n in range(20) if n % 5]
    finally:
        await pool.stop()


async def test_a_caller_that_leaves_frees_its_child(pool: ComputePool) -> None:
    task = asyncio.create_task(pool.run(workload.sleep_then, 90, 1))
    await asyncio.sleep(0.3)
    task.cancel()
    began = time.monotonic()
    assert await pool.run(workload.add, 1, 1) == 2
    assert time.monotonic() - began < PATIENCE


async def test_a_timeout_takes_grandchildren_too(pool: ComputePool, tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    for timeout in (1.5, 6, 30):
        with pytest.raises(ComputeTimeout):
            await pool.run(workload.spawn_and_hang, str(marker), timeout=timeout)
        if marker.exists():  # else it did not even come to that
            break
    assert gone(int(marker.read_text()))


async def test_idle_and_worn_children_are_replaced() -> None:
    pool = ComputePool(ComputeSettings(calls_per_child=2))
    try:
        pids = [await pool.run(workload.pid) for _ in range(4)]
        assert pids[0] == pids[1] != pids[2] == pids[3]
        pool.settings.idle_seconds = 0.2
        await pool.run(workload.add, 1, 1)
        await soon(lambda: pool.pids() == [])
        assert await pool.run(workload.add, 1, 1) == 2
    finally:
        await pool.stop()


async def test_stop_ends_the_running_and_refuses_the_rest() -> None:
    pool = ComputePool()
    running = asyncio.create_task(pool.run(workload.sleep_then, 30, 1))
    waiting = asyncio.create_task(pool.run(workload.add, 1, 1))
    await soon(pool.pids)
    (child,) = pool.pids()
    await pool.stop(grace=0.1)
    for task in (running, waiting):
        with pytest.raises(ComputeStopped):
            await task
    with pytest.raises(ComputeStopped):
        await pool.run(workload.add, 1, 1)
    assert gone(child)


def test_kill_9_of_the_parent_takes_the_children_with_it(tmp_path: Path) -> None:
    program = """
        import sys, time
        from nexus.compute.pool import ComputePool
        pool = ComputePool(children=1)
        pool.run_now(time.sleep, 0)
        print(*pool.pids(), flush=True)
        pool.run_now(time.sleep, 60)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert psutil.pid_exists(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert gone(child)
