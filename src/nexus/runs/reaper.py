"""Finds work that was lost and hands it out again. Every engine has one; many at once do no harm."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from nexus.core.clock import Clock
from nexus.core.ids import new_id
from nexus.runs import engine_storage as queries
from nexus.runs import steering, storage
from nexus.runs.completion import give_back
from nexus.runs.engine_storage import Terms
from nexus.runs.errors import RunFinished
from nexus.runs.settings import RunsSettings
from nexus.runs.signals import Presence
from nexus.runs.types import Failure
from nexus.storage.db import Database, DatabaseUnavailable

log = logging.getLogger(__name__)
_BATCH: Final = 200
_HELD: Final = 2000
_LATE: Final = Failure("run_deadline_exceeded", "The run did not end before its deadline.")


class Reaper:
    """Collects steps of dead engines, sends forgotten messages again, stops overdue runs."""

    def __init__(
        self,
        *,
        database: Database,
        presence: Presence,
        settings: RunsSettings,
        terms: Terms,
        clock: Clock,
        wake: Callable[[], None],
        on_cancel: Callable[[], None],
    ) -> None:
        """Call `wake` after writing messages, `on_cancel` after stopping a run."""
        self._database = database
        self._presence = presence
        self._settings = settings
        self._terms = terms
        self._clock = clock
        self._wake = wake
        self._on_cancel = on_cancel
        self._name = new_id("rpr")
        self._stopping = threading.Event()
        self._offset = self._clock_offset()
        self._grace_until = 0.0
        self._thread = threading.Thread(target=self._loop, name="runs-reaper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join(5)

    def _loop(self) -> None:
        while not self._stopping.wait(self._settings.reap):
            try:
                self.sweep()
            except DatabaseUnavailable:
                log.warning("the database is away; lost work cannot be looked for")
            except Exception:
                # Without this thread nothing would ever be recovered: it must outlive any surprise.
                log.exception("the reaper stumbled")

    def sweep(self) -> int:
        """Do everything once; return how many steps were handed out again."""
        now = self._clock.now()
        found = self._collect_dead_peers()
        # One engine at a time is enough for the rest.
        if self._database.write_now(storage.take_lease, "runs.reaper", self._name, now, 5 * self._settings.reap):
            self._database.write_now(queries.mend_leases, now, self._settings.lease)
            if not self._clock_jumped():
                found += self._collect_expired()
            found += self._database.write_now(queries.republish, now, self._settings.republish, _BATCH)
            self._stop_overdue()
            self._forget()
        if found:
            self._wake()
        return found

    def _collect_dead_peers(self) -> int:
        found = 0
        for owner in self._presence.dead_peers():
            found += self._give_back(self._database.read_now(queries.steps_held_by, owner))
            if self._settings.broker_url is None:
                # Its broker died with it, and the messages in there that nobody had taken yet.
                found += self._database.write_now(
                    queries.republish, self._clock.now(), self._settings.republish, _HELD, all_at_once=True
                )
            self._presence.bury(owner)
        return found

    def _collect_expired(self) -> int:
        return self._give_back(self._database.read_now(queries.lost_steps, self._clock.now(), _BATCH))

    def _give_back(self, lost: list[tuple[str, str, int]]) -> int:
        return sum(
            self._database.write_now(give_back, run_id, step_id, epoch, self._clock.now(), self._terms)
            for run_id, step_id, epoch in lost
        )

    def _stop_overdue(self) -> None:
        now = self._clock.now()
        overdue = self._database.read_now(queries.overdue_runs, now, _BATCH)
        for project_id, run_id in overdue:
            with contextlib.suppress(RunFinished):
                self._database.write_now(
                    steering.request_cancel, project_id, run_id, now, self._settings.republish, _LATE
                )
        orphans = self._database.read_now(steering.orphans, _BATCH)
        for project_id, run_id in orphans:
            with contextlib.suppress(RunFinished):
                self._database.write_now(steering.request_cancel, project_id, run_id, now, self._settings.republish)
        if overdue or orphans:
            self._on_cancel()

    def _forget(self) -> None:
        """Delete some of what is older than `keep_days`, a little at each sweep."""
        if self._settings.keep_days is not None:
            before = self._clock.now() - timedelta(days=self._settings.keep_days)
            self._database.write_now(storage.forget_runs, before, _BATCH)

    def _clock_offset(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()

    def _clock_jumped(self) -> bool:
        """Tell whether the wall clock leapt lately (set, or the machine slept): leases then only seem over."""
        offset = self._clock_offset()
        if abs(offset - self._offset) > self._settings.lease / 2:
            self._grace_until = self._clock.monotonic() + self._settings.lease
        self._offset = offset
        return self._clock.monotonic() < self._grace_until
