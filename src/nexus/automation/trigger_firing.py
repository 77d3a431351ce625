"""What happens at a trigger: something arrives, is kept, and starts a run; once, however often it is told.

A delivery is a row with the sender's id under a unique key. What comes in at a door is decided on before the answer
and kept in one transaction with the run that it starts. What happens inside NEXUS is first put down for every
trigger that listens, in the transaction that moves the reader of events on, and decided on right after.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nexus.automation import trigger_storage as queries
from nexus.automation.chains import DEEPEST, depth_of
from nexus.automation.errors import ExpressionError, HookNotFound, HookReplayed, InputsInvalid
from nexus.automation.expressions import holds
from nexus.automation.service import AutomationService
from nexus.automation.templates import render, unwrapped
from nexus.automation.trigger import TRIGGERS, Arrival
from nexus.automation.trigger_tables import TriggerDeliveryRow, TriggerRow
from nexus.core.cause import run_behind
from nexus.core.clock import Clock
from nexus.core.errors import NexusError, NotFound
from nexus.core.ids import new_id
from nexus.runs.errors import QueueFull
from nexus.runs.records import principal_of
from nexus.runs.service import RunService
from nexus.runs.types import RunSpec
from nexus.storage.db import Database
from nexus.storage.events import Event, Events, publish

log = logging.getLogger(__name__)

_AT_ONCE: Final = 100
_LOOP: Final = "loop"
_HOUR: Final = 3_600.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to come of a delivery: a run of `spec`, or nothing, and why."""

    spec: RunSpec | None = None
    reason: str | None = None
    error: dict[str, Any] | None = None

    @property
    def outcome(self) -> str:
        """Return the word for it."""
        return "started" if self.spec else "failed" if self.error else "skipped"


class TriggerFiring:
    """Starts the runs of triggers; as a ticker of the scheduler it hears what happens inside NEXUS."""

    name = "triggers"

    def __init__(
        self,
        *,
        database: Database,
        automation: AutomationService,
        runs: RunService,
        events: Events,
        clock: Clock,
        keep_days: float = 30,
    ) -> None:
        """Start runs of `automation`'s workflows; forget deliveries after `keep_days`."""
        self._database = database
        self._automation = automation
        self._runs = runs
        self._events = events
        self._clock = clock
        self._keep = timedelta(days=keep_days)
        self._swept = -_HOUR

    async def receive(self, row: TriggerRow, arrival: Arrival) -> tuple[TriggerDeliveryRow, bool]:
        """Keep what came in at a door and start its run; tell whether it is new.

        One that has started a run or was left out before is returned as it is; one that had failed is tried
        again. Raises `HookReplayed`, and what is only for now, such as `QueueFull`.
        """
        event = {"id": arrival.id, "at": self._clock.now().isoformat(), **arrival.event}
        cause = run_behind()
        depth = 0 if cause is None else await self._database.read(depth_of, {"caused_by": cause})
        decision = await self.decide(row, arrival.id, event, depth)
        if decision.spec is not None:
            try:
                await self._runs.refuse_when_full()
            except QueueFull:
                # Nothing is kept of what is refused, so the sender's repetition is as good as new.
                if not await self._database.read(queries.is_settled, row.id, arrival.id):
                    raise
        try:
            delivery, new, earlier = await self._database.write(self._take_in, row, arrival, event, depth, decision)
        except IntegrityError:
            raise HookNotFound from None  # the trigger was deleted at this moment
        await self._after(row, delivery, earlier)
        return delivery, new

    async def again(self, row: TriggerRow, delivery: TriggerDeliveryRow) -> TriggerDeliveryRow:
        """Decide once more on a delivery that has started nothing. Raises `QueueFull`."""
        decision = await self.decide(row, delivery.key, delivery.event, delivery.depth)
        if decision.spec is not None:
            await self._runs.refuse_when_full()
        return await self._finish(row, delivery.id, decision, ("failed", "skipped", "pending"))

    async def tick(self) -> float | None:
        """Hear what has happened, start what it starts, and forget what is old.

        While the queues are full, what would start a run stays pending. Raises `QueueFull` then.
        """
        while await self._events.consume(self.name, self._hear, _AT_ONCE) == _AT_ONCE:
            pass
        while waiting := await self._database.read(queries.pending, _AT_ONCE):
            for row, delivery in waiting:
                decision = await self.decide(row, delivery.key, delivery.event, delivery.depth)
                if decision.spec is not None:
                    await self._runs.refuse_when_full()
                await self._finish(row, delivery.id, decision, ("pending",))
        if self._clock.monotonic() - self._swept >= _HOUR:
            self._swept = self._clock.monotonic()
            await self._database.write(queries.forget, self._clock.now() - self._keep)
        return None

    async def decide(self, row: TriggerRow, key: str, event: Mapping[str, Any], depth: int) -> Decision:
        """Return what is to come of an event. Raises only what may be over in a moment."""
        if depth >= DEEPEST:
            return Decision(reason=_LOOP)
        scope = {"event": event, "trigger": {"id": row.id, "name": row.name, "kind": row.kind}}
        try:
            if row.condition is not None and not wanted(row.condition, scope):
                return Decision(reason="when")
            spec = await self._spec(row, key, event, scope, depth)
        except NexusError as problem:
            if problem.retryable:
                raise
            at = self._clock.now().isoformat()
            found = {"code": problem.code, "message": problem.message, "field": problem.field, "at": at}
            return Decision(error=found)
        return Decision(spec)

    async def _spec(
        self, row: TriggerRow, key: str, event: Mapping[str, Any], scope: dict[str, Any], depth: int
    ) -> RunSpec:
        told = {"type": row.kind, "id": row.id, "name": row.name, "event": event["type"], "event_id": event["id"]}
        spec = await self._automation.spec(
            principal_of(row.project_id, row.starter),
            row.workflow_id,
            rendered(row.inputs, scope),
            version=row.version,
            # The sender's own id may be of any length.
            idempotency_key=f"trigger:{row.id}:{hashlib.sha256(key.encode()).hexdigest()}",
            trigger={**told, "depth": depth + 1},
        )
        return replace(spec, lane=row.id, concurrency=1) if row.overlap == "queue" else spec

    def _hear(self, session: Session, event: Event) -> None:
        """Put an event down for every trigger of its project that wants it."""
        if event.project_id is None:
            return
        for row in queries.listening(session, event.project_id, _LISTENERS):
            plug = TRIGGERS.get(row.kind)
            config = plug.Config.model_validate(row.config)
            shown = {**_shown(event)}
            named = any(fits(pattern, event.type) for pattern in plug.types(config))
            if not named or event.at < row.created_at or not plug.admits(config, shown):
                continue
            values = self._values(row, str(event.id), None, shown, depth_of(session, event.data))
            queries.keep(session, values)

    def _take_in(
        self, session: Session, row: TriggerRow, arrival: Arrival, event: dict[str, Any], depth: int, decision: Decision
    ) -> tuple[TriggerDeliveryRow, bool, Sequence[str]]:
        """Keep a delivery and settle it, or find what became of it."""
        new = queries.keep(session, self._values(row, arrival.id, arrival.fingerprint, event, depth))
        delivery = queries.delivery_by_key(session, row.id, arrival.id)
        if delivery is None:
            raise HookReplayed
        if not new and delivery.outcome != "failed":
            return delivery, False, ()
        return delivery, new, self._settle(session, row, delivery, decision)

    async def _finish(
        self, row: TriggerRow, delivery_id: str, decision: Decision, among: Sequence[str]
    ) -> TriggerDeliveryRow:
        """Settle a delivery whose outcome is one of `among`; another scheduler may have been faster."""

        def settle(session: Session) -> tuple[TriggerDeliveryRow, Sequence[str]]:
            delivery = queries.delivery(session, row.id, delivery_id, lock=True)
            if delivery is None:
                raise NotFound
            if delivery.outcome not in among:
                return delivery, ()
            return delivery, self._settle(session, row, delivery, decision)

        delivery, earlier = await self._database.write(settle)
        await self._after(row, delivery, earlier)
        return delivery

    def _settle(
        self, session: Session, row: TriggerRow, delivery: TriggerDeliveryRow, decision: Decision
    ) -> Sequence[str]:
        """Do what was decided, within this transaction; return the runs that are to be cancelled."""
        now = self._clock.now()
        principal = principal_of(row.project_id, row.starter)
        looks = decision.spec is not None and row.overlap in ("skip", "cancel")
        earlier = queries.unfinished(session, row.project_id, row.id) if looks else ()
        if row.overlap == "skip" and earlier:
            decision = Decision(reason="overlap")
        delivery.outcome, delivery.reason, delivery.error = decision.outcome, decision.reason, decision.error
        delivery.settled_at = now
        if decision.spec is not None:
            run, _ = self._runs.start_in(session, principal, decision.spec)
            delivery.run_id = run.id
            seen = {"last_fired_at": now, "last_run_id": run.id, "last_error": None, "fired": TriggerRow.fired + 1}
            queries.note(session, row.id, seen)
        elif decision.reason == _LOOP:
            log.warning("the trigger %s was cut off at the end of a chain of %d", row.id, DEEPEST)
            said = (
                f"The event stands at the end of a chain of {DEEPEST} starts; it may be a loop, so no run was started."
            )
            error = {"code": "trigger_loop", "message": said, "at": now.isoformat()}
            queries.note(session, row.id, {"last_error": error})
        elif decision.error is not None:
            queries.note(session, row.id, {"last_error": decision.error})
            told = {"trigger_id": row.id, "name": row.name, "delivery_id": delivery.id, "error": decision.error}
            # A trigger that hears of failed triggers, itself among them, is cut off as any other chain is.
            told["trigger"] = {"type": row.kind, "id": row.id, "depth": delivery.depth + 1}
            publish(session, "trigger.failed", row.project_id, told, at=now, subject=row.name)
        session.flush()
        return earlier if row.overlap == "cancel" else ()

    async def _after(self, row: TriggerRow, delivery: TriggerDeliveryRow, earlier: Sequence[str]) -> None:
        if delivery.run_id is not None:
            self._runs.ring()
        for run_id in earlier:
            with contextlib.suppress(NexusError):  # it has ended by itself
                await self._runs.cancel(principal_of(row.project_id, row.starter), run_id)

    def _values(
        self, row: TriggerRow, key: str, fingerprint: str | None, event: dict[str, Any], depth: int
    ) -> dict[str, Any]:
        return {
            "id": new_id("dlv"),
            "trigger_id": row.id,
            "key": key,
            "fingerprint": fingerprint,
            "event": event,
            "depth": depth,
            "outcome": "pending",
            "received_at": self._clock.now(),
        }


_LISTENERS: Final = ("event", "file")


def fits(pattern: str, type_: str) -> bool:
    """Tell whether a type of events fits a pattern: itself, `model.*`, or `*`."""
    return pattern == type_ or (pattern.endswith("*") and type_.startswith(pattern[:-1]))


def wanted(condition: str, scope: Mapping[str, Any]) -> bool:
    """Tell whether a trigger's `when` holds. Raises `ExpressionError`."""
    try:
        return holds(unwrapped(condition), scope)
    except ExpressionError as error:
        raise ExpressionError(error.message, field="when") from None


def rendered(inputs: Mapping[str, Any], scope: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a run with every expression replaced. Raises `InputsInvalid` naming the input."""
    values = {}
    for name, value in inputs.items():
        try:
            values[name] = render(value, scope)
        except ExpressionError as error:
            raise InputsInvalid(f"inputs.{name}: {error.message}", field=f"inputs.{name}") from None
    return values


def _shown(event: Event) -> dict[str, Any]:
    return {
        "id": str(event.id),
        "type": event.type,
        "subject": event.subject,
        "at": event.at.isoformat(),
        "data": event.data,
    }
