"""Files, and the content that one or more of them share."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from nexus.storage.db import Base


class ContentRow(Base):
    """Stored bytes. `state` is `incoming` while they are written, `present`, or `removing` while they are deleted.

    Every change of hands goes through this row, so that an upload never relies on bytes that are
    being deleted, and a process that dies half-way leaves a row that says what to sweep.
    """

    __tablename__ = "file_content"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(10))
    touched_at: Mapped[datetime] = mapped_column(index=True)


class FileRow(Base):
    """A file of a project."""

    __tablename__ = "file"
    __table_args__ = (Index("ix_file_project", "project_id", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(40))
    principal_id: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(ForeignKey("file_content.sha256"), index=True)
    size: Mapped[int] = mapped_column(BigInteger)
    filename: Mapped[str] = mapped_column(String(255))
    content_type: Mapped[str] = mapped_column(String(255))
    purpose: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None] = mapped_column(index=True)
