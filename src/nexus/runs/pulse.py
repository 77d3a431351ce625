"""One thread of each engine that keeps its leases, brings it cancellations, and stores what steps say."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final

from nexus.core.clock import Clock
from nexus.runs import engine_storage as queries
from nexus.runs.attempt import Attempt
from nexus.runs.executor import Executor
from nexus.runs.settings import RunsSettings
from nexus.storage.db import Database, DatabaseUnavailable

log = logging.getLogger(__name__)
_TICK: Final = 0.25
_CANCEL_CHECK: Final = 2.0


class Pulse:
    """Renews leases each `heartbeat`, looks for cancelled runs each 2 s or when told, flushes each 250 ms."""

    def __init__(self, *, executor: Executor, database: Database, settings: RunsSettings, clock: Clock) -> None:
        """Care for what `executor` runs."""
        self._executor = executor
        self._database = database
        self._settings = settings
        self._clock = clock
        self._woken = threading.Event()
        self._stopping = False
        self._cancel_wanted = False
        self._thread = threading.Thread(target=self._loop, name="runs-pulse", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def check_cancels(self) -> None:
        """Look for cancelled runs now; from any thread."""
        self._cancel_wanted = True
        self._woken.set()

    def stop(self) -> None:
        """Flush a last time and end."""
        self._stopping = True
        self._woken.set()
        self._thread.join(5)

    def _loop(self) -> None:
        beat = cancel = time.monotonic()
        while not self._stopping:
            self._woken.wait(_TICK)
            self._woken.clear()
            now = time.monotonic()
            try:
                if now - beat >= self._settings.heartbeat:
                    beat = now
                    self.renew()
                if self._cancel_wanted or now - cancel >= _CANCEL_CHECK:
                    self._cancel_wanted, cancel = False, now
                    self.halt_cancelled()
                self.flush()
            except DatabaseUnavailable:
                log.warning("the database is away; leases cannot be renewed")
            except Exception:
                # Without this thread every lease of the engine would lapse: it must outlive any surprise.
                log.exception("the pulse of the engine stumbled")

    def renew(self) -> None:
        """Renew all leases, and stop the attempts that have lost theirs."""
        attempts = list(self._executor.running.values())
        if not attempts:
            return
        ids = [attempt.claimed.step_id for attempt in attempts]
        held = self._database.write_now(
            queries.renew, self._executor.owner, ids, self._clock.now(), self._settings.lease
        )
        for attempt in attempts:
            if held.get(attempt.claimed.step_id) != attempt.claimed.epoch:
                attempt.halt("lost")

    def halt_cancelled(self) -> None:
        """Stop the attempts whose runs somebody has cancelled."""
        attempts = [attempt for attempt in list(self._executor.running.values()) if attempt.stop is None]
        if not attempts:
            return
        runs = {attempt.claimed.run_id for attempt in attempts}
        cancelled = self._database.read_now(queries.cancelled_among, runs)
        for attempt in attempts:
            if attempt.claimed.run_id in cancelled:
                attempt.halt("cancelled")

    def flush(self) -> None:
        """Store the log lines and the progress of all attempts."""
        for attempt in list(self._executor.running.values()):
            # An attempt that is ending stores its own last lines.
            if attempt.writing.acquire(blocking=False):
                try:
                    self._flush(attempt)
                finally:
                    attempt.writing.release()

    def _flush(self, attempt: Attempt) -> None:
        lines, progress = attempt.take()
        if not lines:
            return
        claimed = attempt.claimed
        newest: dict[tuple[str, int], dict[str, Any]] = {}
        if progress is not None:
            newest[claimed.step_id, claimed.epoch] = progress
        try:
            self._database.write_now(queries.add_lines, lines, newest)
        except DatabaseUnavailable:
            attempt.put_back(lines)
            raise
