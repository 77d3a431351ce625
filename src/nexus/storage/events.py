"""What happens inside NEXUS, for whoever wants to act on it: durable, exactly once for each reader.

A slice publishes in the transaction of the change itself, so that the event is there if and only if the
change is:

    def promote(session, ...):
        ...
        publish(session, "model.promoted", project_id, {"model": name, "version": 3}, at=now, subject=name)

    await events.publish("file.arrived", project_id, {...}, subject=path, once=f"file:{path}:{digest}")

A reader has a name and a place in the row of events. `consume` hands it the next ones inside one
transaction together with the moving of its place: what the reader writes there happens exactly once.

Types are dotted words, the thing first: `run.finished`, `model.promoted`, `budget.reached`, `file.arrived`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import BigInteger, Text, cast, delete, func, literal, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from nexus.core.cause import run_behind
from nexus.core.clock import Clock, SystemClock
from nexus.storage.db import Database
from nexus.storage.exchange import exchange_of
from nexus.storage.tables import EVENT, EventCursorRow, EventRow

# The number of this transaction, and the lowest number that may still be at work.
_OWN_NUMBER: Final = cast(cast(func.pg_current_xact_id(), Text), BigInteger)
_INSERT: Final[dict[str, Any]] = {
    "sqlite": sqlite.insert(EVENT).values(transaction=0),
    "postgresql": postgresql.insert(EVENT).values(transaction=_OWN_NUMBER),
}
_LOWEST_OPEN: Final = cast(cast(func.pg_snapshot_xmin(func.pg_current_snapshot()), Text), BigInteger)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `subject` is what it happened to; `project_id` None is the installation."""

    id: int
    type: str
    project_id: str | None
    subject: str
    data: dict[str, Any]
    at: datetime


def publish(
    session: Session,
    type_: str,
    project_id: str | None,
    data: dict[str, Any],
    *,
    at: datetime,
    subject: str = "",
    once: str | None = None,
) -> bool:
    """Tell that something happened, when this transaction commits. `data` is JSON and holds no secret.

    Where a step has done it, `data` gets the id of its run as `caused_by`. With `once` a second event of that
    name is left out, and False returned.
    """
    values = _values(type_, project_id, data, at, subject, once)
    put = _INSERT[session.get_bind().dialect.name]
    if once is None:
        session.execute(put, values)
        return True
    first = put.on_conflict_do_nothing(index_elements=[EventRow.once]).returning(EventRow.id)
    return bool(session.execute(first, values).scalar_one_or_none())


def publish_along(
    session: Session, type_: str, project_id: str | None, data: dict[str, Any], *, at: datetime, subject: str = ""
) -> None:
    """Do the same by the transaction's exchange, with what else that is to send."""
    put = _INSERT[session.get_bind().dialect.name]
    exchange_of(session).put(put, _values(type_, project_id, data, at, subject))


def _values(
    type_: str, project_id: str | None, data: dict[str, Any], at: datetime, subject: str, once: str | None = None
) -> dict[str, Any]:
    cause = run_behind()
    return {
        "project_id": project_id,
        "type": type_,
        "subject": subject[:255],
        "data": data if cause is None else {**data, "caused_by": cause},
        "once": once,
        "at": at,
    }


def consume(session: Session, reader: str, handle: Callable[[Session, Event], None], limit: int = 100) -> int:
    """Hand the next events to `handle`, within this transaction; return how many there were.

    A new reader begins with what happens after its first call. What `handle` raises undoes everything, and
    the same events come again. Two processes that read under one name wait for each other.
    """
    settled = _settled(session)
    cursor = session.execute(
        select(EventCursorRow).where(EventCursorRow.reader == reader).with_for_update()
    ).scalar_one_or_none()
    if cursor is None:
        _begin(session, reader, settled)
        return 0
    place = tuple_(EventRow.transaction, EventRow.id)
    behind = select(EventRow).where(place > tuple_(literal(cursor.transaction), literal(cursor.event_id)))
    found = session.execute(
        behind.where(EventRow.transaction < settled).order_by(EventRow.transaction, EventRow.id).limit(limit)
    )
    rows = found.scalars().all()
    for row in rows:
        handle(session, Event(row.id, row.type, row.project_id, row.subject, row.data, row.at))
    if rows:
        here = {"transaction": rows[-1].transaction, "event_id": rows[-1].id}
        session.execute(update(EventCursorRow).where(EventCursorRow.reader == reader).values(here))
    return len(rows)


def _settled(session: Session) -> int:
    """Return the number below which no transaction can still add events; SQLite has one writer and no numbers."""
    if session.get_bind().dialect.name != "postgresql":
        return 1
    return int(session.execute(select(_LOWEST_OPEN)).scalar_one())


def _begin(session: Session, reader: str, settled: int) -> None:
    newest = select(EventRow.transaction, EventRow.id).where(EventRow.transaction < settled)
    last = session.execute(newest.order_by(EventRow.transaction.desc(), EventRow.id.desc()).limit(1)).one_or_none()
    transaction, event_id = last or (0, 0)
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    put = dialect.insert(EventCursorRow).values(reader=reader, transaction=transaction, event_id=event_id)
    session.execute(put.on_conflict_do_nothing())


def newest(session: Session, project_id: str | None, limit: int, types: list[str] | None = None) -> list[Event]:
    """Return the newest events of a project, the newest first."""
    query = select(EventRow).where(EventRow.project_id == project_id)
    if types is not None:
        query = query.where(EventRow.type.in_(types))
    rows = session.execute(query.order_by(EventRow.id.desc()).limit(limit)).scalars()
    return [Event(row.id, row.type, row.project_id, row.subject, row.data, row.at) for row in rows]


def forget(session: Session, before: datetime) -> None:
    """Delete the events of the time before `before`; those published `once` stay, or they would come again."""
    session.execute(delete(EventRow).where(EventRow.at < before, EventRow.once.is_(None)))


class Events:
    """The same for code that has no transaction of its own."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        """Keep events in `database`."""
        self._database = database
        self._clock = clock or SystemClock()

    async def publish(
        self, type_: str, project_id: str | None, data: dict[str, Any], *, subject: str = "", once: str | None = None
    ) -> bool:
        """Tell that something happened; False when `once` says that it was told already."""
        now = self._clock.now()
        return await self._database.write(publish, type_, project_id, data, at=now, subject=subject, once=once)

    async def consume(self, reader: str, handle: Callable[[Session, Event], None], limit: int = 100) -> int:
        """Hand the next events to `handle(session, event)` in one transaction; return how many there were."""
        if await self._database.read(is_behind, reader):
            return await self._database.write(consume, reader, handle, limit)
        return 0

    async def newest(self, project_id: str | None, limit: int = 50, types: list[str] | None = None) -> list[Event]:
        """Return the newest events of a project, the newest first."""
        return await self._database.read(newest, project_id, limit, types)

    async def forget(self, days: float) -> None:
        """Delete the events that are older than so many days."""
        await self._database.write(forget, self._clock.now() - timedelta(days=days))


def is_behind(session: Session, reader: str) -> bool:
    """Tell whether there may be something to consume: a cheap look that writes nothing."""
    cursor = session.get(EventCursorRow, reader)
    if cursor is None:
        return True
    place = tuple_(EventRow.transaction, EventRow.id)
    query = select(EventRow.id).where(place > tuple_(literal(cursor.transaction), literal(cursor.event_id)))
    return session.execute(query.limit(1)).one_or_none() is not None
