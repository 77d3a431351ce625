"""The named queries over workflows. Each is bound to a project."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nexus.automation.tables import WorkflowRow, WorkflowVersionRow
from nexus.core.ids import is_id, new_id


def find_workflow(session: Session, project_id: str, name_or_id: str, *, lock: bool = False) -> WorkflowRow | None:
    """Return a live workflow by its name or id."""
    by_id = is_id(name_or_id, "wf")
    query = select(WorkflowRow).where(
        WorkflowRow.project_id == project_id,
        WorkflowRow.live_name.is_not(None),
        (WorkflowRow.id if by_id else WorkflowRow.live_name) == name_or_id,
    )
    return session.scalars(query.with_for_update() if lock else query).one_or_none()


def save_version(
    session: Session, project_id: str, definition: dict[str, Any], sha256: str, by: str, at: datetime
) -> tuple[WorkflowRow, bool]:
    """Store a definition as a new version of the workflow of its name, unless it is the newest already.

    Returns the workflow and whether anything was written.
    """
    name = definition["name"]
    if session.get_bind().dialect.name == "postgresql":
        # A row that is not there yet cannot be locked: two first versions at once wait for each other here.
        session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"{project_id}/{name}"))))
    row = find_workflow(session, project_id, name, lock=True)
    if row is not None and find_version(session, row.id, row.version).sha256 == sha256:
        return row, False
    if row is None:
        row = WorkflowRow(
            id=new_id("wf"), project_id=project_id, name=name, live_name=name, version=0, created_at=at, updated_at=at
        )
        session.add(row)
        session.flush()
    row.version += 1
    row.description = definition.get("description", "")
    row.updated_at = at
    session.add(
        WorkflowVersionRow(
            workflow_id=row.id, version=row.version, definition=definition, sha256=sha256, created_at=at, created_by=by
        )
    )
    session.flush()
    return row, True


def find_version(session: Session, workflow_id: str, version: int) -> WorkflowVersionRow:
    """Return one version, which must be there."""
    return session.get_one(WorkflowVersionRow, (workflow_id, version))


def get_version(session: Session, workflow_id: str, version: int) -> WorkflowVersionRow | None:
    """Return one version or None."""
    return session.get(WorkflowVersionRow, (workflow_id, version))


def versions_of(session: Session, workflow_id: str) -> list[WorkflowVersionRow]:
    """Return all versions, the newest first."""
    query = select(WorkflowVersionRow).where(WorkflowVersionRow.workflow_id == workflow_id)
    return list(session.scalars(query.order_by(WorkflowVersionRow.version.desc())))


def list_workflows(
    session: Session, project_id: str, after: str | None, limit: int, descending: bool
) -> list[WorkflowRow]:
    """Return live workflows in the order of their ids, which is that of time, beyond the id `after`."""
    query = select(WorkflowRow).where(WorkflowRow.project_id == project_id, WorkflowRow.live_name.is_not(None))
    if after is not None:
        query = query.where(WorkflowRow.id < after if descending else WorkflowRow.id > after)
    order = WorkflowRow.id.desc() if descending else WorkflowRow.id.asc()
    return list(session.scalars(query.order_by(order).limit(limit)))


def delete_workflow(session: Session, project_id: str, name_or_id: str, at: datetime) -> bool:
    """Take a workflow out of use; its versions and runs stay. Returns whether it was there."""
    row = find_workflow(session, project_id, name_or_id, lock=True)
    if row is None:
        return False
    row.live_name, row.updated_at = None, at
    return True
