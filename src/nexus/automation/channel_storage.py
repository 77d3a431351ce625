"""Named queries of channels and of what was sent to them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nexus.automation.alert_tables import AlertRow, ChannelRow, DeliveryRow
from nexus.automation.errors import NameTaken
from nexus.core.ids import new_id


def add(session: Session, values: dict[str, Any]) -> ChannelRow:
    """Keep a new channel. Raises `NameTaken`."""
    row = ChannelRow(**values)
    session.add(row)
    return _flushed(session, row)


def _flushed(session: Session, row: ChannelRow) -> ChannelRow:
    try:
        session.flush()
    except IntegrityError:
        raise NameTaken("There is a channel of this name already.", field="name") from None
    return row


def get(session: Session, project_id: str, name_or_id: str) -> ChannelRow | None:
    """Return a channel of the project by its id or name."""
    which = (ChannelRow.id == name_or_id) | (ChannelRow.name == name_or_id)
    return session.execute(select(ChannelRow).where(ChannelRow.project_id == project_id, which)).scalar_one_or_none()


def listed(session: Session, project_id: str, after: str | None, limit: int, descending: bool) -> Sequence[ChannelRow]:
    """Return a page of channels by id."""
    query = select(ChannelRow).where(ChannelRow.project_id == project_id)
    if after is not None:
        query = query.where(ChannelRow.id < after if descending else ChannelRow.id > after)
    order = ChannelRow.id.desc() if descending else ChannelRow.id
    return session.execute(query.order_by(order).limit(limit)).scalars().all()


def change(session: Session, project_id: str, channel_id: str, values: dict[str, Any]) -> ChannelRow | None:
    """Change a channel and return it. Raises `NameTaken`."""
    row = get(session, project_id, channel_id)
    if row is None:
        return None
    for name, value in values.items():
        setattr(row, name, value)
    return _flushed(session, row)


def remove(session: Session, project_id: str, channel_id: str) -> bool:
    """Delete a channel and its log of deliveries."""
    row = get(session, project_id, channel_id)
    if row is None:
        return False
    session.execute(delete(DeliveryRow).where(DeliveryRow.channel_id == row.id))
    session.execute(delete(ChannelRow).where(ChannelRow.id == row.id))
    return True


def disable(session: Session, channel_id: str, why: str, now: datetime) -> None:
    """Send nothing more to a channel."""
    values = {"enabled": False, "disabled_because": why, "updated_at": now}
    session.execute(update(ChannelRow).where(ChannelRow.id == channel_id, ChannelRow.enabled).values(values))


def plan(
    session: Session, channel: ChannelRow, notice: dict[str, Any], once: str, now: datetime, alert_id: str | None = None
) -> DeliveryRow:
    """Write down that a notice is to be sent, or return what was written under the name `once` before."""
    found = session.execute(select(DeliveryRow).where(DeliveryRow.once == once)).scalar_one_or_none()
    if found is not None:
        return found
    row = DeliveryRow(
        id=new_id("dlv"),
        once=once,
        project_id=channel.project_id,
        channel_id=channel.id,
        alert_id=alert_id,
        run_id=None,
        message_id=notice["id"],
        event=notice["event"],
        notice=notice,
        status="pending",
        attempts=0,
        answer_status=None,
        error=None,
        created_at=now,
        finished_at=None,
    )
    session.add(row)
    session.flush()
    return row


def to_send(session: Session, project_id: str, delivery_id: str) -> tuple[DeliveryRow, ChannelRow, str | None] | None:
    """Return a delivery with its channel and the summary of its alert."""
    query = (
        select(DeliveryRow, ChannelRow, AlertRow.summary)
        .join(ChannelRow, ChannelRow.id == DeliveryRow.channel_id)
        .outerjoin(AlertRow, AlertRow.id == DeliveryRow.alert_id)
        .where(DeliveryRow.id == delivery_id, DeliveryRow.project_id == project_id)
    )
    found = session.execute(query).one_or_none()
    return None if found is None else (found[0], found[1], found[2])


def note(session: Session, delivery_id: str, values: dict[str, Any]) -> None:
    """Keep how an attempt went."""
    session.execute(
        update(DeliveryRow).where(DeliveryRow.id == delivery_id).values(**values, attempts=DeliveryRow.attempts + 1)
    )


def deliveries(
    session: Session, project_id: str, channel_id: str | None, after: str | None, limit: int, descending: bool
) -> Sequence[DeliveryRow]:
    """Return a page of what was sent, to one channel or to all."""
    query = select(DeliveryRow).where(DeliveryRow.project_id == project_id)
    if channel_id is not None:
        query = query.where(DeliveryRow.channel_id == channel_id)
    if after is not None:
        query = query.where(DeliveryRow.id < after if descending else DeliveryRow.id > after)
    order = DeliveryRow.id.desc() if descending else DeliveryRow.id
    return session.execute(query.order_by(order).limit(limit)).scalars().all()


def delivery(session: Session, project_id: str, delivery_id: str) -> DeliveryRow | None:
    """Return one delivery of the project."""
    query = select(DeliveryRow).where(DeliveryRow.id == delivery_id, DeliveryRow.project_id == project_id)
    return session.execute(query).scalar_one_or_none()
