"""Tables of own models, their signed versions, and aliases.

Models of the catalogue have no rows here: they are data of the release, and their files on disk say
whether they are here. Aliases are rows for both.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from nexus.storage.db import Base


class ModelRow(Base):
    """A project's own model. `next_number` only grows: a deleted version's number is never used again."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("project_id", "name"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(63))
    kind: Mapped[str] = mapped_column(String(20))
    task: Mapped[str] = mapped_column(String(40))
    next_number: Mapped[int] = mapped_column(Integer, default=1)
    created_at: Mapped[datetime]


class VersionRow(Base):
    """A version, written once. `document` is the canonical JSON that `signature` is made over."""

    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("model_id", "number"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(Integer)
    document: Mapped[str] = mapped_column(Text)
    signature: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    created_by: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime]


class AliasRow(Base):
    """Which version a name means in a project; `revision` counts the moves."""

    __tablename__ = "model_aliases"

    project_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    model: Mapped[str] = mapped_column(String(63), primary_key=True)
    alias: Mapped[str] = mapped_column(String(63), primary_key=True)
    version: Mapped[int] = mapped_column(Integer)
    revision: Mapped[int] = mapped_column(Integer)
    updated_at: Mapped[datetime]


class AliasChangeRow(Base):
    """One move of an alias."""

    __tablename__ = "model_alias_changes"
    __table_args__ = (Index("ix_model_alias_changes_model", "project_id", "model", "alias"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(40))
    model: Mapped[str] = mapped_column(String(63))
    alias: Mapped[str] = mapped_column(String(63))
    old_version: Mapped[int | None] = mapped_column(Integer)
    new_version: Mapped[int | None] = mapped_column(Integer)
    changed_by: Mapped[str] = mapped_column(String(40))
    changed_at: Mapped[datetime]
