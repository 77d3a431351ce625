"""Named queries of triggers and of what arrived at them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nexus.automation.errors import NameTaken
from nexus.automation.trigger_tables import TriggerDeliveryRow, TriggerRow
from nexus.runs.tables import RunRow
from nexus.runs.types import RunStatus

_FINAL = [status for status in RunStatus if status.final]
_TAKEN = "There is a trigger of this name already."


def add(session: Session, values: dict[str, Any]) -> TriggerRow:
    """Keep a new trigger. Raises `NameTaken`."""
    row = TriggerRow(**values)
    session.add(row)
    _flush(session)
    return row


def get(session: Session, project_id: str, name_or_id: str) -> TriggerRow | None:
    """Return a trigger of the project by its id or name."""
    which = (TriggerRow.id == name_or_id) | (TriggerRow.name == name_or_id)
    return session.execute(select(TriggerRow).where(TriggerRow.project_id == project_id, which)).scalar_one_or_none()


def by_id(session: Session, trigger_id: str) -> TriggerRow | None:
    """Return a trigger of any project."""
    return session.get(TriggerRow, trigger_id)


def listed(
    session: Session, project_id: str, after: str | None, limit: int, descending: bool, kind: str | None
) -> Sequence[TriggerRow]:
    """Return a page of triggers by id."""
    query = select(TriggerRow).where(TriggerRow.project_id == project_id)
    if kind is not None:
        query = query.where(TriggerRow.kind == kind)
    if after is not None:
        query = query.where(TriggerRow.id < after if descending else TriggerRow.id > after)
    order = TriggerRow.id.desc() if descending else TriggerRow.id
    return session.execute(query.order_by(order).limit(limit)).scalars().all()


def listening(session: Session, project_id: str | None, kinds: Sequence[str]) -> Sequence[TriggerRow]:
    """Return the enabled triggers of these kinds, of one project or of all."""
    query = select(TriggerRow).where(TriggerRow.kind.in_(kinds), TriggerRow.enabled)
    if project_id is not None:
        query = query.where(TriggerRow.project_id == project_id)
    return session.execute(query.order_by(TriggerRow.id)).scalars().all()


def change(session: Session, project_id: str, trigger_id: str, values: dict[str, Any]) -> TriggerRow | None:
    """Change a trigger and return it. Raises `NameTaken`."""
    row = get(session, project_id, trigger_id)
    if row is not None:
        for name, value in values.items():
            setattr(row, name, value)
        _flush(session)
    return row


def remove(session: Session, project_id: str, name_or_id: str) -> bool:
    """Delete a trigger and its deliveries; its runs stay."""
    row = get(session, project_id, name_or_id)
    if row is None:
        return False
    session.execute(delete(TriggerDeliveryRow).where(TriggerDeliveryRow.trigger_id == row.id))
    session.execute(delete(TriggerRow).where(TriggerRow.id == row.id))
    return True


def note(session: Session, trigger_id: str, values: dict[str, Any]) -> None:
    """Keep what came of the last delivery."""
    session.execute(update(TriggerRow).where(TriggerRow.id == trigger_id).values(values))


def keep(session: Session, values: dict[str, Any]) -> bool:
    """Keep a delivery; False when its key or its fingerprint is there already."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    put = dialect.insert(TriggerDeliveryRow).values(values).on_conflict_do_nothing().returning(TriggerDeliveryRow.id)
    return session.execute(put).scalar_one_or_none() is not None


def delivery_by_key(session: Session, trigger_id: str, key: str) -> TriggerDeliveryRow | None:
    """Return the delivery with the sender's id, locked."""
    query = select(TriggerDeliveryRow).where(TriggerDeliveryRow.trigger_id == trigger_id)
    return session.execute(query.where(TriggerDeliveryRow.key == key).with_for_update()).scalar_one_or_none()


def is_settled(session: Session, trigger_id: str, key: str) -> bool:
    """Tell whether what has the sender's id has started a run or was left out: it starts no further one."""
    query = select(TriggerDeliveryRow.outcome).where(TriggerDeliveryRow.trigger_id == trigger_id)
    outcome = session.execute(query.where(TriggerDeliveryRow.key == key)).scalar_one_or_none()
    return outcome is not None and outcome != "failed"


def delivery(session: Session, trigger_id: str, delivery_id: str, *, lock: bool = False) -> TriggerDeliveryRow | None:
    """Return a delivery of the trigger."""
    query = select(TriggerDeliveryRow).where(TriggerDeliveryRow.trigger_id == trigger_id)
    query = query.where(TriggerDeliveryRow.id == delivery_id)
    return session.execute(query.with_for_update() if lock else query).scalar_one_or_none()


def deliveries(
    session: Session, trigger_id: str, after: str | None, limit: int, descending: bool, outcome: str | None
) -> Sequence[TriggerDeliveryRow]:
    """Return a page of a trigger's deliveries by id."""
    query = select(TriggerDeliveryRow).where(TriggerDeliveryRow.trigger_id == trigger_id)
    if outcome is not None:
        query = query.where(TriggerDeliveryRow.outcome == outcome)
    if after is not None:
        query = query.where(TriggerDeliveryRow.id < after if descending else TriggerDeliveryRow.id > after)
    order = TriggerDeliveryRow.id.desc() if descending else TriggerDeliveryRow.id
    return session.execute(query.order_by(order).limit(limit)).scalars().all()


def pending(session: Session, limit: int) -> list[tuple[TriggerRow, TriggerDeliveryRow]]:
    """Return what has arrived and waits to be decided on, the oldest first."""
    query = select(TriggerRow, TriggerDeliveryRow).join(TriggerRow, TriggerRow.id == TriggerDeliveryRow.trigger_id)
    query = query.where(TriggerDeliveryRow.outcome == "pending").order_by(TriggerDeliveryRow.id)
    return [(trigger, row) for trigger, row in session.execute(query.limit(limit))]


def forget(session: Session, before: datetime, limit: int = 1_000) -> None:
    """Delete up to `limit` deliveries that are older than `before`."""
    old = select(TriggerDeliveryRow.id).where(TriggerDeliveryRow.received_at < before).limit(limit)
    session.execute(delete(TriggerDeliveryRow).where(TriggerDeliveryRow.id.in_(session.scalars(old).all())))


def unfinished(session: Session, project_id: str, trigger_id: str) -> Sequence[str]:
    """Return the ids of the trigger's runs that have not ended."""
    query = select(RunRow.id).where(
        RunRow.project_id == project_id,
        RunRow.idempotency_key.startswith(f"trigger:{trigger_id}:", autoescape=True),
        RunRow.status.not_in(_FINAL),
    )
    return session.execute(query).scalars().all()


def trigger_of_run(session: Session, run_id: str) -> dict[str, Any] | None:
    """Return what started a run, if the run is there."""
    return session.execute(select(RunRow.trigger).where(RunRow.id == run_id)).scalar_one_or_none()


def _flush(session: Session) -> None:
    try:
        session.flush()
    except IntegrityError:
        raise NameTaken(_TAKEN, field="name") from None
