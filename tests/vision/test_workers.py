from __future__ import annotations

import asyncio
import threading

import pytest
from tests.clock import soon

from nexus.vision.errors import VisionBusy
from nexus.vision.workers import Workers


@pytest.fixture
def workers() -> Workers:
    return Workers(workers=2, queue=1)


async def test_more_than_workers_and_queue_are_refused(workers: Workers) -> None:
    gate = threading.Event()

    async def occupy() -> str:
        with workers.seat() as seat:
            return await seat.run(lambda: gate.wait(60) and "done")

    running = [asyncio.create_task(occupy()) for _ in range(3)]
    await soon(lambda: workers.taken == 3)
    with pytest.raises(VisionBusy) as caught, workers.seat():
        pass
    assert (caught.value.status, caught.value.code) == (429, "vision_busy")
    assert caught.value.retry_after
    gate.set()
    assert await asyncio.gather(*running) == ["done"] * 3
    await soon(lambda: workers.taken == 0)
    workers.close()


async def test_a_caller_who_gives_up_keeps_the_seat_until_the_thread_is_free(workers: Workers) -> None:
    gate = threading.Event()

    begun = threading.Event()

    async def occupy() -> None:
        with workers.seat() as seat:
            await seat.run(lambda: (begun.set(), gate.wait(60)))

    task = asyncio.create_task(occupy())
    await soon(begun.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert workers.taken == 1
    gate.set()
    await soon(lambda: workers.taken == 0)
    workers.close()


async def test_work_that_has_not_begun_never_does_when_given_up(workers: Workers) -> None:
    gate, begun = threading.Event(), []

    async def occupy(name: str) -> None:
        with workers.seat() as seat:
            await seat.run(lambda: (begun.append(name), gate.wait(60)))

    tasks = [asyncio.create_task(occupy(name)) for name in ("a", "b", "c")]
    await soon(lambda: len(begun) == 2 and workers.taken == 3)
    tasks[2].cancel()
    await asyncio.wait(tasks[2:])
    gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    workers.close()
    assert sorted(begun) == ["a", "b"]
    await soon(lambda: workers.taken == 0)


async def test_an_error_frees_the_seat(workers: Workers) -> None:
    def fail() -> None:
        raise ValueError("as planned")

    with pytest.raises(ValueError, match="as planned"), workers.seat() as seat:
        await seat.run(fail)
    await soon(lambda: workers.taken == 0)
    workers.close()
