"""Concurrency limits. At most so many steps, or runs, of one lane go on at once.

Who goes on is counted from what really does (running steps with live leases, unfinished runs), never
from a counter, so that no crash can leave a slot taken. Whoever finds the lane full is held: ready, without
a message. Whoever leaves the lane calls the next one.

On PostgreSQL both sides take a lock of the lane's name, always after the lock on their run, so that the
last one out and the first one turned away cannot miss each other. SQLite has one writer at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, bindparam, exists, func, or_, select, update
from sqlalchemy.orm import Session

from nexus.runs.planting import FAR
from nexus.runs.tables import OUTBOX, RUN, STEP, WORKING

_BUSY: Final = (
    select(func.count())
    .select_from(STEP)
    .where(
        STEP.c.lane == bindparam("lane"),
        STEP.c.status == "running",
        STEP.c.lease_until > bindparam("now"),
        STEP.c.id != bindparam("b_id"),
    )
)
_GOING: Final = (
    select(func.count())
    .select_from(RUN)
    .where(
        RUN.c.lane == bindparam("lane"),
        RUN.c.finished_at.is_(None),
        RUN.c.started_at.is_not(None),
        RUN.c.id != bindparam("b_id"),
    )
)
_HOLD: Final = (
    update(STEP)
    .where(
        STEP.c.id == bindparam("b_id"), STEP.c.epoch == bindparam("b_epoch"), STEP.c.status.in_(("ready", "waiting"))
    )
    .values(status="ready", held=True, republish_at=bindparam("republish_at"))
)
_CALL: Final = update(STEP).where(STEP.c.id == bindparam("b_id")).values(held=False, republish_at=bindparam("until"))
_NO_MESSAGE: Final = ~exists().where(OUTBOX.c.step_id == STEP.c.id, OUTBOX.c.epoch == STEP.c.epoch)
_OTHER: Final = RUN.alias("other")
_MAY_BEGIN: Final = or_(
    RUN.c.started_at.is_not(None),
    RUN.c.lane.is_(None),
    select(func.count())
    .where(_OTHER.c.lane == RUN.c.lane, _OTHER.c.finished_at.is_(None), _OTHER.c.started_at.is_not(None))
    .scalar_subquery()
    < RUN.c.lane_limit,
)
_NEXT: Final = (
    select(*WORKING)
    .join(RUN, RUN.c.id == STEP.c.run_id)
    .where(
        STEP.c.lane == bindparam("lane"),
        STEP.c.status == "ready",
        STEP.c.held,
        ~RUN.c.paused,
        ~RUN.c.cancel_requested,
        _MAY_BEGIN,
        _NO_MESSAGE,
    )
    .order_by(STEP.c.rank, STEP.c.map_index, STEP.c.id)
    .limit(1)
    # Somebody who holds this step's row waits for our lane, perhaps: take another.
    .with_for_update(of=STEP, skip_locked=True)
)
_NEXT_RUN: Final = (
    select(RUN.c.id)
    .where(
        RUN.c.lane == bindparam("lane"),
        RUN.c.finished_at.is_(None),
        RUN.c.started_at.is_(None),
        ~RUN.c.paused,
        ~RUN.c.cancel_requested,
        exists().where(STEP.c.run_id == RUN.c.id, STEP.c.status == "ready", STEP.c.held),
    )
    .order_by(RUN.c.priority.desc(), RUN.c.id)
    .limit(1)
)
_HELD_OF: Final = (
    select(*WORKING)
    .where(STEP.c.run_id == bindparam("b_run"), STEP.c.status == "ready", STEP.c.held, _NO_MESSAGE)
    .with_for_update(skip_locked=True)
)


def lock(session: Session, lane: str) -> None:
    """Keep everybody else out of the lane until this transaction ends."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(lane, 0))))


def admits(session: Session, lane: str, limit: int, step_id: str, now: datetime) -> bool:
    """Tell whether the lane has room for this step."""
    lock(session, lane)
    return session.execute(_BUSY, {"lane": lane, "now": now, "b_id": step_id}).scalar_one() < limit


def admits_run(session: Session, lane: str, limit: int, run_id: str) -> bool:
    """Tell whether the lane has room for a run that has not begun."""
    lock(session, lane)
    return session.execute(_GOING, {"lane": lane, "b_id": run_id}).scalar_one() < limit


def hold(session: Session, step_id: str, epoch: int, now: datetime) -> None:
    """Leave a step ready without a message, until somebody calls it."""
    far = now + timedelta(seconds=FAR)
    session.execute(_HOLD, {"b_id": step_id, "b_epoch": epoch, "republish_at": far})


def call_next(session: Session, lane: str, now: datetime, republish: float) -> Row[Any] | None:
    """Return the held step whose turn it is, no longer held; the caller takes it or writes its message."""
    lock(session, lane)
    step = session.execute(_NEXT, {"lane": lane}).one_or_none()
    if step is not None:
        session.execute(_CALL, {"b_id": step.id, "until": now + timedelta(seconds=republish)})
    return step


def call_next_run(session: Session, lane: str, now: datetime, republish: float) -> Sequence[Row[Any]]:
    """Return the held steps of the run whose turn it is, no longer held, to write messages for."""
    lock(session, lane)
    run_id = session.execute(_NEXT_RUN, {"lane": lane}).scalar_one_or_none()
    if run_id is None:
        return []
    return call_held(session, run_id, now, republish)


def call_held(session: Session, run_id: str, now: datetime, republish: float) -> Sequence[Row[Any]]:
    """Return the held steps of a run, no longer held, to write messages for."""
    steps = session.execute(_HELD_OF, {"b_run": run_id}).all()
    for step in steps:
        session.execute(_CALL, {"b_id": step.id, "until": now + timedelta(seconds=republish)})
    return steps
