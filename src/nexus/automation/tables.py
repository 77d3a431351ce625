"""Workflows and their immutable versions, approvals, secrets. Runs and steps are tables of `nexus.runs`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text, UniqueConstraint, false
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


class ApprovalRow(Base):
    """A question that a step asks people. One for each step and round of its run.

    `roles` and `users` say who may answer; both empty: whoever has the scope `automation:approve`. With
    `four_eyes` it is not who started the run.
    """

    __tablename__ = "approval"
    __table_args__ = (
        UniqueConstraint("step_id", "round"),
        Index("ix_approval_project", "project_id", "status", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(40))
    run_id: Mapped[str] = mapped_column(String(40), index=True)
    step_id: Mapped[str] = mapped_column(String(40))
    step_key: Mapped[str] = mapped_column(String(64))
    map_index: Mapped[int | None]
    round: Mapped[int]
    status: Mapped[str] = mapped_column(String(16))
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[Any] = mapped_column(JSON(none_as_null=True), nullable=True)
    roles: Mapped[list[str]] = mapped_column(JSON)
    users: Mapped[list[str]] = mapped_column(JSON)
    four_eyes: Mapped[bool] = mapped_column(default=False, server_default=false())
    requested_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    decided_at: Mapped[datetime | None]
    decided_by: Mapped[str | None] = mapped_column(String(80))
    comment: Mapped[str | None] = mapped_column(Text)


class SecretRow(Base):
    """A secret of a project, sealed by the keyring for this very row."""

    __tablename__ = "secret"
    __table_args__ = (UniqueConstraint("project_id", "name"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(64))
    sealed: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    updated_by: Mapped[str] = mapped_column(String(80))


class ScheduleRow(Base):
    """A workflow that is started by the clock. `next_fire_at` moves by compare-and-set, so each fire counts once.

    `starter` is whose rights its runs have; `misfire` and `overlap` are the words of `schedules`.
    """

    __tablename__ = "schedule"
    __table_args__ = (
        Index("uq_schedule_name", "project_id", "name", unique=True),
        Index("ix_schedule_due", "next_fire_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(63))
    workflow_id: Mapped[str] = mapped_column(String(40), index=True)
    version: Mapped[int | None]
    inputs: Mapped[dict[str, Any]] = mapped_column(JSON)
    cron: Mapped[str] = mapped_column(String(200))
    timezone: Mapped[str] = mapped_column(String(64))
    misfire: Mapped[str] = mapped_column(String(16))
    catch_up_limit: Mapped[int]
    overlap: Mapped[str] = mapped_column(String(16))
    enabled: Mapped[bool]
    starter: Mapped[dict[str, Any]] = mapped_column(JSON)
    next_fire_at: Mapped[datetime | None]
    last_fire_at: Mapped[datetime | None]
    last_run_id: Mapped[str | None] = mapped_column(String(40))
    last_error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    fired: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
