"""Looks at alert rules by itself: at what events tell, and now and then at what is measured."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from nexus.automation import alert_storage as queries
from nexus.automation.alert_measuring import Measured, Measures, condition_of
from nexus.automation.alert_rule_service import next_look
from nexus.automation.alert_rules import TOLD, DeadLetter, Drift, Reading, RunFailed, lasting
from nexus.automation.alert_tables import AlertRuleRow
from nexus.automation.alerts import AlertService
from nexus.core.clock import Clock
from nexus.core.errors import NexusError
from nexus.runs.service import RunService
from nexus.storage.db import Database
from nexus.storage.events import Event, Events

_AT_ONCE: Final = 100
_HEARD: Final = frozenset({"run.finished", "step.dead_lettered", "model.drifted", "model.recovered"})


class AlertWatch:
    """The ticker of alert rules. Any number of them may tick at once."""

    name = "alerts"

    def __init__(
        self,
        *,
        database: Database,
        events: Events,
        alerts: AlertService,
        measures: Measures,
        runs: RunService,
        clock: Clock,
    ) -> None:
        """Change `alerts` by what `events` tell and `measures` say."""
        self._database, self._events, self._alerts = database, events, alerts
        self._measures, self._runs, self._clock = measures, runs, clock

    async def tick(self) -> float | None:
        """Do what is due."""
        heard: list[bool] = []

        def hear(session: Session, event: Event) -> None:
            self._hear(session, event, heard)

        while await self._events.consume("alerts", hear, _AT_ONCE) == _AT_ONCE:
            pass
        news = any(heard)
        for row in await self._database.read(queries.due_rules, self._clock.now(), _AT_ONCE):
            news = await self._look(row) or news
        if news:
            self._runs.ring()
        return None

    def _hear(self, session: Session, event: Event, heard: list[bool]) -> None:
        """Apply what an event says, in the transaction that marks it as read."""
        if event.type not in _HEARD:
            return
        for rule in queries.told_rules(session, event.project_id, TOLD):
            reading = reading_of(condition_of(rule.condition), event)
            if reading is not None:
                heard.append(self._alerts.apply(session, rule, reading, self._clock.now()))

    async def _look(self, row: AlertRuleRow) -> bool:
        """Measure what a rule is about and apply it; nothing where another scheduler was faster."""
        now = self._clock.now()
        if not await self._database.write(queries.take_rule, row, next_look(row, now)):
            return False
        measured, error = Measured([], complete=False), None
        try:
            if row.kind not in TOLD:
                measured = await self._measures.measure(row.project_id, condition_of(row.condition))
        except NexusError as problem:
            error = {"code": problem.code, "message": problem.message, "at": now.isoformat()}
        return await self._database.write(self._apply, row, measured, error)

    def _apply(self, session: Session, seen: AlertRuleRow, measured: Measured, error: dict[str, Any] | None) -> bool:
        now = self._clock.now()
        rule = queries.rule(session, seen.project_id, seen.id, lock=True)
        if rule is None or not rule.enabled or rule.condition != seen.condition:
            return False
        rule.checked_at, rule.last_error = now, error
        readings, pending = lasting(rule.pending, measured.readings, now, rule.lasting)
        if measured.complete:
            rule.pending = pending
            known = {reading.key for reading in measured.readings}
            readings += [
                Reading(alert.key, firing=False, title="It is over.")
                for alert in queries.live_alerts(session, rule.id)
                if alert.key not in known
            ]
        elif rule.kind in TOLD:
            readings = _quiet(
                rule, [(alert.key, alert.seen_at) for alert in queries.live_alerts(session, rule.id)], now
            )
        news = [self._alerts.apply(session, rule, reading, now) for reading in readings]
        return any(news)


def _quiet(rule: AlertRuleRow, live: list[tuple[str, datetime]], now: datetime) -> list[Reading]:
    """Return that it is over for what nothing was heard of for long enough."""
    clear = getattr(condition_of(rule.condition), "clear", None)
    if clear is None:
        return []
    since = now - timedelta(seconds=clear)
    title = f"Nothing more was heard of it for {clear:g} s."
    return [Reading(key, firing=False, title=title) for key, seen_at in live if seen_at <= since]


def reading_of(condition: Any, event: Event) -> Reading | None:
    """Return what an event says to a rule; None for nothing. Pure."""
    data = event.data
    if event.type in ("run.finished", "step.dead_lettered"):
        return _of_run(condition, event.type, data)
    if not isinstance(condition, Drift):
        return None
    model = str(data.get("model") or event.subject)
    if condition.model not in (None, model):
        return None
    drifted = event.type == "model.drifted"
    title = f"The model {model} has drifted" if drifted else f"The model {model} has recovered"
    score = data.get("score")
    value = float(score) if isinstance(score, int | float) else None
    return Reading(model, drifted, title, value, data)


def _of_run(condition: Any, type_: str, data: dict[str, Any]) -> Reading | None:
    name, error = str(data.get("name")), data.get("error") or {}
    # Of other kinds there are those of alerts themselves: one that cannot be delivered must not tell of itself.
    if data.get("kind") != "workflow" or getattr(condition, "workflow", None) not in (None, name):
        return None
    step = data.get("step") or error.get("step")
    details = {"run_id": data.get("run_id"), "workflow": name, "step": step, "error": error.get("message")}
    if type_ == "step.dead_lettered":
        title = f"Step {step} of {name} was given up"
        return Reading(name, firing=True, title=title, details=details) if isinstance(condition, DeadLetter) else None
    if not isinstance(condition, RunFailed):
        return None
    if data.get("status") == "failed":
        return Reading(name, firing=True, title=f"A run of {name} has failed", details=details)
    over = data.get("status") == "succeeded"
    return Reading(name, firing=False, title=f"A run of {name} has succeeded.") if over else None
