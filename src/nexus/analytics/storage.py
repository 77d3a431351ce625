"""The queries of analytics."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from nexus.analytics.errors import DatasetNotFound
from nexus.analytics.tables import DatasetRow
from nexus.analytics.types import Column, Dataset


def add_dataset(session: Session, dataset: Dataset, created_by: str) -> None:
    """Insert a data set."""
    columns = [
        {"name": one.name, "kind": one.kind, "missing": one.missing, "distinct": one.distinct}
        for one in dataset.columns
    ]
    session.add(
        DatasetRow(
            id=dataset.id,
            project_id=dataset.project_id,
            name=dataset.name,
            filename=dataset.filename,
            sha256=dataset.sha256,
            size=dataset.size,
            rows=dataset.rows,
            columns=columns,
            created_at=dataset.created_at,
            created_by=created_by,
        )
    )


def dataset(session: Session, project_id: str, dataset_id: str) -> Dataset:
    """Return a data set of the project. Raises `DatasetNotFound`."""
    return _dataset(_row(session, project_id, dataset_id))


def datasets(session: Session, project_id: str, after: str | None, limit: int, *, descending: bool) -> list[Dataset]:
    """Return data sets of the project in the order of their ids, beyond `after`."""
    query = select(DatasetRow).where(DatasetRow.project_id == project_id)
    if after is not None:
        query = query.where(DatasetRow.id < after if descending else DatasetRow.id > after)
    order = DatasetRow.id.desc() if descending else DatasetRow.id
    return [_dataset(row) for row in session.scalars(query.order_by(order).limit(limit))]


def remove_dataset(session: Session, project_id: str, dataset_id: str) -> None:
    """Delete a data set. Its content may be that of a file or of another data set, so it stays.

    Raises `DatasetNotFound`.
    """
    session.delete(_row(session, project_id, dataset_id))


def _row(session: Session, project_id: str, dataset_id: str) -> DatasetRow:
    row = session.get(DatasetRow, dataset_id)
    if row is None or row.project_id != project_id:
        raise DatasetNotFound
    return row


def _dataset(row: DatasetRow) -> Dataset:
    return Dataset(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        filename=row.filename,
        sha256=row.sha256,
        size=row.size,
        rows=row.rows,
        columns=[Column(**column) for column in row.columns],
        created_at=row.created_at,
    )
