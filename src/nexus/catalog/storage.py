"""Queries on own models and aliases. Each takes a `Session` first and runs in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nexus.catalog.errors import AliasMoved, AliasNotFound, ModelExists, ModelInUse, ModelNotFound
from nexus.catalog.tables import AliasChangeRow, AliasRow, ModelRow, VersionRow
from nexus.catalog.types import Alias, AliasChange
from nexus.core.ids import new_id
from nexus.storage.events import publish


@dataclass(frozen=True, slots=True)
class OwnModel:
    """A project's model with the numbers of its versions, newest first."""

    id: str
    name: str
    kind: str
    task: str
    versions: tuple[int, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OwnVersion:
    """A version as it was stored."""

    id: str
    number: int
    document: str
    signature: str
    size: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class NewVersion:
    """What a version will be, but for its number, which the database gives: `seal(number)` writes and signs it."""

    id: str
    project_id: str
    name: str
    kind: str
    task: str
    size: int
    created_by: str
    at: datetime
    seal: Callable[[int], tuple[str, str]]


class ModelBeingMade(ModelExists):
    """The model is being made by another request; try again."""


def own_models(session: Session, project_id: str) -> list[OwnModel]:
    """Return a project's models by name."""
    numbers: dict[str, list[int]] = {}
    pairs = select(VersionRow.model_id, VersionRow.number).join(ModelRow).where(ModelRow.project_id == project_id)
    for model_id, number in session.execute(pairs.order_by(VersionRow.number.desc())):
        numbers.setdefault(model_id, []).append(number)
    rows = session.scalars(select(ModelRow).where(ModelRow.project_id == project_id).order_by(ModelRow.name))
    return [OwnModel(r.id, r.name, r.kind, r.task, tuple(numbers.get(r.id, ())), r.created_at) for r in rows]


def models_of_kind(session: Session, kind: str) -> list[tuple[str, str]]:
    """Return project and name of all own models of a kind that have a version."""
    query = select(ModelRow.project_id, ModelRow.name).join(VersionRow, VersionRow.model_id == ModelRow.id)
    return [(project, name) for project, name in session.execute(query.where(ModelRow.kind == kind).distinct())]


def own_model(session: Session, project_id: str, name: str) -> OwnModel | None:
    """Return one model of a project, or None."""
    row = _model(session, project_id, name)
    if row is None:
        return None
    numbers = session.scalars(
        select(VersionRow.number).where(VersionRow.model_id == row.id).order_by(VersionRow.number.desc())
    )
    return OwnModel(row.id, row.name, row.kind, row.task, tuple(numbers), row.created_at)


def own_version(session: Session, model_id: str, number: int) -> OwnVersion | None:
    """Return one version of a model, or None."""
    row = session.scalar(select(VersionRow).where(VersionRow.model_id == model_id, VersionRow.number == number))
    return _version(row) if row else None


def add_version(session: Session, new: NewVersion) -> OwnVersion:
    """Store a version under the next number, making the model if it is the first.

    Raises `ModelExists` when the name is already that of a model of another kind or task, and
    `ModelBeingMade` when another transaction has just made it.
    """
    model = _model(session, new.project_id, new.name, lock=True)
    if model is None:
        model = ModelRow(
            id=new_id("mdl"),
            project_id=new.project_id,
            name=new.name,
            kind=new.kind,
            task=new.task,
            next_number=1,
            created_at=new.at,
        )
        session.add(model)
        try:
            session.flush()
        except IntegrityError:
            raise ModelBeingMade from None
    if (model.kind, model.task) != (new.kind, new.task):
        raise ModelExists(
            "The name is taken by a model of another kind or task.", field="name", kind=model.kind, task=model.task
        )
    number, model.next_number = model.next_number, model.next_number + 1
    document, signature = new.seal(number)
    row = VersionRow(
        id=new.id,
        model_id=model.id,
        number=number,
        document=document,
        signature=signature,
        size=new.size,
        created_by=new.created_by,
        created_at=new.at,
    )
    session.add(row)
    return _version(row)


def delete_version(session: Session, project_id: str, name: str, number: int) -> str:
    """Delete a version, and the model with its last one; return the version's id.

    Raises `ModelNotFound`, and `ModelInUse` while an alias points to it.
    """
    model = _model(session, project_id, name, lock=True)
    row = model and session.scalar(
        select(VersionRow).where(VersionRow.model_id == model.id, VersionRow.number == number)
    )
    if model is None or row is None:
        raise ModelNotFound
    pointing = session.scalars(
        select(AliasRow.alias).where(
            AliasRow.project_id == project_id, AliasRow.model == name, AliasRow.version == number
        )
    ).all()
    if pointing:
        raise ModelInUse("An alias points to the version; move it first.", aliases=sorted(pointing))
    session.delete(row)
    session.flush()
    if not session.scalar(select(func.count()).select_from(VersionRow).where(VersionRow.model_id == model.id)):
        session.execute(delete(AliasRow).where(AliasRow.project_id == project_id, AliasRow.model == name))
        session.delete(model)
    return row.id


def aliases_of(session: Session, project_id: str, model: str | None = None) -> list[Alias]:
    """Return the aliases of a project, or of one of its models, by name."""
    query = select(AliasRow).where(AliasRow.project_id == project_id).order_by(AliasRow.model, AliasRow.alias)
    if model is not None:
        query = query.where(AliasRow.model == model)
    return [_alias(row) for row in session.scalars(query)]


def alias_of(session: Session, project_id: str, model: str, alias: str) -> Alias | None:
    """Return one alias, or None."""
    row = session.get(AliasRow, (project_id, model, alias))
    return _alias(row) if row else None


def move_alias(
    session: Session,
    project_id: str,
    model: str,
    alias: str,
    version: int,
    *,
    expected: int | None,
    by: str,
    at: datetime,
) -> Alias:
    """Point an alias at a version and write the move down.

    `expected` is the revision that the caller has read (0: none yet; None: whatever it is now).
    Raises `AliasMoved` when it is another.
    """
    row = session.get(AliasRow, (project_id, model, alias), with_for_update=True)
    if expected is not None and expected != (row.revision if row else 0):
        raise AliasMoved(revision=row.revision if row else 0)
    old = row.version if row else None
    if row is None:
        # Not from 1 again after a deletion: an ETag of before must not fit.
        revision = 1 + _moves(session, project_id, model, alias)
        row = AliasRow(
            project_id=project_id, model=model, alias=alias, version=version, revision=revision, updated_at=at
        )
        session.add(row)
    else:
        row.version, row.revision, row.updated_at = version, row.revision + 1, at
    session.add(_change(project_id, model, alias, old, version, by, at))
    try:
        session.flush()
    except IntegrityError:
        raise AliasMoved from None
    if old != version:
        told = {"model": model, "alias": alias, "version": version, "previous": old, "by": by}
        publish(session, "model.promoted", project_id, told, at=at, subject=model)
    return _alias(row)


def delete_alias(
    session: Session, project_id: str, model: str, alias: str, *, expected: int | None, by: str, at: datetime
) -> None:
    """Remove an alias and write it down. Raises `AliasNotFound`, `AliasMoved`."""
    row = session.get(AliasRow, (project_id, model, alias), with_for_update=True)
    if row is None:
        raise AliasNotFound
    if expected is not None and expected != row.revision:
        raise AliasMoved(revision=row.revision)
    session.add(_change(project_id, model, alias, row.version, None, by, at))
    session.delete(row)


def alias_changes(session: Session, project_id: str, model: str, alias: str, limit: int = 100) -> list[AliasChange]:
    """Return the newest moves of an alias first."""
    query = (
        select(AliasChangeRow)
        .where(AliasChangeRow.project_id == project_id, AliasChangeRow.model == model, AliasChangeRow.alias == alias)
        .order_by(AliasChangeRow.id.desc())
        .limit(limit)
    )
    return [
        AliasChange(r.alias, r.old_version, r.new_version, r.changed_by, r.changed_at) for r in session.scalars(query)
    ]


def _moves(session: Session, project_id: str, model: str, alias: str) -> int:
    query = select(func.count()).select_from(AliasChangeRow)
    where = (AliasChangeRow.project_id == project_id, AliasChangeRow.model == model, AliasChangeRow.alias == alias)
    return session.scalar(query.where(*where)) or 0


def _model(session: Session, project_id: str, name: str, *, lock: bool = False) -> ModelRow | None:
    query = select(ModelRow).where(ModelRow.project_id == project_id, ModelRow.name == name)
    return session.scalar(query.with_for_update() if lock else query)


def _version(row: VersionRow) -> OwnVersion:
    return OwnVersion(row.id, row.number, row.document, row.signature, row.size, row.created_at)


def _alias(row: AliasRow) -> Alias:
    return Alias(row.model, row.alias, row.version, row.revision, row.updated_at)


def _change(
    project_id: str, model: str, alias: str, old: int | None, new: int | None, by: str, at: datetime
) -> AliasChangeRow:
    return AliasChangeRow(
        id=new_id("alc"),
        project_id=project_id,
        model=model,
        alias=alias,
        old_version=old,
        new_version=new,
        changed_by=by,
        changed_at=at,
    )
