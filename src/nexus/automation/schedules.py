"""Workflows started by the clock: kept, looked after, fired exactly once however many schedulers look.

A fire is an update of the schedule's next time by compare-and-set, in one transaction with the run that it
starts; the run's idempotency key is the schedule and the time, so that not even a clock that was set back
starts it twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, tzinfo
from itertools import islice
from typing import Any, Final

from sqlalchemy.orm import Session

from nexus.access.types import Principal
from nexus.automation import schedule_storage as queries
from nexus.automation.cron import Cron, zone_of
from nexus.automation.errors import ScheduleNotFound
from nexus.automation.firing import Firing, firing
from nexus.automation.service import AutomationService
from nexus.automation.tables import ScheduleRow
from nexus.core.clock import Clock
from nexus.core.errors import NexusError, NotFound
from nexus.core.ids import new_id
from nexus.runs.errors import QueueFull
from nexus.runs.records import principal_of, starter_of
from nexus.runs.service import RunService
from nexus.runs.types import Run, RunSpec
from nexus.storage.db import Database
from nexus.storage.events import publish

_AT_ONCE: Final = 100
_CLOCK_FIELDS: Final = frozenset({"cron", "timezone"})


class ScheduleService:
    """Schedules of projects; as a ticker of the scheduler it fires them."""

    name = "schedules"

    def __init__(self, *, database: Database, automation: AutomationService, runs: RunService, clock: Clock) -> None:
        """Start runs of `automation`'s workflows."""
        self._database = database
        self._automation = automation
        self._runs = runs
        self._clock = clock

    async def create(
        self, principal: Principal, *, workflow: str, cron: str, timezone: str, name: str | None, **given: Any
    ) -> ScheduleRow:
        """Keep a schedule; its runs have the rights of `principal`.

        `given` are version, inputs, misfire, catch_up_limit, overlap and enabled. Raises `CronInvalid`,
        `WorkflowNotFound`, `InputsInvalid`, `NameTaken`.
        """
        parsed = Cron.parse(cron, timezone)
        # Better to hear of inputs that do not fit now than at three in the morning.
        await self._automation.spec(principal, workflow, given["inputs"], version=given["version"])
        found = await self._automation.get(principal, workflow)
        now, schedule_id = self._clock.now(), new_id("sch")
        values = {
            **given,
            "id": schedule_id,
            "project_id": principal.project_id,
            "name": name or f"{found.name}-{schedule_id[-6:]}",
            "workflow_id": found.id,
            "cron": cron,
            "timezone": timezone,
            "starter": starter_of(principal),
            "next_fire_at": parsed.next(now) if given["enabled"] else None,
            "created_at": now,
            "updated_at": now,
        }
        return await self._database.write(queries.add, values)

    async def get(self, principal: Principal, name_or_id: str) -> ScheduleRow:
        """Return a schedule of the project. Raises `ScheduleNotFound`."""
        row = await self._database.read(queries.get, principal.project_id, name_or_id)
        if row is None:
            raise ScheduleNotFound
        return row

    async def page(
        self,
        principal: Principal,
        *,
        workflow_id: str | None = None,
        after: str | None = None,
        limit: int = 20,
        descending: bool = True,
    ) -> Sequence[ScheduleRow]:
        """Return a page of the project's schedules."""
        return await self._database.read(queries.listed, principal.project_id, after, limit, descending, workflow_id)

    async def change(self, principal: Principal, name_or_id: str, changes: dict[str, Any]) -> ScheduleRow:
        """Change fields of a schedule; it goes on from now when its clock changes or it is enabled again.

        Its runs have from then on the rights of `principal`. Raises as `create` does.
        """
        row = await self.get(principal, name_or_id)
        cron = Cron.parse(changes.get("cron", row.cron), changes.get("timezone", row.timezone))
        if {"inputs", "version"} & changes.keys():
            inputs, version = changes.get("inputs", row.inputs), changes.get("version", row.version)
            await self._automation.spec(principal, row.workflow_id, inputs, version=version)
        now = self._clock.now()
        values = {**changes, "starter": starter_of(principal), "updated_at": now}
        enabled = changes.get("enabled", row.enabled)
        if not enabled:
            values["next_fire_at"] = None
        elif row.next_fire_at is None or _CLOCK_FIELDS & changes.keys():
            values["next_fire_at"] = cron.next(now)
        changed = await self._database.write(queries.change, principal.project_id, row.id, values)
        if changed is None:
            raise ScheduleNotFound
        return changed

    async def delete(self, principal: Principal, name_or_id: str) -> None:
        """Delete a schedule; its runs stay. Raises `ScheduleNotFound`."""
        if not await self._database.write(queries.remove, principal.project_id, name_or_id):
            raise ScheduleNotFound

    async def fire_now(self, principal: Principal, name_or_id: str, *, idempotency_key: str | None = None) -> Run:
        """Start a run of it now, beside its times. Raises `ScheduleNotFound` and what starting raises."""
        row = await self.get(principal, name_or_id)
        trigger = {"type": "schedule", "id": row.id, "fire_at": self._clock.now().isoformat(), "manual": True}
        return await self._automation.start(
            principal,
            row.workflow_id,
            row.inputs,
            version=row.version,
            trigger=trigger,
            idempotency_key=idempotency_key,
        )

    async def upcoming(
        self, principal: Principal, name_or_id: str, *, after: datetime | None, count: int
    ) -> list[datetime]:
        """Return the next `count` times after `after` (now). Raises `ScheduleNotFound`."""
        row = await self.get(principal, name_or_id)
        return list(islice(Cron.parse(row.cron, row.timezone).fires(after or self._clock.now()), count))

    def zone(self, row: ScheduleRow) -> tzinfo:
        """Return the zone that a schedule lives in."""
        return zone_of(row.timezone)

    async def tick(self) -> float | None:
        """Fire what is due; return the seconds until something will be, if that is soon.

        While the queues are full, what is due waits, and its misfire policy says what is made up for. Raises
        `QueueFull` then.
        """
        while True:
            rows = await self._database.read(queries.due, self._clock.now(), _AT_ONCE)
            for row in rows:
                await self._fire(row)
            if len(rows) < _AT_ONCE:
                break
        soonest = await self._database.read(queries.next_due)
        left = None if soonest is None else (soonest - self._clock.now()).total_seconds()
        return left if left is not None and left < 1 else None

    async def _fire(self, row: ScheduleRow) -> None:
        """Do what is due of one schedule. Nothing happens where another scheduler was faster."""
        assert row.next_fire_at is not None
        now = self._clock.now()
        todo = firing(Cron.parse(row.cron, row.timezone), row.next_fire_at, now, row.misfire, row.catch_up_limit)  # type: ignore[arg-type]
        principal = principal_of(row.project_id, row.starter)
        specs: list[RunSpec] = []
        error: dict[str, Any] | None = None
        try:
            specs = [await self._spec(row, principal, fire) for fire in todo.fires]
        except NexusError as problem:
            error = _said(problem, now)
        if specs:
            await self._wait_while_full(row, now)
        done = await self._database.write(self._commit, row, principal, todo, specs, error)
        if done is None:
            return
        started, earlier = done
        if started:
            self._runs.ring()
        for run_id in earlier:
            with contextlib.suppress(NotFound):
                await self._runs.cancel(principal, run_id)

    async def _wait_while_full(self, row: ScheduleRow, now: datetime) -> None:
        """Leave a schedule due, and say so once, where no run is taken. Raises `QueueFull`."""
        try:
            await self._runs.refuse_when_full()
        except QueueFull as full:
            if (row.last_error or {}).get("code") != full.code:
                await self._database.write(queries.note, row.id, {"last_error": _said(full, now)})
            raise

    async def _spec(self, row: ScheduleRow, principal: Principal, fire: datetime) -> RunSpec:
        trigger = {"type": "schedule", "id": row.id, "name": row.name, "fire_at": fire.isoformat()}
        spec = await self._automation.spec(
            principal,
            row.workflow_id,
            row.inputs,
            version=row.version,
            idempotency_key=f"schedule:{row.id}:{fire:%Y%m%dT%H%M%SZ}",
            trigger=trigger,
        )
        # Its runs stand in a line of their own, one at a time.
        return replace(spec, lane=row.id, concurrency=1) if row.overlap == "queue" else spec

    def _commit(
        self,
        session: Session,
        row: ScheduleRow,
        principal: Principal,
        todo: Firing,
        specs: list[RunSpec],
        error: dict[str, Any] | None,
    ) -> tuple[list[str], Sequence[str]] | None:
        """Move the schedule on and start its runs; return them and those to cancel.

        None when another scheduler has done it.
        """
        moved = {"next_fire_at": todo.next, "last_error": error, "updated_at": row.updated_at}
        if not queries.advance(session, row, moved):
            return None
        started: list[str] = []
        looks = row.overlap in ("skip", "cancel")
        earlier = queries.unfinished(session, row.project_id, row.id) if looks else ()
        fires = list(zip(todo.fires, specs, strict=False))
        if row.overlap == "cancel":
            fires = fires[-1:]  # each would cancel the one before
        for fire, spec in fires:
            if row.overlap == "skip" and (earlier or started):
                self._tell(session, row, "schedule.skipped", {"fire_at": fire.isoformat(), "reason": "overlap"})
                continue
            run, created = self._runs.start_in(session, principal, spec)
            if created:
                started.append(run.id)
                self._tell(session, row, "schedule.fired", {"fire_at": fire.isoformat(), "run_id": run.id})
        if todo.missed:
            assert row.next_fire_at is not None
            missed = {"count": todo.missed, "misfire": row.misfire, "fire_at": row.next_fire_at.isoformat()}
            self._tell(session, row, "schedule.missed", missed)
        if error is not None:
            self._tell(session, row, "schedule.failed", {"error": error})
        if started:
            last = {"last_fire_at": todo.fires[-1], "last_run_id": started[-1], "fired": row.fired + len(started)}
            queries.note(session, row.id, last)
        return started, earlier if row.overlap == "cancel" and started else ()

    def _tell(self, session: Session, row: ScheduleRow, type_: str, data: dict[str, Any]) -> None:
        publish(session, type_, row.project_id, {"schedule": row.name, **data}, at=self._clock.now(), subject=row.id)


def _said(problem: NexusError, now: datetime) -> dict[str, Any]:
    return {"code": problem.code, "message": problem.message, "at": now.isoformat()}
