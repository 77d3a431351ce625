"""A clock for tests that wait for nothing, and measures that a busy machine does not stretch."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

PATIENCE = 30.0
"""Seconds for what takes none where all is well: who waits so long waits for what will never come."""


class MovedClock:
    """The machine's clock, ahead by as many seconds as a test says."""

    ahead = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead)

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@contextmanager
def no_runaway(seconds: float = 3.0) -> Iterator[None]:
    """Fail where what is done here is far more than it looks: quadratic, exponential.

    Only the work of this thread counts: not what else the machine does, nor a collection of the garbage of all tests.
    """
    collects = gc.isenabled()
    gc.disable()
    began = time.thread_time()
    try:
        yield
        spent = time.thread_time() - began
    finally:
        if collects:
            gc.enable()
    assert spent < seconds, f"{spent:.1f} s of work"


def until(holds: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until it holds; fail where it does not come to."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.005)


async def soon(holds: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Let others work until it holds; fail where it does not come to."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to be"
        await asyncio.sleep(0.005)
