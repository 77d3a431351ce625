"""From the outbox to the broker, after the commit, in order of due time.

One thread. It sleeps until a signal, the next due message or the fallback poll. A message is deleted
only when the broker has taken it; dying in between sends it twice, and the second one is dropped at
the claim. A broker that is away delays work and loses none.
"""

from __future__ import annotations

import logging
import selectors
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Protocol

from sqlalchemy.orm import Session

from nexus.core.clock import Clock
from nexus.runs import engine_storage as queries
from nexus.runs.engine_storage import Message
from nexus.runs.failpoints import Failpoints
from nexus.runs.settings import RunsSettings
from nexus.runs.signals import CANCEL, OUTBOX, Ear, PostgresEar, SocketEar
from nexus.storage.db import Database
from nexus.storage.exchange import Answer

log = logging.getLogger(__name__)
_BATCH = 100
_BACKLOG_PAUSE = 0.01
_PATIENCE = 0.25


class Outlet(Protocol):
    """The broker as the dispatcher sees it."""

    def publish(self, messages: Iterable[Message]) -> None:
        """Hand every message over. Raises when it cannot."""
        ...

    def depths(self) -> dict[str, int]:
        """Return how many messages lie in each queue."""
        ...

    def reset(self) -> None:
        """Drop a broken connection."""
        ...


class Dispatcher:
    """Publishes what is due, as soon as it is."""

    def __init__(
        self,
        *,
        database: Database,
        outlet: Outlet,
        ear: SocketEar,
        settings: RunsSettings,
        clock: Clock,
        failpoints: Failpoints,
        on_cancel: Callable[[], None],
    ) -> None:
        """Call `on_cancel` when somebody wants a run to stop."""
        self._database = database
        self._outlet = outlet
        self._ear = ear
        self._settings = settings
        self._clock = clock
        self._failpoints = failpoints
        self._on_cancel = on_cancel
        self._postgres: PostgresEar | None = None
        self._postgres_retry = 0.0
        self._patience = _BACKLOG_PAUSE
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="runs-dispatcher", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Look at the outbox now; from any thread."""
        self._ear.nudge(OUTBOX)

    def stop(self) -> None:
        """Finish the present batch and end."""
        self._stopping.set()
        self.wake()
        self._thread.join(5)
        if self._postgres is not None:
            self._postgres.close()

    def _loop(self) -> None:
        pause = 0.0
        while not self._stopping.is_set():
            if CANCEL in self._listen(pause):
                self._on_cancel()
            try:
                pause = self.publish_due()
            except Exception as error:  # noqa: BLE001  the broker's driver raises what it likes; the rows stay and are tried again
                log.warning("messages cannot be published now: %s", type(error).__name__)
                self._outlet.reset()
                pause = 1.0

    def publish_due(self) -> float:
        """Publish all that is due; return how long to sleep if nothing happens."""
        while not self._stopping.is_set():
            # What lies in the broker cannot be overtaken any more, so little may: the rest takes turns here.
            rooms = {name: self._room(depth) for name, depth in self._outlet.depths().items()}
            full = min(rooms.values()) <= 0
            sent, due = self._batch(rooms)
            if sent == 0 or (not full and sent < min(rooms.values())):
                return self._until(due, full=full and sent == 0)
            self._patience = _BACKLOG_PAUSE
        return 0.0

    def _room(self, depth: int) -> int:
        """Return how many messages a queue may take: none before it is half empty, to send many at a time."""
        return self._settings.in_flight - depth if depth <= self._settings.in_flight // 2 else 0

    def _batch(self, rooms: dict[str, int]) -> tuple[int, datetime | None]:
        """Publish what is due and finds room; return how many, and when the first of the rest is due."""
        now = self._clock.now()
        if not self._database.is_sqlite:
            sent, due = self._database.write_now(self._publish_locked, now, rooms)
            return sent, due.one().first
        # SQLite has one writer: publishing must not hold its lock, and two dispatchers only make duplicates.
        messages = self._database.read_now(queries.due_messages, now, _BATCH, rooms)
        self._hand_over(messages)
        if messages:
            self._database.write_now(queries.delete_messages, [message.outbox_id for message in messages])
        return len(messages), self._database.read_now(queries.next_due).one().first

    def _publish_locked(self, session: Session, now: datetime, rooms: dict[str, int]) -> tuple[int, Answer]:
        messages = queries.due_messages(session, now, _BATCH, rooms)
        self._hand_over(messages)
        queries.delete_messages(session, [message.outbox_id for message in messages])
        return len(messages), queries.next_due(session)

    def _hand_over(self, messages: Sequence[Message]) -> None:
        if messages:
            self._failpoints.reach("before_publish")
            self._outlet.publish(messages)
            self._failpoints.reach("after_publish")

    def _until(self, due: datetime | None, *, full: bool) -> float:
        if due is None:
            return self._settings.poll
        pause = min(self._settings.poll, max(0.0, (due - self._clock.now()).total_seconds()))
        if full and pause < self._patience:
            # A queue that is worked on has room again in a moment; one that nobody works on does not.
            pause, self._patience = self._patience, min(_PATIENCE, 1.5 * self._patience)
        return pause

    def _listen(self, seconds: float) -> set[str]:
        """Sleep until something is heard, at most `seconds`."""
        heard: set[str] = set()
        with selectors.DefaultSelector() as selector:
            for ear in self._ears():
                selector.register(ear, selectors.EVENT_READ)
            for key, _ in selector.select(seconds):
                heard |= self._words(key.fileobj)
        return heard

    def _ears(self) -> list[Ear]:
        if self._database.is_sqlite:
            return [self._ear]
        if self._postgres is None and time.monotonic() >= self._postgres_retry:
            try:
                self._postgres = PostgresEar(self._database)
            except ConnectionError:
                self._postgres_retry = time.monotonic() + 5
        return [self._ear] if self._postgres is None else [self._ear, self._postgres]

    def _words(self, ear: object) -> set[str]:
        if ear is not self._postgres or self._postgres is None:
            return self._ear.words()
        try:
            return self._postgres.words()
        except ConnectionError:
            self._postgres.close()
            self._postgres = None
            return set()
