"""Queries of the engine side: claim a step, keep and collect leases, publish. How attempts end: `completion`.

Two rules make work neither lost nor done twice. A step is taken by compare-and-set on `(id, epoch,
status)`, and an attempt ends in one transaction that is void unless the same epoch is still running,
and that also makes the successors ready and writes their messages.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, bindparam, delete, exists, func, insert, select, update
from sqlalchemy.orm import Session

from nexus.access.types import Principal
from nexus.runs.outbox import announce, message_of
from nexus.runs.records import event_row, principal_of
from nexus.runs.tables import EVENT, OUTBOX, RUN, STEP, OutboxRow, RunRow, StepEventRow, StepRow
from nexus.runs.types import RetryPolicy, RunStatus, StepStatus

# How much earlier than its time a step may begin: clocks of two machines are never equal.
_EARLY = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A step that this engine holds, with all that its execution needs."""

    step_id: str
    epoch: int
    run_id: str
    key: str
    uses: str
    with_: dict[str, Any]
    when: str | None
    timeout: float | None
    queue: str
    rank: int
    attempt: int
    needed_by: list[str]
    policy: RetryPolicy
    failures: int
    crashes: int
    child_crashes: int
    state: dict[str, Any] | None
    signal: dict[str, Any] | None
    principal: Principal
    inputs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """What the end of an attempt led to: `fenced` when it no longer counted."""

    fenced: bool = False
    next: Claimed | None = None
    published: bool = False
    run_finished: bool = False
    retried: bool = False
    dead: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """All that a broker ever carries."""

    outbox_id: int
    step_id: str
    epoch: int
    queue: str


@dataclass(frozen=True, slots=True)
class Terms:
    """The numbers that decide how attempts end and begin. Seconds, and `random` in [0, 1)."""

    lease: float
    republish: float
    crash_limit: int
    child_crash_limit: int
    random: Callable[[], float]


def claim(session: Session, step_id: str, epoch: int, owner: str, now: datetime, lease: float) -> Claimed | None:
    """Take a step for `owner`, or return None when the message is stale, a duplicate or early."""
    run = session.execute(_RUN_OF_STEP, {"b_id": step_id}).one_or_none()
    if run is None or run.cancel_requested or run.finished_at is not None:
        return None
    taken = {
        "b_id": step_id,
        "b_epoch": epoch,
        "b_latest": now + _EARLY,
        "owner": owner,
        "lease_until": now + timedelta(seconds=lease),
        "now": now,
    }
    step = session.execute(_TAKE, taken).one_or_none()
    if step is None:
        return None
    events = []
    if run.status != RunStatus.RUNNING:
        session.execute(_BEGIN, {"b_run": run.id, "now": now})
        if run.started_at is None:
            events.append(event_row(run.id, None, "run.started", now))
    events.append(event_row(run.id, step.key, "step.started", now, attempt=step.attempts))
    session.execute(insert(EVENT), events)
    return claimed_of(run, step)


_RUN_OF_STEP: Final = (
    select(RUN).join(STEP, STEP.c.run_id == RUN.c.id).where(STEP.c.id == bindparam("b_id")).with_for_update(of=RUN)
)
_TAKE: Final = (
    update(STEP)
    .where(
        STEP.c.id == bindparam("b_id"),
        STEP.c.epoch == bindparam("b_epoch"),
        STEP.c.status.in_(("ready", "waiting")),
        STEP.c.run_at <= bindparam("b_latest"),
    )
    .values(
        status="running",
        attempts=STEP.c.attempts + 1,
        owner=bindparam("owner"),
        lease_until=bindparam("lease_until"),
        started_at=func.coalesce(STEP.c.started_at, bindparam("now", type_=STEP.c.started_at.type)),
        progress=None,
    )
    .returning(STEP)
)
_BEGIN: Final = (
    update(RUN)
    .where(RUN.c.id == bindparam("b_run"))
    .values(status="running", started_at=func.coalesce(RUN.c.started_at, bindparam("now", type_=RUN.c.started_at.type)))
)


def claimed_of(
    run: Row[Any] | None, step: Row[Any], *, like: Claimed | None = None, epoch: int = 0, attempt: int = 0
) -> Claimed:
    """Return a claimed step, given the rows of its run and itself; or another one of the run of `like`."""
    values = step._mapping  # noqa: SLF001  the public way to columns whose names are Python's words
    if like is not None:
        principal, inputs = like.principal, like.inputs
    else:
        assert run is not None
        principal, inputs = principal_of(run.project_id, run.starter), run.inputs
    return Claimed(
        step_id=step.id,
        epoch=epoch or step.epoch,
        run_id=step.run_id,
        key=step.key,
        uses=step.uses,
        with_=values["with"],
        when=values["when"],
        timeout=step.timeout,
        queue=step.queue,
        rank=step.rank,
        attempt=attempt or step.attempts,
        needed_by=step.needed_by,
        policy=RetryPolicy(**step.retries),
        failures=step.failures,
        crashes=step.crashes,
        child_crashes=step.child_crashes,
        state=step.state,
        signal=step.signal,
        principal=principal,
        inputs=inputs,
    )


def outputs_of(session: Session, run_id: str) -> dict[str, dict[str, Any]]:
    """Return `{key: {"output", "status"}}` of the steps of a run, for templates."""
    query = select(StepRow.key, StepRow.status, StepRow.output).where(StepRow.run_id == run_id)
    return {key: {"output": output, "status": status} for key, status, output in session.execute(query)}


def renew(session: Session, owner: str, step_ids: Collection[str], now: datetime, lease: float) -> dict[str, int]:
    """Extend the leases of `owner` on these steps; return `{step id: epoch}` of what it still holds.

    Only what the engine knows itself to run is renewed: a step taken in a commit whose answer got lost
    must come free.
    """
    fence = (StepRow.id.in_(step_ids), StepRow.owner == owner, StepRow.status == StepStatus.RUNNING)
    later = update(StepRow).where(*fence).values(lease_until=now + timedelta(seconds=lease))
    return {held.id: held.epoch for held in session.execute(later.returning(StepRow.id, StepRow.epoch))}


def cancelled_among(session: Session, run_ids: Collection[str]) -> set[str]:
    """Return which of these runs somebody wants to stop."""
    query = select(RunRow.id).where(RunRow.id.in_(run_ids), RunRow.cancel_requested)
    return set(session.execute(query).scalars())


def save_state(session: Session, claimed: Claimed, state: dict[str, Any]) -> bool:
    """Store a checkpoint of a running attempt; False when the attempt is over."""
    fence = (StepRow.id == claimed.step_id, StepRow.epoch == claimed.epoch, StepRow.status == StepStatus.RUNNING)
    saved = update(StepRow).where(*fence).values(state=state).returning(StepRow.id)
    return session.execute(saved).scalar_one_or_none() is not None


def add_lines(
    session: Session, lines: Sequence[dict[str, Any]], progress: dict[tuple[str, int], dict[str, Any]]
) -> None:
    """Append log and progress lines, and put the newest progress of `(step id, epoch)` on its step."""
    # Locking the runs first keeps the ids of a run's events in the order of their commits.
    for run_id in sorted({line["run_id"] for line in lines}):
        session.execute(select(RunRow.id).where(RunRow.id == run_id).with_for_update())
    for (step_id, epoch), newest in progress.items():
        fence = (StepRow.id == step_id, StepRow.epoch == epoch, StepRow.status == StepStatus.RUNNING)
        session.execute(update(StepRow).where(*fence).values(progress=newest))
    if lines:
        session.execute(insert(StepEventRow), lines)


def lost_steps(session: Session, now: datetime, limit: int) -> list[tuple[str, str, int]]:
    """Return `(run id, step id, epoch)` of running steps whose lease is over."""
    query = select(StepRow.run_id, StepRow.id, StepRow.epoch)
    over = query.where(StepRow.status == StepStatus.RUNNING, StepRow.lease_until < now).limit(limit)
    return [(run_id, step_id, epoch) for run_id, step_id, epoch in session.execute(over)]


def steps_held_by(session: Session, owner: str) -> list[tuple[str, str, int]]:
    """Return `(run id, step id, epoch)` of all that `owner` still runs."""
    query = select(StepRow.run_id, StepRow.id, StepRow.epoch)
    held = query.where(StepRow.owner == owner, StepRow.status == StepStatus.RUNNING)
    return [(run_id, step_id, epoch) for run_id, step_id, epoch in session.execute(held)]


def mend_leases(session: Session, now: datetime, lease: float) -> int:
    """Shorten leases that end impossibly late, because a clock was set back; return how many."""
    longest = now + timedelta(seconds=2 * lease)
    late = update(StepRow).where(StepRow.status == StepStatus.RUNNING, StepRow.lease_until > longest)
    mended = session.execute(late.values(lease_until=now + timedelta(seconds=lease)).returning(StepRow.id))
    return len(mended.all())


def republish(session: Session, now: datetime, seconds: float, limit: int, *, all_at_once: bool = False) -> int:
    """Write messages again for due steps that nobody took and that have none; return how many.

    Each step waits twice as long as before for the next time. With `all_at_once` (the broker is known to
    be empty) no step waits.
    """
    none_out = ~exists().where(OutboxRow.step_id == StepRow.id, OutboxRow.epoch == StepRow.epoch)
    query = select(StepRow).where(
        StepRow.status.in_((StepStatus.READY, StepStatus.WAITING)), StepRow.run_at.is_not(None), none_out
    )
    if not all_at_once:
        query = query.where(StepRow.republish_at < now)
    steps = session.execute(query.limit(limit).with_for_update(skip_locked=True)).scalars().all()
    for step in steps:
        step.republished += 1
        pause = min(3600.0, seconds * 2.0 ** min(step.republished, 10))
        step.republish_at = max(step.run_at or now, now) + timedelta(seconds=pause)
    if steps:
        session.execute(insert(OutboxRow), [_message(s, now) for s in steps])
        announce(session, "outbox")
    return len(steps)


def _message(step: StepRow, now: datetime) -> dict[str, Any]:
    return message_of(step, now, max(step.run_at or now, now))


def overdue_runs(session: Session, now: datetime, limit: int) -> list[tuple[str, str]]:
    """Return `(project id, run id)` of runs whose deadline has passed."""
    overdue = select(RunRow.project_id, RunRow.id).where(
        RunRow.deadline_at < now, RunRow.finished_at.is_(None), RunRow.cancel_requested.is_(False)
    )
    found = session.execute(overdue.order_by(RunRow.deadline_at).limit(limit))
    return [(project_id, run_id) for project_id, run_id in found]


def due_messages(session: Session, now: datetime, limit: int) -> list[Message]:
    """Return up to `limit` messages to publish, locked against other dispatchers.

    When more are due than that, projects take turns, so a large one does not hold up a small one.
    """
    rows = session.execute(_DUE, {"b_now": now, "b_limit": limit + 1}).all()
    if len(rows) > limit:
        turn = func.row_number().over(partition_by=OUTBOX.c.project_id, order_by=OUTBOX.c.id).label("turn")
        turns = select(OUTBOX.c.id, turn).where(OUTBOX.c.due_at <= now).subquery()
        chosen = select(turns.c.id).order_by(turns.c.turn, turns.c.id).limit(limit)
        fair = select(OUTBOX).where(OUTBOX.c.id.in_(chosen)).order_by(OUTBOX.c.id)
        rows = session.execute(fair.with_for_update(skip_locked=True)).all()
    return [Message(row.id, row.step_id, row.epoch, row.queue) for row in rows]


_DUE: Final = (
    select(OUTBOX)
    .where(OUTBOX.c.due_at <= bindparam("b_now"))
    .order_by(OUTBOX.c.id)
    .limit(bindparam("b_limit"))
    .with_for_update(skip_locked=True)
)


def next_due(session: Session) -> datetime | None:
    """Return when the earliest message is due, or None when there is none."""
    return session.execute(select(func.min(OutboxRow.due_at))).scalar_one_or_none()


def delete_messages(session: Session, ids: Collection[int]) -> None:
    """Forget messages that the broker has taken."""
    session.execute(_FORGET, {"b_ids": list(ids)})


_FORGET: Final = delete(OUTBOX).where(OUTBOX.c.id.in_(bindparam("b_ids", expanding=True)))
