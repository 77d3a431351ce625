"""Named queries of stored responses. Every one that a caller can reach is bound to a project."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, delete, exists, func, select, update
from sqlalchemy.orm import Session

from nexus.llm.tables import ResponseEventRow, ResponseRow

OPEN: Final = ("queued", "in_progress")
"""How a response stands that has not ended."""


class Ended(NamedTuple):
    """How a response ended, and what it is then."""

    status: str
    body: bytes


def keep(session: Session, row: ResponseRow) -> None:
    """Add a response, or put it in the place of what was known of it so far; a deleted one stays so."""
    found = session.get(ResponseRow, (row.project_id, row.id))
    if found is None or not found.deleted:
        session.merge(row)


def response(session: Session, project_id: str, response_id: str) -> ResponseRow | None:
    """Return a response of the project."""
    found = session.get(ResponseRow, (project_id, response_id))
    return None if found is None or found.deleted else found


def is_taken(session: Session, response_id: str) -> bool:
    """Tell whether a response of this id is another project's, or was deleted."""
    return bool(session.scalar(select(exists().where(ResponseRow.id == response_id))))


def chain(session: Session, project_id: str, response_id: str, limit: int) -> list[ResponseRow]:
    """Return a response and those that it goes back to, oldest first; nothing when it is not the project's."""
    rows: list[ResponseRow] = []
    seen: set[str] = set()
    following: str | None = response_id
    while following is not None and following not in seen and len(rows) < limit:
        seen.add(following)
        row = response(session, project_id, following)
        if row is None:
            break
        rows.append(row)
        following = row.previous_id
    return rows[::-1]


def begin(session: Session, row: ResponseRow, events: ResponseEventRow | None, start: Callable[[Session], str]) -> None:
    """Add a response that a run is to make, and in the same transaction what `start` starts, the run."""
    row.run_id = start(session)
    session.add(row)
    if events is not None:
        session.add(events)


class Asked(NamedTuple):
    """Where an attempt went: a route, and the key of a deployment of it."""

    route: str
    deployment: str


class TakenUp(NamedTuple):
    """What was told of a response before, and by whom last; where that one `asked`, if it had an answer."""

    events: list[bytes]
    worker: str | None
    asked: Asked | None


def take_up(session: Session, project_id: str, response_id: str, worker: str) -> TakenUp | None:
    """Let `worker` be the only one that adds events; return those there are, None where the response has ended."""
    found = session.get(ResponseRow, (project_id, response_id), with_for_update=True)
    if found is None or found.deleted or found.status not in OPEN:
        return None
    before, found.worker = found.worker, worker
    asked, found.asked = found.asked, None
    if found.status != "in_progress":
        found.status = "in_progress"
        found.body = msgspec.json.encode(msgspec.json.decode(found.body) | {"status": "in_progress"})
    events = [row.data for row in told(session, project_id, response_id, -1, None)]
    return TakenUp(events, before, Asked(*asked) if asked else None)


def tell(
    session: Session,
    project_id: str,
    response_id: str,
    worker: str,
    events: ResponseEventRow,
    ended: Ended | None,
    asked: Asked | None,
) -> bool:
    """Add events, and how the response ended if it did; False where `worker` has nothing to say any more.

    `asked` tells where the events come from, where that is not known yet.
    """
    columns = (ResponseRow.status, ResponseRow.worker, ResponseRow.deleted)
    found = session.execute(select(*columns).where(_is(project_id, response_id)).with_for_update()).one_or_none()
    if found is None or found.deleted or found.status not in OPEN or found.worker != worker:
        return False
    session.add(events)
    if asked is not None:
        session.execute(update(ResponseRow).where(_is(project_id, response_id)).values(asked=list(asked)))
    if ended is not None:
        changes = {"status": ended.status, "body": ended.body, "request": None}
        session.execute(update(ResponseRow).where(_is(project_id, response_id)).values(changes))
    return True


def told(
    session: Session, project_id: str, response_id: str, after: int, limit: int | None
) -> Sequence[ResponseEventRow]:
    """Return the batches of events that go beyond number `after`, in order."""
    row = ResponseEventRow
    mine = (row.project_id == project_id) & (row.response_id == response_id) & (row.last > after)
    return session.scalars(select(row).where(mine).order_by(row.number).limit(limit)).all()


def told_and_status(
    session: Session, project_id: str, response_id: str, after: int, limit: int
) -> tuple[str | None, Sequence[ResponseEventRow]]:
    """Return how a response stands and what was told of it until then; no status where it is gone."""
    where = _is(project_id, response_id) & ResponseRow.deleted.is_(False)
    # The status is read first: what was written before the end is then surely among the rows.
    status = session.scalar(select(ResponseRow.status).where(where))
    return status, told(session, project_id, response_id, after, limit)


def conclude(session: Session, project_id: str, response_id: str, ended: Ended, last: Callable[[int], bytes]) -> None:
    """End a response from outside, unless it has ended; where its events are kept, `last` is the last one of them."""
    found = session.get(ResponseRow, (project_id, response_id), with_for_update=True)
    if found is None or found.deleted or found.status not in OPEN:
        return
    found.status, found.body, found.request = ended.status, ended.body, None
    row = ResponseEventRow
    mine = (row.project_id == project_id) & (row.response_id == response_id)
    number = session.scalar(select(func.max(row.last)).where(mine))
    if number is not None:
        number += 1
        session.add(
            ResponseEventRow(
                project_id=project_id, response_id=response_id, number=number, last=number, data=last(number)
            )
        )


def _is(project_id: str, response_id: str) -> ColumnElement[bool]:
    return (ResponseRow.project_id == project_id) & (ResponseRow.id == response_id)


def finish(session: Session, project_id: str, response_id: str, status: str, body: bytes) -> None:
    """Write down how a response ended, unless it has been cancelled or deleted meanwhile."""
    mine = (ResponseRow.project_id == project_id) & (ResponseRow.id == response_id) & ResponseRow.deleted.is_(False)
    change = update(ResponseRow).where(mine & ResponseRow.status.in_(OPEN))
    session.execute(change.values(status=status, body=body, request=None))


def forget(session: Session, project_id: str, response_id: str) -> ResponseRow | None:
    """Delete a response; return it as it was, None when there is none."""
    row = response(session, project_id, response_id)
    if row is None:
        return None
    session.expunge(row)
    mine = (ResponseRow.project_id == project_id) & (ResponseRow.id == response_id)
    gone = {"deleted": True, "input": b"", "body": b"", "request": None}
    session.execute(update(ResponseRow).where(mine).values(gone))
    events = ResponseEventRow
    session.execute(delete(events).where((events.project_id == project_id) & (events.response_id == response_id)))
    return row


def sweep(session: Session, before: datetime) -> None:
    """Remove what was made before this moment."""
    old = select(ResponseRow.id).where(
        (ResponseRow.created_at < before)
        & (ResponseRow.project_id == ResponseEventRow.project_id)
        & (ResponseRow.id == ResponseEventRow.response_id)
    )
    session.execute(delete(ResponseEventRow).where(old.exists()))
    session.execute(delete(ResponseRow).where(ResponseRow.created_at < before))
