"""Named queries of files. Every one that a caller can reach is bound to a project."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, exists, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from nexus.files.tables import ContentRow, FileRow
from nexus.storage.events import publish


def claim(session: Session, sha256: str, size: int, now: datetime, row: FileRow, *, tell: bool = False) -> str:
    """Say that an upload needs this content; return what is to be done.

    `present`: the content is there and the file was added, with `tell` as an event too. `incoming`: write the
    content, then call `arrived`. `removing`: it is being deleted at this moment; try again shortly.
    """
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    values = {"sha256": sha256, "size": size, "state": "incoming", "touched_at": now}
    session.execute(insert(ContentRow).values(values).on_conflict_do_nothing(index_elements=["sha256"]))
    content = session.scalar(select(ContentRow).where(ContentRow.sha256 == sha256).with_for_update())
    if content is None:
        return "removing"
    if content.state == "present":
        _add(session, row, tell)
    elif content.state == "incoming":
        content.touched_at = now
    return content.state


def arrived(session: Session, row: FileRow, now: datetime, *, tell: bool = False) -> bool:
    """Add the file whose content has been written; False when a sweep took the content meanwhile."""
    content = session.scalar(select(ContentRow).where(ContentRow.sha256 == row.sha256).with_for_update())
    if content is None or content.state == "removing":
        return False
    content.state, content.touched_at = "present", now
    _add(session, row, tell)
    return True


def _add(session: Session, row: FileRow, tell: bool) -> None:
    session.add(row)
    if tell:
        told = {"file_id": row.id, "filename": row.filename, "size": row.size, "content_type": row.content_type}
        told |= {"purpose": row.purpose, "sha256": row.sha256}
        publish(session, "file.uploaded", row.project_id, told, at=row.created_at, subject=row.filename)


def file(session: Session, project_id: str, file_id: str, now: datetime) -> FileRow | None:
    """Return a file of the project that has not expired."""
    found = session.get(FileRow, file_id)
    if found is None or found.project_id != project_id or (found.expires_at is not None and found.expires_at <= now):
        return None
    return found


def files(
    session: Session,
    project_id: str,
    now: datetime,
    after: str | None,
    limit: int,
    *,
    purpose: str | None = None,
    newest_first: bool = True,
) -> list[FileRow]:
    """Return a page of the project's files behind the id `after`."""
    query = select(FileRow).where(FileRow.project_id == project_id).limit(limit)
    query = query.where((FileRow.expires_at.is_(None)) | (FileRow.expires_at > now))
    if purpose is not None:
        query = query.where(FileRow.purpose == purpose)
    if after is not None:
        query = query.where(FileRow.id < after if newest_first else FileRow.id > after)
    return list(session.scalars(query.order_by(FileRow.id.desc() if newest_first else FileRow.id)))


def remove_file(session: Session, project_id: str, file_id: str) -> str | None:
    """Remove a file; return the digest of its content, None when there is no such file."""
    gone = delete(FileRow).where(FileRow.id == file_id, FileRow.project_id == project_id).returning(FileRow.sha256)
    return session.scalar(gone)


def remove_expired(session: Session, now: datetime) -> None:
    """Remove files whose time has passed."""
    session.execute(delete(FileRow).where(FileRow.expires_at <= now))


def unused(session: Session, orphaned_before: datetime) -> list[str]:
    """Return the digests of content that no file refers to, and of uploads that were interrupted."""
    referred = exists().where(FileRow.sha256 == ContentRow.sha256)
    interrupted = (ContentRow.state == "incoming") & (ContentRow.touched_at < orphaned_before)
    query = select(ContentRow.sha256).where(~referred, (ContentRow.state != "incoming") | interrupted)
    return list(session.scalars(query.limit(1000)))


def begin_removal(session: Session, sha256: str, orphaned_before: datetime, now: datetime) -> bool:
    """Mark content as being removed, unless something needs it; True when the caller may delete it now.

    A removal by another process is taken over only when that one has been silent for long.
    """
    content = session.scalar(select(ContentRow).where(ContentRow.sha256 == sha256).with_for_update())
    if content is None or session.scalar(select(exists().where(FileRow.sha256 == sha256))):
        return False
    if content.state != "present" and content.touched_at >= orphaned_before:
        return False
    content.state, content.touched_at = "removing", now
    return True


def end_removal(session: Session, sha256: str) -> None:
    """Forget content that has been deleted."""
    session.execute(delete(ContentRow).where(ContentRow.sha256 == sha256, ContentRow.state == "removing"))
