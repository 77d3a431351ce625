"""The threads that look at pictures, and the short queue before them.

One picture takes one seat from the moment it is admitted until its thread has really let go of it, so
that callers who give up cannot pile up work behind the bound.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from nexus.vision.errors import VisionBusy

A = ParamSpec("A")
T = TypeVar("T")


class Seat:
    """The right to run functions in a worker thread, one after the other."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self.last: Future[Any] | None = None

    async def run(self, function: Callable[A, T], *args: A.args, **kwargs: A.kwargs) -> T:
        """Run a blocking function and return what it returns. A cancelled one that has not begun never does."""
        future: Future[T] = self._threads.submit(function, *args, **kwargs)
        self.last = future
        return await asyncio.wrap_future(future)


class Workers:
    """A bounded number of threads with a bounded queue."""

    def __init__(self, *, workers: int, queue: int) -> None:
        """Have `workers` threads (0: one for each core), with `queue` pictures waiting at the most."""
        self.workers = workers or len(os.sched_getaffinity(0))
        self.places = self.workers + queue
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="vision")
        self._lock = threading.Lock()
        self._taken = 0

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
        seat = Seat(self._threads)
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

    def _free(self, _: object = None) -> None:
        with self._lock:
            self._taken -= 1
