"""Carries records from the journal into the database, in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError, StatementError

from nexus.core.errors import Unavailable
from nexus.ledger import storage
from nexus.ledger.journal import Journal, decode, encode, read_lines
from nexus.ledger.settings import LedgerSettings
from nexus.ledger.types import Invocation
from nexus.storage.db import Database

log = logging.getLogger(__name__)

Observe = Callable[[str, float], None]
"""Told what happened: `written`, `rejected`, `torn`, `unjournaled`, `lost`, `retries` (counts) and `flush_seconds`."""

_LONGEST_PAUSE = 5.0
_MOST_IN_MEMORY = 10_000
_REFUSALS = (StatementError, msgspec.DecodeError, OverflowError, ValueError, TypeError)


def _ignore(_name: str, _value: float) -> None:
    """Observe nothing."""


class Batcher:
    """Flushes the journal every 250 ms or 500 rows, and retries for as long as the database is away."""

    def __init__(
        self, database: Database, journal: Journal, settings: LedgerSettings, observe: Observe | None = None
    ) -> None:
        """Do nothing before `start` or `drain`."""
        self._database = database
        self._journal = journal
        self._settings = settings
        self._observe = observe or _ignore
        self.wakes_at = (1, settings.flush_rows)
        """The counts of rows that `rows_waiting` has to hear of."""
        self._mutex = threading.Lock()
        self._something = threading.Event()
        self._enough = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._unjournaled: list[Invocation] = []

    def keep_in_memory(self, invocation: Invocation) -> None:
        """Take a record that the journal has no room for; it is written with the next flush."""
        if len(self._unjournaled) >= _MOST_IN_MEMORY:
            self._observe("lost", 1)
            return
        if not self._unjournaled:
            log.error("the ledger's journal cannot be written (disk full?); records are held in memory")
        self._unjournaled.append(invocation)
        self._observe("unjournaled", 1)
        self._something.set()

    def rows_waiting(self, count: int) -> None:
        """Hear from `record` that the open segment holds `count` rows."""
        if count == 1:
            self._something.set()
        elif count == self._settings.flush_rows:
            self._enough.set()

    def start(self) -> None:
        """Start the thread; it adopts the journals of dead processes first."""
        if self._thread is None:
            self._stopping.clear()
            # The first round comes at once: what a dead process left must not wait for new calls.
            self._something.set()
            self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread and flush once more; what the database will not take now stays in the journal."""
        if self._thread is not None:
            for event in (self._stopping, self._something, self._enough):
                event.set()
            self._thread.join(self._settings.drain_seconds)
            self._thread = None
        try:
            self.drain()
        except (Unavailable, SQLAlchemyError):
            log.warning("the ledger is kept in its journal: the database did not answer at shutdown")

    def _run(self) -> None:
        failures = 0
        next_replay = 0.0
        while not self._stopping.is_set():
            self._something.wait(_pause(failures) if failures else self._settings.replay_seconds)
            self._something.clear()
            self._enough.wait(self._settings.flush_seconds)
            self._enough.clear()
            try:
                self.drain()
                if time.monotonic() >= next_replay:
                    self.replay()
                    next_replay = time.monotonic() + self._settings.replay_seconds
                failures = 0
            except (Unavailable, SQLAlchemyError, OSError) as error:
                # Nothing is lost: the segment stays, and is tried again until the database takes it.
                failures += 1
                self._observe("retries", 1)
                if failures in (1, 10, 100):
                    log.warning("the ledger waits for the database (%s, attempt %d)", type(error).__name__, failures)
                self._stopping.wait(_pause(failures))

    def drain(self) -> int:
        """Write everything recorded before this call to the database; return how many rows.

        Raises `DatabaseUnavailable` when it does not answer; nothing is lost then.
        """
        with self._mutex:
            began = time.monotonic()
            if waiting := self._unjournaled[:]:
                self._insert(waiting)
                del self._unjournaled[: len(waiting)]
            written = len(waiting) + sum(self._write_segment(path) for path in self._journal.seal())
            if written:
                self._observe("flush_seconds", time.monotonic() - began)
            return written

    def replay(self) -> int:
        """Write what dead processes left behind; rows that are there already stay as they are."""
        with self._mutex:
            return sum(self._write_segment(path) for path in self._journal.adopt())

    def _write_segment(self, path: Path) -> int:
        lines = read_lines(path)
        at_once = self._settings.flush_rows
        written = sum(self._write_lines(lines[start : start + at_once]) for start in range(0, len(lines), at_once))
        path.unlink(missing_ok=True)
        if written:
            self._observe("written", written)
        return written

    def _write_lines(self, lines: list[bytes]) -> int:
        try:
            self._database.write_now(storage.add_lines, lines)
        except _REFUSALS as error:
            if not _is_refusal(error):
                raise
        else:
            return len(lines)
        rows = [row for line in lines if (row := decode(line)) is not None]
        if torn := sum(1 for line in lines if line.strip(b"\0")) - len(rows):
            self._observe("torn", torn)
            log.warning("the ledger's journal held %d torn line(s)", torn)
        if rows:
            self._insert(rows)
        return len(rows)

    def _insert(self, rows: list[Invocation]) -> None:
        try:
            self._database.write_now(storage.add_invocations, rows)
        except _REFUSALS as error:
            if not _is_refusal(error):
                raise
            if len(rows) > 1:
                for row in rows:
                    self._insert([row])
            elif rows[0].details:
                rows[0].details = {}
                self._insert(rows)
            else:
                self._reject(rows[0])

    def _reject(self, row: Invocation) -> None:
        """Keep a row that no database would take where a person can look at it."""
        with (self._journal.root / "rejected.jsonl").open("ab") as file:
            file.write(encode(row))
        self._observe("rejected", 1)
        log.error("the database refused the ledger row %s; it is kept in rejected.jsonl", row.id)


def _is_refusal(error: Exception) -> bool:
    """Tell a row that cannot be stored from a database that cannot be used at the moment."""
    plain = not isinstance(error, SQLAlchemyError) or type(error) is StatementError
    return plain or isinstance(error, (DataError, IntegrityError))


def _pause(failures: int) -> float:
    return min(_LONGEST_PAUSE, 0.25 * 2.0 ** min(failures, 8))
