"""Workflows and their immutable versions. Runs and steps are tables of `nexus.runs`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from nexus.storage.db import Base


class WorkflowRow(Base):
    """A workflow of a project. A deleted one keeps its row, so that its runs keep their name."""

    __tablename__ = "workflow"
    __table_args__ = (Index("uq_workflow_live", "project_id", "live_name", unique=True),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(63))
    live_name: Mapped[str | None] = mapped_column(String(63))  # null once deleted: the name is free again
    description: Mapped[str] = mapped_column(Text, default="")
    version: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class WorkflowVersionRow(Base):
    """One version: never changed once written."""

    __tablename__ = "workflow_version"

    workflow_id: Mapped[str] = mapped_column(ForeignKey("workflow.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    definition: Mapped[dict[str, Any]] = mapped_column(JSON)
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    created_by: Mapped[str] = mapped_column(String(40))
