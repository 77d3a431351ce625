"""The models in this process's memory.

    async with pool.use(version.key, load, size=version.memory) as session:
        ...

The first caller of a key loads it, in a thread of the pool's own; everybody else who asks meanwhile
waits for the same load. A model in use is never taken away: making room and unloading *drain*, that
is, they let the present users finish while newcomers get a fresh load. Room is made by least recent
use, sparing pinned models and those used a moment ago.

The pool is safe across threads and event loops: its state is guarded by a lock that is never held
while anything is loaded, closed or awaited.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import psutil

from nexus.catalog.errors import MemoryFull, ModelLoadFailed
from nexus.catalog.types import State
from nexus.core.clock import Clock, SystemClock
from nexus.core.errors import NexusError

T = TypeVar("T")

_log = logging.getLogger("nexus.catalog.pool")


@dataclass(frozen=True, slots=True)
class Loaded:
    """How one entry of the pool stands. `size` is in bytes, `idle` in seconds since its last use."""

    key: str
    state: State
    size: int
    users: int
    pinned: bool
    idle: float
    reason: str | None = None


@dataclass(eq=False)
class _Entry:
    key: str
    size: int
    state: State = State.LOADING
    users: int = 0
    last_used: float = 0.0
    reason: str | None = None
    failed_at: float = 0.0
    ready: Future[Any] = field(default_factory=Future)


class ModelPool:
    """Loaded models by key: single flight, reference counts, pins, and a memory budget."""

    def __init__(
        self,
        *,
        budget: int = 0,
        minimum_idle: float = 5.0,
        retry_failed_after: float = 1.0,
        clock: Clock | None = None,
    ) -> None:
        """Hold at most `budget` bytes (0: half of the machine's memory) as stated by `size`."""
        self.budget = budget or psutil.virtual_memory().total // 2
        self.minimum_idle = minimum_idle
        self.retry_failed_after = retry_failed_after
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._draining: list[_Entry] = []
        self._pins: set[str] = set()
        self._loaders = ThreadPoolExecutor(2, thread_name_prefix="model-load")

    @asynccontextmanager
    async def use(self, key: str, load: Callable[[], T], *, size: int) -> AsyncIterator[T]:
        """Yield the model of this key, loading it with `load()` when it is not in memory.

        `size` is what it will take, in bytes. Raises `MemoryFull` when no room can be made,
        `ModelLoadFailed` when `load` fails by anything but a `NexusError`, which arrives as itself.
        """
        entry = self._join(key, load, size)
        try:
            yield cast("T", await asyncio.shield(asyncio.wrap_future(entry.ready)))
        finally:
            self._leave(entry)

    @contextmanager
    def use_now(self, key: str, load: Callable[[], T], *, size: int) -> Iterator[T]:
        """Do as `use` does, from a plain thread."""
        entry = self._join(key, load, size)
        try:
            yield cast("T", entry.ready.result())
        finally:
            self._leave(entry)

    def states(self) -> list[Loaded]:
        """Return every entry: loading, loaded, draining and failed ones."""
        now = self._clock.monotonic()
        with self._lock:
            return [
                Loaded(e.key, e.state, e.size, e.users, self._is_pinned(e.key), max(0.0, now - e.last_used), e.reason)
                for e in [*self._entries.values(), *self._draining]
            ]

    def held(self) -> int:
        """Return the bytes that loaded, loading and draining models take by their own account."""
        with self._lock:
            return self._held()

    def pin(self, key: str, *, pinned: bool = True) -> None:
        """Spare the model (and every `key/...`) when room is made, or stop sparing it."""
        with self._lock:
            (self._pins.add if pinned else self._pins.discard)(key)

    def unload(self, key: str) -> int:
        """Drop the model and every `key/...` as soon as nobody uses them; return how many there were."""
        with self._lock:
            names = [name for name in self._entries if _matches(name, key)]
            for name in names:
                self._drain(self._entries[name])
            gone = self._sweep()
        _close(gone)
        return len(names)

    def close(self) -> None:
        """Drop every model and stop the loading threads. Users that still hold one keep it alive."""
        self._loaders.shutdown(wait=True)
        with self._lock:
            for entry in list(self._entries.values()):
                self._drain(entry)
            gone = self._sweep()
        _close(gone)

    def _join(self, key: str, load: Callable[[], Any], size: int) -> _Entry:
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry.state is State.FAILED and self._may_retry(entry):
                del self._entries[key]
                entry = None
            if entry is None:
                self._make_room(size)
                entry = self._entries[key] = _Entry(key, size)
                self._loaders.submit(self._load, entry, load)
            entry.users += 1
            entry.last_used = self._clock.monotonic()
            gone = self._sweep()
        _close(gone)
        return entry

    def _leave(self, entry: _Entry) -> None:
        with self._lock:
            entry.users -= 1
            entry.last_used = self._clock.monotonic()
            gone = self._sweep()
        _close(gone)

    def _load(self, entry: _Entry, load: Callable[[], Any]) -> None:
        try:
            model = load()
        except NexusError as error:
            self._fail(entry, error)
        except Exception as error:  # noqa: BLE001  whatever a model file provokes is that model's failure
            _log.warning("model %s could not be loaded", entry.key, exc_info=error)
            self._fail(entry, ModelLoadFailed(model=entry.key.rpartition("/")[2]))
        else:
            with self._lock:
                if entry.state is State.LOADING:
                    entry.state = State.LOADED
            entry.ready.set_result(model)
            with self._lock:
                gone = self._sweep()
            _close(gone)

    def _fail(self, entry: _Entry, error: NexusError) -> None:
        with self._lock:
            entry.reason, entry.size = error.message, 0
            entry.state, entry.failed_at = State.FAILED, self._clock.monotonic()
        entry.ready.set_exception(error)

    def _may_retry(self, entry: _Entry) -> bool:
        return self._clock.monotonic() - entry.failed_at >= self.retry_failed_after

    def _held(self) -> int:
        return sum(entry.size for entry in [*self._entries.values(), *self._draining])

    def _is_pinned(self, key: str) -> bool:
        return any(_matches(key, pin) for pin in self._pins)

    def _make_room(self, size: int) -> None:
        """Drain the least recently used until `size` more bytes fit. Called with the lock held."""
        if size > self.budget:
            raise MemoryFull("The model is larger than the memory that models may take.", needed_bytes=size)
        now, missing = self._clock.monotonic(), self._held() + size - self.budget
        victims: list[_Entry] = []
        for entry in sorted(self._entries.values(), key=lambda e: e.last_used):
            if missing <= 0:
                break
            spare = entry.state is State.LOADED and not entry.users and now - entry.last_used >= self.minimum_idle
            if spare and not self._is_pinned(entry.key):
                victims.append(entry)
                missing -= entry.size
        if missing > 0:
            raise MemoryFull(retry_after=max(1.0, self.minimum_idle), needed_bytes=size)
        for entry in victims:
            self._drain(entry)

    def _drain(self, entry: _Entry) -> None:
        del self._entries[entry.key]
        if entry.state is not State.FAILED:
            entry.state = State.DRAINING
            self._draining.append(entry)

    def _sweep(self) -> list[Any]:
        """Take out the drained models that nobody uses, to be closed outside of the lock."""
        over = [e for e in self._draining if not e.users and e.ready.done()]
        self._draining = [e for e in self._draining if e not in over]
        return [e.ready.result() for e in over if e.ready.exception() is None]


def _matches(key: str, wanted: str) -> bool:
    return key == wanted or key.startswith(wanted + "/")


def _close(models: list[Any]) -> None:
    """Close what has a `close`; the last reference to the others goes with the list."""
    for model in models:
        close = getattr(model, "close", None)
        if callable(close):
            close()
