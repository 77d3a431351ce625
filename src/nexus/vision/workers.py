"""The threads that look at pictures, and the short queue before them.

One picture takes one seat from the moment it is admitted until its thread has really let go of it, so
that callers who give up cannot pile up work behind the bound.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from nexus.vision.errors import VisionBusy
from nexus.vision.memory import give_back

_LONG = 0.25
_NOW_AND_THEN = 2.0

A = ParamSpec("A")
T = TypeVar("T")


def _cores() -> int:
    """Return the cores that this process may use; not every system can tell them from those of the machine."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class Seat:
    """The right to run functions in a worker thread, one after the other."""

    def __init__(self, threads: ThreadPoolExecutor, tidy: Callable[[float], None]) -> None:
        self._threads = threads
        self._tidy = tidy
        self.last: Future[Any] | None = None

    async def run(self, function: Callable[A, T], *args: A.args, **kwargs: A.kwargs) -> T:
        """Run a blocking function and return what it returns. A cancelled one that has not begun never does."""

        def work() -> T:
            start = time.monotonic()
            try:
                return function(*args, **kwargs)
            finally:
                self._tidy(time.monotonic() - start)

        future = self._threads.submit(work)
        self.last = future
        return await asyncio.wrap_future(future)


class Workers:
    """A bounded number of threads with a bounded queue."""

    def __init__(self, *, workers: int, queue: int) -> None:
        """Have `workers` threads (0: one for each core), with `queue` pictures waiting at the most."""
        self.workers = workers or _cores()
        self.places = self.workers + queue
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="vision")
        self._lock = threading.Lock()
        self._taken = 0
        self._tidied = 0.0

    @property
    def taken(self) -> int:
        """Return how many seats are taken, waiting ones counted."""
        return self._taken

    @contextmanager
    def seat(self) -> Iterator[Seat]:
        """Give a seat for the block. Raises `VisionBusy` when there is none."""
        with self._lock:
            if self._taken >= self.places:
                raise VisionBusy(retry_after=1.0)
            self._taken += 1
        seat = Seat(self._threads, self._tidy)
        try:
            yield seat
        finally:
            if seat.last is None:
                self._free()
            else:
                seat.last.add_done_callback(self._free)

    def close(self) -> None:
        """Let the running threads end and start no others."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _tidy(self, seconds: float) -> None:
        """Give freed memory back after long work, and now and then after short work."""
        now = time.monotonic()
        if seconds >= _LONG or now - self._tidied >= _NOW_AND_THEN:
            self._tidied = now
            give_back()

    def _free(self, _: object = None) -> None:
        with self._lock:
            self._taken -= 1
