"""Starting, watching and steering runs: the API's side. It speaks to the database and never to a broker.

run = await runs.start(principal, RunSpec(kind="train", name="churn", steps=[StepSpec("fit", "analytics.train")]))
run = await runs.wait(principal, run.id, seconds=10)
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from sqlalchemy.orm import Session

from nexus.access.types import Principal, Scope
from nexus.core.clock import Clock, SystemClock
from nexus.core.errors import Forbidden
from nexus.runs import steering, storage, timeline
from nexus.runs.errors import IdempotencyKeyReused, QueueFull, RunFinished, RunNotWaiting
from nexus.runs.graph import check, fingerprint
from nexus.runs.records import event_of, step_of
from nexus.runs.settings import RunsSettings
from nexus.runs.signals import CANCEL, OUTBOX, Bell
from nexus.runs.types import Run, RunCounts, RunEvent, RunSpec, RunStatus, Step
from nexus.storage.db import Database
from nexus.storage.exchange import exchange_of

LOG_TYPES: Final = ("log",)
ARTIFACT_TYPES: Final = ("artifact",)
HISTORY_TYPES: Final = ("step.started", *timeline.ENDS)
_EVENT_BATCH: Final = 500
_FULL_CHECK: Final = 1.0


class RunService:
    """Durable work as the rest of NEXUS sees it.

    Whoever started a run may read and steer it. For the runs of others in the same project
    `automation:read` is needed to read and `automation:run` to steer; without it they are not found.
    """

    def __init__(self, *, database: Database, settings: RunsSettings, clock: Clock | None = None) -> None:
        """Write to `database` and wake the engines of `settings.data_dir`."""
        self._database = database
        self._settings = settings
        self._clock = clock or SystemClock()
        self._bell = Bell(settings.data_dir if database.is_sqlite else None)
        self._room = Room(database, settings.queue_limit)

    async def start(self, principal: Principal, spec: RunSpec) -> Run:
        """Start a run, or return the one that was started with the same idempotency key.

        Raises `InvalidRunSpec`, `IdempotencyKeyReused` (same key, different request), `QueueFull`.
        """
        self.check(spec)
        wanted = fingerprint(spec)
        # The child of a run that was taken belongs to it: refused, it would fail what is half done.
        if spec.parent is None:
            await self.refuse_when_full()
        run, digest, created = await self._database.write(
            storage.add_run, spec, principal, self._clock.now(), self._settings.republish, wanted
        )
        if created:
            self._bell.ring(OUTBOX)
            return run
        if digest != wanted:
            raise IdempotencyKeyReused(field="idempotency_key")
        return run

    def check(self, spec: RunSpec) -> None:
        """Raise `InvalidRunSpec`, naming the field, unless a run can be made of `spec`."""
        check(spec, queues=self._settings.queues, step_limit=self._settings.step_limit)

    def start_in(self, session: Session, principal: Principal, spec: RunSpec) -> tuple[Run, bool]:
        """Start a run as part of a transaction of the caller's; tell whether it is a new one.

        For schedules and triggers: the run is there if and only if what it was started for is marked as
        done. Call `refuse_when_full` before and `ring` after. Raises `InvalidRunSpec`.
        """
        self.check(spec)
        run, _, created = storage.add_run(session, spec, principal, self._clock.now(), self._settings.republish)
        exchange_of(session).send()
        return run, created

    def ring(self) -> None:
        """Wake the engines: runs were started by `start_in`."""
        self._bell.ring(OUTBOX)

    async def refuse_when_full(self) -> None:
        """Raise `QueueFull` while so many steps wait for a worker that no further run is taken."""
        if not await self._room.left():
            raise QueueFull(retry_after=5)

    async def get(self, principal: Principal, run_id: str) -> Run:
        """Return a run with its steps. Raises `RunNotFound`."""
        return await self._database.read(storage.run_with_steps, principal.project_id, run_id, **_readable(principal))

    async def list(
        self,
        principal: Principal,
        *,
        kind: str | None = None,
        name: str | None = None,
        status: RunStatus | None = None,
        after: str | None = None,
        limit: int = 20,
        newest_first: bool = True,
    ) -> Sequence[Run]:
        """Return up to `limit` runs without their steps, beginning behind the run `after`."""
        return await self._database.read(
            storage.list_runs,
            principal.project_id,
            kind=kind,
            name=name,
            status=status,
            after=after,
            limit=limit,
            newest_first=newest_first,
            **_readable(principal),
        )

    async def steps(self, principal: Principal, run_id: str) -> Sequence[Step]:
        """Return the steps of a run in the order of its description. Raises `RunNotFound`."""
        return (await self.get(principal, run_id)).steps

    async def items(
        self, principal: Principal, run_id: str, key: str, *, after: int = -1, limit: int = 100
    ) -> Sequence[Step]:
        """Return up to `limit` items of a mapped step behind the index `after`. Raises `RunNotFound`."""
        await self._database.read(storage.run_status, principal.project_id, run_id, **_readable(principal))
        rows = await self._database.read(storage.items_page, run_id, key, after, limit)
        return [step_of(row) for row in rows]

    async def artifacts(
        self, principal: Principal, run_id: str, *, after: int = 0, limit: int = 100
    ) -> Sequence[RunEvent]:
        """Return up to `limit` notes of files that steps have written, oldest first. Raises `RunNotFound`."""
        return await self._lines(principal, run_id, after, limit, ARTIFACT_TYPES)

    async def history(self, principal: Principal, run_id: str, *, limit: int) -> Sequence[RunEvent]:
        """Return the first `limit` lines of a run that say how its steps went. Raises `RunNotFound`."""
        return await self._lines(principal, run_id, 0, limit, HISTORY_TYPES)

    async def wait(self, principal: Principal, run_id: str, seconds: float) -> Run:
        """Return the run as soon as it has ended, or as it stands after `seconds`. Raises `RunNotFound`."""
        end = time.monotonic() + seconds
        pause = 0.005
        while True:
            status = await self._database.read(storage.run_status, principal.project_id, run_id, **_readable(principal))
            left = end - time.monotonic()
            if status.final or left <= 0:
                return await self.get(principal, run_id)
            await asyncio.sleep(min(pause, left))
            pause = min(0.25, pause * 1.5)

    async def cancel(self, principal: Principal, run_id: str) -> Run:
        """Ask a run and its child runs to stop; running steps stop within about a second.

        Raises `RunNotFound`, `RunFinished`.
        """
        await self._may_steer(principal, run_id)
        now, republish = self._clock.now(), self._settings.republish
        run = await self._database.write(steering.request_cancel, principal.project_id, run_id, now, republish)
        # Should this be cut short, an engine finds the orphans.
        async for project_id, child_id in self._descendants(run_id):
            with contextlib.suppress(RunFinished):
                await self._database.write(steering.request_cancel, project_id, child_id, now, republish)
        self._bell.ring(CANCEL)
        return run

    async def pause(self, principal: Principal, run_id: str) -> Run:
        """Begin no further step of a run and its child runs; those that run go on to their end.

        Raises `RunNotFound`, `RunFinished`.
        """
        await self._may_steer(principal, run_id)
        run = await self._database.write(steering.pause_run, principal.project_id, run_id, self._clock.now())
        async for project_id, child_id in self._descendants(run_id):
            with contextlib.suppress(RunFinished):
                await self._database.write(steering.pause_run, project_id, child_id, self._clock.now())
        return run

    async def retry(self, principal: Principal, run_id: str, begin: str | None = None) -> Run:
        """Execute again what failed or was cancelled, the step `begin` too, and all behind it; the rest stays.

        Raises `RunNotFound`, `RunNotFinished`, `StepNotFound`.
        """
        await self._may_steer(principal, run_id)
        run = await self._database.write(
            steering.retry_run, principal.project_id, run_id, self._clock.now(), self._settings.republish, begin
        )
        self._bell.ring(OUTBOX)
        return run

    async def resume(self, principal: Principal, run_id: str, step: str | None = None) -> Run:
        """Let a paused run and its child runs go on; of one that is not paused, execute waiting steps now.

        Raises `RunNotFound`, `RunNotWaiting`.
        """
        await self._may_steer(principal, run_id)
        now, republish = self._clock.now(), self._settings.republish
        if step is not None or not (await self.get(principal, run_id)).paused:
            return await self.signal(principal, run_id, step, None)
        run = await self._database.write(steering.resume_run, principal.project_id, run_id, now, republish)
        async for project_id, child_id in self._descendants(run_id):
            with contextlib.suppress(RunNotWaiting):
                await self._database.write(steering.resume_run, project_id, child_id, now, republish)
        self._bell.ring(OUTBOX)
        return run

    async def _descendants(self, run_id: str) -> AsyncIterator[tuple[str, str]]:
        """Yield `(project id, run id)` of the runs below a run that have not ended."""
        below = [run_id]
        while below:
            for project_id, child_id in await self._database.read(steering.live_children, below.pop()):
                below.append(child_id)
                yield project_id, child_id

    async def signal(self, principal: Principal, run_id: str, step: str | None, data: dict[str, Any] | None) -> Run:
        """Wake waiting steps and hand them `data` as `context.signal`.

        Raises `RunNotFound`, `StepNotFound`, `RunNotWaiting`.
        """
        await self._may_steer(principal, run_id)
        run = await self._database.write(
            steering.wake_waiting,
            principal.project_id,
            run_id,
            self._clock.now(),
            self._settings.republish,
            key=step,
            signal=data,
        )
        self._bell.ring(OUTBOX)
        return run

    async def _may_steer(self, principal: Principal, run_id: str) -> None:
        run = await self._database.read(storage.run_alone, principal.project_id, run_id, **_readable(principal))
        if run.principal_id != principal.id and not principal.may(Scope.AUTOMATION_RUN):
            raise Forbidden(f"This needs the scope {Scope.AUTOMATION_RUN.value}.", scope=Scope.AUTOMATION_RUN.value)

    async def events(
        self, principal: Principal, run_id: str, *, after: int = 0, poll: float = 0.2
    ) -> AsyncIterator[RunEvent]:
        """Yield the timeline of a run behind the event `after`, live, until the run has ended.

        Raises `RunNotFound` at the first step of the iteration.
        """
        pause = poll / 4
        while True:
            # The status is read first: what was written before the end is then surely among the rows.
            status = await self._database.read(storage.run_status, principal.project_id, run_id, **_readable(principal))
            rows = await self._database.read(storage.events_after, run_id, after, _EVENT_BATCH)
            for row in rows:
                yield event_of(row)
                after = row.id
            if not rows and status.final:
                return
            if not rows:
                await asyncio.sleep(pause)
            pause = poll / 4 if rows else min(poll, 1.5 * pause)

    async def logs(
        self, principal: Principal, run_id: str, *, step: str | None = None, after: int = 0, limit: int = 100
    ) -> Sequence[RunEvent]:
        """Return up to `limit` log lines behind the event `after`, oldest first. Raises `RunNotFound`."""
        return await self._lines(principal, run_id, after, limit, LOG_TYPES, step)

    async def _lines(
        self, principal: Principal, run_id: str, after: int, limit: int, types: Sequence[str], step: str | None = None
    ) -> Sequence[RunEvent]:
        await self._database.read(storage.run_status, principal.project_id, run_id, **_readable(principal))
        rows = await self._database.read(storage.events_after, run_id, after, limit, types=types, step=step)
        return [event_of(row) for row in rows]

    async def counts(self) -> RunCounts:
        """Return how much work waits and runs, over all projects: for metrics and alerts."""
        return await self._database.read(storage.counts, self._clock.now())

    async def stop(self) -> None:
        """Close the socket that wakes engines."""
        self._bell.close()


class Room:
    """How much work may still be taken, looked up once a second at most."""

    def __init__(self, database: Database, limit: int) -> None:
        """Let `limit` steps wait for a worker."""
        self._database, self._limit = database, limit
        self._waiting = 0
        self.looked = float("-inf")
        """When the figure was read (monotonic)."""

    async def left(self) -> bool:
        """Tell whether there is any."""
        now = time.monotonic()
        if now - self.looked >= _FULL_CHECK:
            self.looked = now
            self._waiting = await self._database.read(storage.ready_steps, self._limit)
        return self._waiting < self._limit


def _readable(principal: Principal) -> dict[str, str | None]:
    """Return the filter that leaves what the principal may read."""
    return {"principal_id": None if principal.may(Scope.AUTOMATION_READ) else principal.id}
