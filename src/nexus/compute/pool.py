"""Calls into child processes that may crash, hang or grow without harming this one.

    frame = await pool.run(read_table, path, timeout=60)         # from async code
    frame = pool.run_now(read_table, path, timeout=60)           # from a worker thread

The function must be importable by name (a plain module-level one), because it runs in a spawned
Python (see `child`); arguments and result travel as pickles over a private socket pair.
Children are started on first use, kept warm, and replaced after a crash, a timeout, a long idle
time or many calls. Heavy libraries are therefore never loaded into the calling process.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from nexus.compute.child import Answer, Setup
from nexus.compute.errors import ComputeBusy, ComputeCrashed, ComputeFailed, ComputeStopped, ComputeTimeout, OutOfMemory
from nexus.compute.process import signal_group
from nexus.compute.settings import ComputeSettings, available_cores, child_environment
from nexus.core.errors import NexusError

R = TypeVar("R")
_log = logging.getLogger("nexus.compute")
_TICK = 0.25
# Not `-m`: the module would be there twice, and its classes would not unpickle here.
_START = "from nexus.compute.child import main; main()"


@dataclass(slots=True)
class _Call:
    """One call on its way: `deadline` and `abandoned` are on the monotonic clock."""

    name: str
    frame: bytes
    deadline: float
    future: concurrent.futures.Future[Any] = field(default_factory=concurrent.futures.Future)
    abandoned: float | None = None


class _ChildProcess:
    """One running child and the near end of its socket."""

    def __init__(self, setup: Setup, threads: int) -> None:
        near, far = socket.socketpair()
        with far:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, str(far.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                pass_fds=[far.fileno()],
                start_new_session=True,
                env=child_environment(threads) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        self.connection = Connection(near.detach())
        self.connection.send_bytes(pickle.dumps(setup))
        self.calls = 0

    def kill(self) -> None:
        """End the child and whatever it has started, at once."""
        self.connection.close()
        signal_group(self.process.pid, signal.SIGKILL)
        self.process.wait()


class ComputePool:
    """At most `children` calls at once, each in a process of its own; more wait in a bounded queue."""

    def __init__(
        self,
        settings: ComputeSettings | None = None,
        *,
        children: int | None = None,
        warm_up: Sequence[str] = (),
        name: str = "compute",
    ) -> None:
        """Start nothing yet. `warm_up` adds to the modules that every child imports before its first call."""
        self.settings = settings or ComputeSettings()
        self.size = children or self.settings.api_children
        self.name = name
        self._threads_each = self.settings.threads or max(1, available_cores() // self.size)
        modules = [*self.settings.warm_up, *warm_up]
        self._setup = Setup(path=list(sys.path), memory_mb=self.settings.memory_mb, warm_up=modules)
        self._waiting: queue.Queue[_Call | None] = queue.Queue()
        self._lock = threading.Lock()
        self._slots: list[threading.Thread] = []
        self._children: dict[int, _ChildProcess] = {}
        self._outstanding = 0
        self._stopping = False
        self.restarts = 0

    async def run(
        self,
        function: Callable[..., R],
        /,
        *args: Any,
        timeout: float | None = None,  # noqa: ASYNC109  it must reach the child, which is killed by it
        **kwargs: Any,
    ) -> R:
        """Run `function(*args, **kwargs)` in a child and return its result.

        `timeout` is in seconds and counts the waiting too. Raises `ComputeBusy` (429) when the queue is
        full, `ComputeTimeout` (504), `ComputeCrashed` (503), `OutOfMemory` (413), the `NexusError` that
        the function raised, or `ComputeFailed` (500) for any other exception of its. A caller that is
        cancelled leaves its call behind, which is ended soon after.
        """
        call = self._submit(function, args, kwargs, timeout)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(call.future), call.deadline - time.monotonic() + 1)
        except TimeoutError:
            raise ComputeTimeout from None
        finally:
            call.abandoned = time.monotonic()

    def run_now(self, function: Callable[..., R], /, *args: Any, timeout: float | None = None, **kwargs: Any) -> R:
        """Do as `run` does, blocking this thread."""
        call = self._submit(function, args, kwargs, timeout)
        try:
            return call.future.result(call.deadline - time.monotonic() + 1)  # type: ignore[no-any-return]
        except concurrent.futures.TimeoutError:
            call.future.cancel()
            raise ComputeTimeout from None
        finally:
            call.abandoned = time.monotonic()

    async def warm(self) -> None:
        """Start a child, with what it is to load first, so that the first call need not wait for it."""
        await self.run(os.getpid)

    def stats(self) -> dict[str, int]:
        """Return how many children run, are busy, wait, and how many had to be replaced after a failure."""
        return {
            "children": len(self._children),
            "busy": min(self._outstanding, self.size),
            "waiting": max(0, self._outstanding - self.size),
            "restarts": self.restarts,
        }

    def pids(self) -> list[int]:
        """Return the process ids of the living children."""
        return [child.process.pid for child in list(self._children.values())]

    async def stop(self, grace: float = 5.0) -> None:
        """Take no new calls, give running ones `grace` seconds, then end every child."""
        await asyncio.to_thread(self.stop_now, grace)

    def stop_now(self, grace: float = 5.0) -> None:
        """Do as `stop` does, blocking this thread."""
        with self._lock:
            self._stopping = True
            slots = list(self._slots)
        self._refuse_waiting()
        for _ in slots:
            self._waiting.put(None)
        end = time.monotonic() + grace
        for slot in slots:
            slot.join(max(0.0, end - time.monotonic()))
        for child in list(self._children.values()):
            signal_group(child.process.pid, signal.SIGKILL)
        for slot in slots:
            slot.join(5.0)

    def _refuse_waiting(self) -> None:
        while True:
            try:
                call = self._waiting.get_nowait()
            except queue.Empty:
                return
            if call is not None and call.future.set_running_or_notify_cancel():
                call.future.set_exception(ComputeStopped(retry_after=2))

    def _submit(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], timeout: float | None
    ) -> _Call:
        frame = pickle.dumps((function, args, kwargs), protocol=5)
        deadline = time.monotonic() + (timeout or self.settings.timeout)
        call = _Call(getattr(function, "__qualname__", "call"), frame, deadline)
        with self._lock:
            if self._stopping:
                raise ComputeStopped(retry_after=2)
            if self._outstanding >= self.size + self.settings.queue:
                raise ComputeBusy(retry_after=1)
            self._outstanding += 1
            self._waiting.put(call)
            if len(self._slots) < min(self.size, self._outstanding):
                self._add_slot()
        return call

    def _add_slot(self) -> None:
        number = len(self._slots)
        slot = threading.Thread(target=self._work, args=(number,), name=f"{self.name}-{number}", daemon=True)
        self._slots.append(slot)
        slot.start()

    def _work(self, slot: int) -> None:
        """Serve calls, one at a time. The thread lives as long as its child: see `die_with_parent`."""
        while True:
            try:
                call = self._waiting.get(timeout=self.settings.idle_seconds)
            except queue.Empty:
                self._retire(slot)
                continue
            if call is None:
                break
            wanted = call.future.set_running_or_notify_cancel()
            outcome = self._outcome(slot, call) if wanted else None
            with self._lock:
                self._outstanding -= 1
            if isinstance(outcome, NexusError):
                call.future.set_exception(outcome)
            elif outcome is not None:
                call.future.set_result(outcome.value)
        self._retire(slot)

    def _outcome(self, slot: int, call: _Call) -> Answer | NexusError:
        """Make the call and return its answer, or the error to raise in the caller."""
        try:
            reply = self._exchange(slot, call)
        except ComputeTimeout as error:
            self._replace(slot, call.name, "timeout")
            return error
        except (EOFError, OSError):
            self._replace(slot, call.name, "crash")
            return ComputeStopped(retry_after=2) if self._stopping else ComputeCrashed(retry_after=1)
        # A value that does not unpickle here may raise anything, and this thread must live on.
        except Exception:  # noqa: BLE001
            _log.exception("the answer of %s could not be read", call.name)
            self._replace(slot, call.name, "broken answer")
            return ComputeFailed()
        child = self._children[slot]
        child.calls += 1
        if child.calls >= self.settings.calls_per_child or reply.out_of_memory:
            self._retire(slot)
        if reply.error is not None:
            _log.debug("%s raised %s", call.name, reply.error.code)
            return reply.error
        if reply.out_of_memory:
            return OutOfMemory()
        if reply.trace is not None:
            _log.error("%s failed in a compute child\n%s", call.name, reply.trace)
            return ComputeFailed()
        return reply

    def _exchange(self, slot: int, call: _Call) -> Answer:
        if slot not in self._children:
            self._children[slot] = _ChildProcess(self._setup, self._threads_each)
        connection = self._children[slot].connection
        connection.send_bytes(call.frame)
        while not connection.poll(_TICK):
            now = time.monotonic()
            left_alone = call.abandoned is not None and now > call.abandoned + self.settings.abandon_seconds
            if now > call.deadline or left_alone:
                raise ComputeTimeout
        reply = pickle.loads(connection.recv_bytes())  # noqa: S301  our own child wrote it
        assert isinstance(reply, Answer)
        return reply

    def _replace(self, slot: int, name: str, reason: str) -> None:
        self.restarts += 1
        _log.warning("a compute child is replaced after a %s in %s", reason, name)
        self._retire(slot)

    def _retire(self, slot: int) -> None:
        if child := self._children.pop(slot, None):
            child.kill()
