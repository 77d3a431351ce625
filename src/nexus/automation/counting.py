"""What engines have done since the last look, for the metrics of API processes.

Engines have no port of their own; what they do stands in the database, so whoever serves `/metrics` counts from
there. A counter begins at 0 with its process, as counters do, and every API process shows the whole: add them up
over instances by `max`, not `sum`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nexus.automation.alert_tables import DeliveryRow
from nexus.automation.tables import ScheduleRow
from nexus.runs.tables import RunRow, StepEventRow, StepRow

SETTLED: Final = timedelta(seconds=2)
"""Lines younger than this wait for the next look: an earlier number may still be committed."""
_AT_ONCE: Final = 5000
_TYPES: Final = ("run.finished", "step.retrying", "step.failed")
_DEAD: Final = "step_dead_lettered"


@dataclass(slots=True)
class Done:
    """What has happened. `runs` counts `(name, status)`, `durations` holds `(name, seconds)`."""

    runs: Counter[tuple[str, str]] = field(default_factory=Counter)
    durations: list[tuple[str, float]] = field(default_factory=list)
    retries: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    deliveries: Counter[str] = field(default_factory=Counter)
    lag: float = 0.0
    """How late the latest schedule is now, in seconds."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How far things are counted."""

    event: int
    delivered: datetime


def begin(session: Session, now: datetime) -> Mark:
    """Return the mark of now: what was before is not counted."""
    return Mark(session.execute(select(func.max(StepEventRow.id))).scalar_one() or 0, now - SETTLED)


def done_since(session: Session, mark: Mark, now: datetime) -> tuple[Done, Mark]:
    """Return what has happened behind the mark, and the new mark."""
    done, until = Done(), now - SETTLED
    query = (
        select(StepEventRow.id, StepEventRow.type, StepEventRow.data, StepEventRow.run_id, StepEventRow.step_key)
        .where(StepEventRow.id > mark.event, StepEventRow.at <= until)
        .order_by(StepEventRow.id)
    )
    rows = session.execute(query.limit(_AT_ONCE)).all()
    told = [row for row in rows if row.type in _TYPES]
    ended = [row.run_id for row in told if row.type == "run.finished"]
    if ended:
        columns = (RunRow.name, RunRow.status, RunRow.started_at, RunRow.finished_at)
        for name, status, start, end in session.execute(select(*columns).where(RunRow.id.in_(ended))):
            done.runs[name, status] += 1
            if start is not None and end is not None:
                done.durations.append((name, (end - start).total_seconds()))
    tried = [row for row in told if row.type != "run.finished"]
    if tried:
        which = StepRow.run_id.in_({row.run_id for row in tried}), StepRow.map_index == -1
        kinds = {
            (run, key): uses
            for run, key, uses in session.execute(select(StepRow.run_id, StepRow.key, StepRow.uses).where(*which))
        }
        for row in tried:
            uses = kinds.get((row.run_id, row.step_key), "other")
            if row.type == "step.retrying":
                done.retries[uses] += 1
            elif (row.data.get("error") or {}).get("code") == _DEAD:
                done.dead[uses] += 1
    sent = DeliveryRow.finished_at > mark.delivered, DeliveryRow.finished_at <= until
    outcomes = select(DeliveryRow.status, func.count()).where(*sent).group_by(DeliveryRow.status)
    done.deliveries.update(dict(session.execute(outcomes).all()))
    due = select(func.min(ScheduleRow.next_fire_at)).where(ScheduleRow.enabled, ScheduleRow.next_fire_at <= now)
    oldest = session.execute(due).scalar_one_or_none()
    done.lag = 0.0 if oldest is None else (now - oldest).total_seconds()
    return done, Mark(rows[-1].id if rows else mark.event, until)
