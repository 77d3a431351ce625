"""What is so: the figures that alert rules judge, read from the database.

Everything a project's rules see is the project's own, but for the metrics of processes, which are shared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import TypeAdapter
from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from nexus.automation import alert_rules as rules
from nexus.automation import alert_storage as queries
from nexus.automation.alert_rules import Condition, Reading
from nexus.automation.tables import ScheduleRow
from nexus.core.clock import Clock
from nexus.ledger import storage as ledger_storage
from nexus.ledger.budget_book import BudgetBook
from nexus.ledger.tables import InvocationRow
from nexus.runs.tables import RunRow, StepRow
from nexus.runs.types import RunStatus, StepStatus
from nexus.storage import events
from nexus.storage.db import Database

FRESH: Final = 60.0
"""A process whose newest sample is older than this many seconds is gone."""
_HTTP: Final = "nexus_http_requests_total"
_EARLIER: Final = 200
_KNOWN_FOR: Final = 600.0
_LATELY: Final = timedelta(seconds=300)
_FIRES: Final = 500
_CONDITIONS: TypeAdapter[Any] = TypeAdapter(Condition)


def condition_of(stored: dict[str, Any]) -> Any:
    """Return a condition as its model."""
    return _CONDITIONS.validate_python(stored)


@dataclass(frozen=True, slots=True)
class Measured:
    """Readings; `complete` says that whatever is not among them is over."""

    readings: list[Reading]
    complete: bool = True


class Measures:
    """Reads the figures of a condition."""

    def __init__(self, *, database: Database, clock: Clock, book: BudgetBook | None = None) -> None:
        """Budgets stand in `book`; without it there are none."""
        self._database, self._clock, self._book = database, clock, book
        self._durations: dict[tuple[str, str, str], tuple[float, list[float]]] = {}

    async def measure(self, project_id: str, condition: Any) -> Measured:
        """Return what is so of everything that the condition is about; nothing for kinds that events tell of."""
        match condition:
            case rules.FailureRate():
                return await self._database.read(_failure_rate, project_id, condition, self._clock.now())
            case rules.StuckStep():
                return await self._stuck(project_id, condition)
            case rules.QueueAge():
                return await self._database.read(_queue_age, project_id, condition, self._clock.now())
            case rules.SchedulerLag():
                return await self._database.read(_lag, project_id, condition, self._clock.now())
            case rules.BudgetSpent():
                return await self._budgets(project_id, condition)
            case rules.ErrorRate(of="llm"):
                return await self._database.read(_llm_errors, project_id, condition, self._clock.now())
            case rules.ErrorRate():
                return await self._http_errors(condition)
            case rules.Usage():
                return await self._database.read(_usage, project_id, condition, self._clock.now())
            case rules.Metric():
                return await self._metric(condition)
        return Measured([], complete=False)

    async def _stuck(self, project_id: str, condition: rules.StuckStep) -> Measured:
        now = self._clock.now()
        running = await self._database.read(_running, project_id, condition.workflow)
        found = []
        for step_id, run_id, name, key, started_at in running:
            earlier = []
            if condition.factor is not None:
                earlier = await self._earlier(project_id, name, key)
            limit = rules.step_limit(condition, earlier)
            if limit is None:
                continue
            age = (now - started_at).total_seconds()
            title = f"Step {key} of {name} has been running for {age:.0f} s"
            details = {"run_id": run_id, "workflow": name, "step": key, "limit_seconds": round(limit, 3)}
            found.append(Reading(step_id, age > limit, title, age, details))
        return Measured(found)

    async def _earlier(self, project_id: str, name: str, key: str) -> list[float]:
        known_at, known = self._durations.get((project_id, name, key), (None, []))
        now = self._clock.monotonic()
        if known_at is None or now - known_at > _KNOWN_FOR:
            if len(self._durations) > 1000:
                self._durations.clear()
            known = await self._database.read(_durations, project_id, name, key)
            self._durations[project_id, name, key] = now, known
        return known

    async def _budgets(self, project_id: str, condition: rules.BudgetSpent) -> Measured:
        if self._book is None:
            return Measured([])
        rows = await self._database.read(ledger_storage.budgets)
        own = [row for row in rows if row.project_id == project_id and condition.budget in (None, row.id)]
        found: list[Reading] = []
        for row, budget in zip(own, await self._book.standings(own), strict=True):
            found += rules.budget_readings(condition, row.id, row.name, budget.total, row.amount_usd)
        return Measured(found)

    async def _processes(self, window: float) -> list[list[rules.Series]]:
        """Return the samples of each process that lives, oldest first."""
        now = self._clock.now()
        rows = await self._database.read(queries.samples, now - timedelta(seconds=max(window, FRESH)))
        found: dict[str, list[Any]] = defaultdict(list)
        newest: dict[str, datetime] = {}
        for row in rows:
            found[row.process].append(row.values)
            newest[row.process] = row.at
        return [found[process] for process, at in newest.items() if (now - at).total_seconds() <= FRESH]

    async def _metric(self, condition: rules.Metric) -> Measured:
        processes = await self._processes(condition.window if condition.of == "increase" else 0)
        value = rules.metric_value(processes, condition)
        labels = ",".join(f'{name}="{text}"' for name, text in sorted(condition.labels.items()))
        what = f"{condition.metric}{{{labels}}}" if labels else condition.metric
        what = f"The increase of {what} in {condition.window:g} s" if condition.of == "increase" else what
        return Measured(rules.beyond("metric", what, value, condition.op, condition.threshold), value is not None)

    async def _http_errors(self, condition: rules.ErrorRate) -> Measured:
        total = bad = 0.0
        for samples in await self._processes(condition.window):
            grown = rules.increases([rules.fitting(sample, _HTTP, {}) for sample in samples])
            total += sum(grown.values())
            bad += sum(value for labels, value in grown.items() if dict(labels).get("status", "").startswith("5"))
        what = "HTTP requests"
        return Measured([rules.share("http", what, round(bad), round(total), condition.above, condition.minimum)])


def _workflow_runs(project_id: str, workflow: str | None) -> list[Any]:
    found = [RunRow.project_id == project_id, RunRow.kind == "workflow"]
    return found if workflow is None else [*found, RunRow.name == workflow]


def _failure_rate(session: Session, project_id: str, condition: rules.FailureRate, now: datetime) -> Measured:
    since = now - timedelta(seconds=condition.window)
    ended = (*_workflow_runs(project_id, condition.workflow), RunRow.finished_at >= since)
    query = select(RunRow.status, func.count()).where(*ended).group_by(RunRow.status)
    counts = dict(session.execute(query).all())
    bad, good = counts.get(RunStatus.FAILED, 0), counts.get(RunStatus.SUCCEEDED, 0)
    what = f"Runs of {condition.workflow}" if condition.workflow else "Runs"
    return Measured([rules.share("runs", what, bad, bad + good, condition.above, condition.minimum)])


def _running(session: Session, project_id: str, workflow: str | None) -> Sequence[Any]:
    query = (
        select(StepRow.id, StepRow.run_id, RunRow.name, StepRow.key, StepRow.started_at)
        .join(RunRow, RunRow.id == StepRow.run_id)
        .where(*_workflow_runs(project_id, workflow), StepRow.status == StepStatus.RUNNING)
        .where(StepRow.started_at.is_not(None))
    )
    return session.execute(query.limit(1000)).all()


def _durations(session: Session, project_id: str, name: str, key: str) -> list[float]:
    query = (
        select(StepRow.started_at, StepRow.finished_at)
        .join(RunRow, RunRow.id == StepRow.run_id)
        .where(*_workflow_runs(project_id, name), StepRow.key == key, StepRow.status == StepStatus.SUCCEEDED)
        .where(StepRow.started_at.is_not(None), StepRow.finished_at.is_not(None))
        .order_by(RunRow.id.desc())
    )
    return [(end - start).total_seconds() for start, end in session.execute(query.limit(_EARLIER)) if start and end]


def _queue_age(session: Session, project_id: str, condition: rules.QueueAge, now: datetime) -> Measured:
    waiting = [
        StepRow.project_id == project_id,
        StepRow.status == StepStatus.READY,
        StepRow.held.is_(False),
        StepRow.run_at <= now,
    ]
    if condition.queue is not None:
        waiting.append(StepRow.queue == condition.queue)
    oldest = session.execute(select(func.min(StepRow.run_at)).where(*waiting)).scalar_one_or_none()
    age = 0.0 if oldest is None else (now - oldest).total_seconds()
    where = f"queue {condition.queue}" if condition.queue else "the queues"
    title = f"A step has been waiting in {where} for {age:.0f} s"
    details = {"limit_seconds": condition.seconds, "queue": condition.queue}
    return Measured([Reading(condition.queue or "queues", age > condition.seconds, title, age, details)])


def _lag(session: Session, project_id: str, condition: rules.SchedulerLag, now: datetime) -> Measured:
    due = (ScheduleRow.project_id == project_id, ScheduleRow.enabled, ScheduleRow.next_fire_at <= now)
    query = select(ScheduleRow.name, ScheduleRow.next_fire_at).where(*due).order_by(ScheduleRow.next_fire_at)
    latest = session.execute(query.limit(1)).one_or_none()
    late = [] if latest is None else [((now - latest.next_fire_at).total_seconds(), latest.name)]
    # Whoever was late and has caught up before anybody looked: an engine that was away looks at rules again, too.
    for event in events.newest(session, project_id, _FIRES, ["schedule.fired", "schedule.missed"]):
        if event.at >= now - _LATELY and "fire_at" in event.data:
            due_at = datetime.fromisoformat(event.data["fire_at"])
            late.append(((event.at - due_at).total_seconds(), event.data["schedule"]))
    age, name = max(late, default=(0.0, None))
    title = f"Schedules are {age:.0f} s late"
    details = {} if name is None else {"schedule": name}
    return Measured([Reading("schedules", age > condition.seconds, title, age, details)])


def _calls(project_id: str, model: str | None, since: datetime) -> list[Any]:
    found = [InvocationRow.project_id == project_id, InvocationRow.created_at >= since]
    return found if model is None else [*found, InvocationRow.model == model]


def _llm_errors(session: Session, project_id: str, condition: rules.ErrorRate, now: datetime) -> Measured:
    since = now - timedelta(seconds=condition.window)
    language = (
        (InvocationRow.kind == "chat")
        | InvocationRow.kind.startswith("embedding")
        | InvocationRow.kind.startswith("text.", autoescape=True)
    )
    failed = func.sum(case((InvocationRow.status == "error", 1), else_=0))
    query = select(func.count(), failed).where(*_calls(project_id, condition.model, since), language)
    total, bad = session.execute(query).one()
    what = f"Calls of {condition.model}" if condition.model else "Calls of language models"
    return Measured([rules.share("llm", what, int(bad or 0), total, condition.above, condition.minimum)])


def _usage(session: Session, project_id: str, condition: rules.Usage, now: datetime) -> Measured:
    since = now - timedelta(seconds=condition.window)
    columns: dict[str, Any] = {
        "calls": func.count(),
        "errors": func.sum(case((InvocationRow.status == "error", 1), else_=0)),
        "tokens": func.sum(
            func.coalesce(InvocationRow.input_tokens, 0) + func.coalesce(InvocationRow.output_tokens, 0)
        ),
        "cost_usd": func.sum(InvocationRow.cost_usd),
        "latency_ms_avg": func.avg(InvocationRow.latency_ms),
    }
    query = select(columns[condition.of]).where(*_calls(project_id, condition.model, since))
    value = session.execute(query).scalar_one()
    if value is None and condition.of == "latency_ms_avg":
        return Measured([], complete=False)
    what = f"{condition.of} of the last {condition.window:g} s"
    return Measured(rules.beyond("usage", what, float(value or 0), condition.op, condition.threshold))
