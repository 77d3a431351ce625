"""Named queries of stored responses. Every one that a caller can reach is bound to a project."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from nexus.llm.tables import ResponseRow


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


def belongs_to(session: Session, project_id: str, response_id: str, run_id: str) -> None:
    """Note which run works on a response."""
    mine = (ResponseRow.project_id == project_id) & (ResponseRow.id == response_id)
    session.execute(update(ResponseRow).where(mine).values(run_id=run_id))


def finish(session: Session, project_id: str, response_id: str, status: str, body: bytes) -> None:
    """Write down how a response ended, unless it has been cancelled or deleted meanwhile."""
    mine = (ResponseRow.project_id == project_id) & (ResponseRow.id == response_id) & ResponseRow.deleted.is_(False)
    change = update(ResponseRow).where(mine & ResponseRow.status.in_(("queued", "in_progress")))
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
    return row


def sweep(session: Session, before: datetime) -> None:
    """Remove what was made before this moment."""
    session.execute(delete(ResponseRow).where(ResponseRow.created_at < before))
