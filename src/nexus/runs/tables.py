"""Runs, their steps, what is to be published, and what happened.

Status, epoch and lease of a step change only by compare-and-set on `(id, epoch, status)`. Every
change of a run's steps first locks the run's row, which gives the events of a run ids in the
order of their commits, on PostgreSQL too.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import JSON, BigInteger, Index, Integer, String, Table, Text, UniqueConstraint, false, insert, text
from sqlalchemy.orm import Mapped, mapped_column

from nexus.storage.db import Base

_AUTO_ID = BigInteger().with_variant(Integer, "sqlite")
_LIVE = text("status IN ('ready', 'running', 'waiting')")
_UNFINISHED = text("finished_at IS NULL")
_IN_LANE = text("lane IS NOT NULL AND finished_at IS NULL")
_IS_CHILD = text("parent_run_id IS NOT NULL AND finished_at IS NULL")
_HELD = text("lane IS NOT NULL AND status IN ('ready', 'running')")


class RunRow(Base):
    """One run. `starter` is the principal; `fingerprint` tells two uses of one idempotency key apart.

    `plan` is what is only needed at the end: the steps for a failure, the templates of the result.
    `round` counts how often the run was retried. At most `lane_limit` runs of one `lane` go on at once.
    A child run wakes the step `parent_step_id` when it ends. `failing`: the steps of `on_failure` are at work.
    """

    __tablename__ = "run"
    __table_args__ = (
        UniqueConstraint("project_id", "kind", "name", "idempotency_key"),
        Index("ix_run_project", "project_id", "id"),
        Index("ix_run_deadline", "deadline_at", sqlite_where=_UNFINISHED, postgresql_where=_UNFINISHED),
        Index("ix_run_lane", "lane", "id", sqlite_where=_IN_LANE, postgresql_where=_IN_LANE),
        Index("ix_run_parent", "parent_run_id", sqlite_where=_IS_CHILD, postgresql_where=_IS_CHILD),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(40))
    principal_id: Mapped[str] = mapped_column(String(80))
    starter: Mapped[dict[str, Any]] = mapped_column(JSON)
    kind: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(200))
    version: Mapped[int | None]
    status: Mapped[str] = mapped_column(String(16))
    inputs: Mapped[dict[str, Any]] = mapped_column(JSON)
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    fingerprint: Mapped[str] = mapped_column(String(64))
    steps_total: Mapped[int]
    steps_left: Mapped[int]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    paused: Mapped[bool] = mapped_column(default=False, server_default=false())
    failing: Mapped[bool] = mapped_column(default=False, server_default=false())
    priority: Mapped[int] = mapped_column(default=0, server_default="0")
    round: Mapped[int] = mapped_column(default=0, server_default="0")
    trigger: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    plan: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    lane: Mapped[str | None] = mapped_column(String(200))
    lane_limit: Mapped[int | None]
    parent_run_id: Mapped[str | None] = mapped_column(String(40))
    parent_step_id: Mapped[str | None] = mapped_column(String(40))
    depth: Mapped[int] = mapped_column(default=0, server_default="0")
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]


class StepRow(Base):
    """One step of a run.

    `epoch` grows whenever the step is made ready again, so a message or a worker of the past is told
    apart. `failures` counts attempts that failed, `crashes` those whose engine died, `child_crashes`
    those whose own child process died. `run_at` is the earliest moment of the next attempt.

    A step with `map` in its `options` becomes a row for each item (`map_index` from 0, the `item`), and
    waits itself (`map_index` -1) until `items_left` is 0. `woken`: a signal came while it ran. At most
    `lane_limit` steps of one `lane` run at once; a `held` step is ready, and has no message until whoever
    leaves the lane (or resumes the run) calls it. A low `rank` goes first.
    """

    __tablename__ = "step"
    __table_args__ = (
        UniqueConstraint("run_id", "key", "map_index"),
        Index("ix_step_live", "status", "queue", sqlite_where=_LIVE, postgresql_where=_LIVE),
        Index("ix_step_owner", "owner", sqlite_where=_LIVE, postgresql_where=_LIVE),
        Index("ix_step_lane", "lane", "status", "rank", "map_index", "id", sqlite_where=_HELD, postgresql_where=_HELD),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    run_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str] = mapped_column(String(40))
    position: Mapped[int]
    key: Mapped[str] = mapped_column(String(64))
    map_index: Mapped[int] = mapped_column(default=-1, server_default="-1")
    item: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    items_left: Mapped[int] = mapped_column(default=0, server_default="0")
    uses: Mapped[str] = mapped_column(String(100))
    with_: Mapped[dict[str, Any]] = mapped_column("with", JSON)
    when: Mapped[str | None] = mapped_column("when", Text)
    needs: Mapped[list[str]] = mapped_column(JSON)
    needed_by: Mapped[list[str]] = mapped_column(JSON)
    retries: Mapped[dict[str, Any]] = mapped_column(JSON)
    timeout: Mapped[float | None]
    queue: Mapped[str] = mapped_column(String(32))
    rank: Mapped[int] = mapped_column(default=0, server_default="0")
    options: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    lane: Mapped[str | None] = mapped_column(String(200))
    lane_limit: Mapped[int | None]
    held: Mapped[bool] = mapped_column(default=False, server_default=false())
    woken: Mapped[bool] = mapped_column(default=False, server_default=false())
    status: Mapped[str] = mapped_column(String(16))
    epoch: Mapped[int]
    needs_left: Mapped[int]
    needs_skipped: Mapped[int]
    owner: Mapped[str | None] = mapped_column(String(80))
    lease_until: Mapped[datetime | None]
    run_at: Mapped[datetime | None]
    ready_at: Mapped[datetime | None]
    republish_at: Mapped[datetime | None]
    republished: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    crashes: Mapped[int] = mapped_column(default=0)
    child_crashes: Mapped[int] = mapped_column(default=0)
    output: Mapped[Any] = mapped_column(JSON(none_as_null=True), nullable=True)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    state: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    signal: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    progress: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class OutboxRow(Base):
    """A message to publish when it is due. Written with the change that made the step ready.

    A low `rank` goes first: it is the run's priority with its sign turned.
    """

    __tablename__ = "outbox"
    __table_args__ = (
        Index("ix_outbox_due", "due_at"),
        Index("ix_outbox_step", "step_id"),
        Index("ix_outbox_turn", "queue", "project_id", "rank", "id"),
    )

    id: Mapped[int] = mapped_column(_AUTO_ID, primary_key=True, autoincrement=True)
    step_id: Mapped[str] = mapped_column(String(40))
    epoch: Mapped[int]
    project_id: Mapped[str] = mapped_column(String(40))
    queue: Mapped[str] = mapped_column(String(32))
    rank: Mapped[int] = mapped_column(default=0, server_default="0")
    created_at: Mapped[datetime]
    due_at: Mapped[datetime]


class StepEventRow(Base):
    """One line of the append-only timeline of a run, logs included."""

    __tablename__ = "step_event"
    __table_args__ = (Index("ix_step_event_run", "run_id", "id"),)

    id: Mapped[int] = mapped_column(_AUTO_ID, primary_key=True, autoincrement=True)
    run_id: Mapped[str] = mapped_column(String(40))
    step_key: Mapped[str | None] = mapped_column(String(64))
    map_index: Mapped[int | None]
    type: Mapped[str] = mapped_column(String(32))
    at: Mapped[datetime]
    data: Mapped[dict[str, Any]] = mapped_column(JSON)


class LeaseRow(Base):
    """Who may do a thing that one process at a time should do. It spares work; safety never rests on it."""

    __tablename__ = "lease"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    owner: Mapped[str] = mapped_column(String(80))
    until: Mapped[datetime]


RUN: Table = cast("Table", RunRow.__table__)
STEP: Table = cast("Table", StepRow.__table__)
OUTBOX: Table = cast("Table", OutboxRow.__table__)
EVENT: Table = cast("Table", StepEventRow.__table__)
PUT_EVENTS: Final = insert(EVENT)
WORKING: Final = tuple(
    STEP.c[name]
    for name in (
        "id", "run_id", "project_id", "position", "epoch", "status", "key", "map_index", "item", "items_left", "uses",
        "with", "when", "timeout", "queue", "rank", "lane", "lane_limit", "attempts", "needs", "needed_by", "options",
        "retries", "failures", "crashes", "child_crashes", "state", "signal", "needs_left", "needs_skipped",
    )
)  # fmt: skip
"""The columns that the work on a step needs. Reading times and outputs along with them costs more than it looks."""
