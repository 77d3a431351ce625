"""Clients who leave before their answer is there: the work for them is cancelled, and their call is on record."""

from __future__ import annotations

import asyncio
from types import TracebackType

from nexus.core.per_loop import PerLoop
from nexus.http.types import LEAVING, Leaving, Receive, Scope
from nexus.llm.money.accounting import Entry

_LOOK_EVERY = 0.05


class Departure:
    """Stands around one call: closes its entry at the end, and cancels this task when the client has gone.

    Our own server says when it has. Of another it has to be asked: from the second look of a timer that all calls
    share, so that those that are over by then, which are most, are answered without the cost.
    """

    __slots__ = ("_entry", "_leaving", "_lookout", "_over", "_receive", "_task", "_watch")

    def __init__(self, scope: Scope, receive: Receive, entry: Entry) -> None:
        """Listen for what `receive`, whose body has been read, would tell."""
        self._leaving: Leaving | None = scope.get(LEAVING)
        self._receive = receive
        self._entry = entry
        self._over = False
        self._watch: asyncio.Task[None] | None = None
        self._lookout: _Lookout | None = None

    def __enter__(self) -> None:
        """Begin."""
        if self._leaving is not None:
            self._task: asyncio.Task[None] | None = self._leaving(self._left)
            return
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        self._lookout = lookout = _lookouts.of(loop)
        lookout.add(self, loop)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Record, and stop watching; the cancellation that the watch itself caused ends here."""
        self._over = True
        self._entry.close(error)
        if self._leaving is not None:
            self._leaving(None)
        elif self._lookout is not None:
            self._lookout.remove(self)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None  # what it dies of leads back to here, and circles wait long for the collector
        if self._entry.gone and isinstance(error, asyncio.CancelledError) and self._task is not None:
            return self._task.uncancel() == 0
        return False

    def watch(self) -> None:
        """Begin to wait for the client's leaving."""
        self._watch = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left()

    def _left(self) -> None:
        # The end of an answer reads as a disconnect too.
        if not self._over and not self._entry.closed and self._task is not None:
            self._entry.gone = True
            self._task.cancel()


class _Lookout:
    """The calls of one event loop that are not watched yet."""

    def __init__(self) -> None:
        self._new: set[Departure] = set()
        self._seen: set[Departure] = set()
        self._looking = False

    def add(self, departure: Departure, loop: asyncio.AbstractEventLoop) -> None:
        self._new.add(departure)
        if not self._looking:
            self._looking = True
            loop.call_later(_LOOK_EVERY, self._look, loop)

    def remove(self, departure: Departure) -> None:
        self._new.discard(departure)
        self._seen.discard(departure)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        for departure in self._seen:
            departure.watch()
        self._seen, self._new = self._new, set()
        self._looking = bool(self._seen)
        if self._looking:
            loop.call_later(_LOOK_EVERY, self._look, loop)


_lookouts = PerLoop(_Lookout)
