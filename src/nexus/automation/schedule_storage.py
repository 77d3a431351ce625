"""Named queries of schedules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nexus.automation.errors import NameTaken
from nexus.automation.tables import ScheduleRow
from nexus.runs.tables import RunRow
from nexus.runs.types import RunStatus

_FINAL = [status for status in RunStatus if status.final]


def add(session: Session, values: dict[str, Any]) -> ScheduleRow:
    """Keep a new schedule. Raises `NameTaken`."""
    row = ScheduleRow(**values)
    session.add(row)
    try:
        session.flush()
    except IntegrityError:
        raise NameTaken("There is a schedule of this name already.", field="name") from None
    return row


def get(session: Session, project_id: str, name_or_id: str) -> ScheduleRow | None:
    """Return a schedule of the project by its id or name."""
    which = (ScheduleRow.id == name_or_id) | (ScheduleRow.name == name_or_id)
    return session.execute(select(ScheduleRow).where(ScheduleRow.project_id == project_id, which)).scalar_one_or_none()


def listed(
    session: Session, project_id: str, after: str | None, limit: int, descending: bool, workflow_id: str | None
) -> Sequence[ScheduleRow]:
    """Return a page of schedules by id."""
    query = select(ScheduleRow).where(ScheduleRow.project_id == project_id)
    if workflow_id is not None:
        query = query.where(ScheduleRow.workflow_id == workflow_id)
    if after is not None:
        query = query.where(ScheduleRow.id < after if descending else ScheduleRow.id > after)
    order = ScheduleRow.id.desc() if descending else ScheduleRow.id
    return session.execute(query.order_by(order).limit(limit)).scalars().all()


def change(session: Session, project_id: str, schedule_id: str, values: dict[str, Any]) -> ScheduleRow | None:
    """Change a schedule and return it. Raises `NameTaken`."""
    row = get(session, project_id, schedule_id)
    if row is not None:
        for name, value in values.items():
            setattr(row, name, value)
        try:
            session.flush()
        except IntegrityError:
            raise NameTaken("There is a schedule of this name already.", field="name") from None
    return row


def remove(session: Session, project_id: str, schedule_id: str) -> bool:
    """Delete a schedule; its runs stay."""
    row = get(session, project_id, schedule_id)
    if row is None:
        return False
    session.execute(delete(ScheduleRow).where(ScheduleRow.id == row.id))
    return True


def due(session: Session, now: datetime, limit: int) -> Sequence[ScheduleRow]:
    """Return the schedules whose time has come, the longest overdue first."""
    query = select(ScheduleRow).where(ScheduleRow.enabled, ScheduleRow.next_fire_at <= now)
    return session.execute(query.order_by(ScheduleRow.next_fire_at).limit(limit)).scalars().all()


def next_due(session: Session) -> datetime | None:
    """Return when the next schedule fires."""
    query = select(ScheduleRow.next_fire_at).where(ScheduleRow.enabled, ScheduleRow.next_fire_at.is_not(None))
    return session.execute(query.order_by(ScheduleRow.next_fire_at).limit(1)).scalar_one_or_none()


def advance(session: Session, row: ScheduleRow, values: dict[str, Any]) -> bool:
    """Move a schedule on from the fire that was read; False when another scheduler has done so before."""
    same = (ScheduleRow.id == row.id, ScheduleRow.next_fire_at == row.next_fire_at, ScheduleRow.enabled)
    return bool(session.execute(update(ScheduleRow).where(*same).values(values)).rowcount)  # type: ignore[attr-defined]


def note(session: Session, schedule_id: str, values: dict[str, Any]) -> None:
    """Keep what came of the last fire."""
    session.execute(update(ScheduleRow).where(ScheduleRow.id == schedule_id).values(values))


def unfinished(session: Session, project_id: str, schedule_id: str) -> Sequence[str]:
    """Return the ids of the schedule's runs that have not ended."""
    query = select(RunRow.id).where(
        RunRow.project_id == project_id,
        RunRow.idempotency_key.startswith(f"schedule:{schedule_id}:", autoescape=True),
        RunRow.status.not_in(_FINAL),
    )
    return session.execute(query).scalars().all()
