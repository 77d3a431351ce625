"""Queries of the engine side: claim a step, end an attempt, keep and collect leases, publish.

Two rules make work neither lost nor done twice. A step is taken by compare-and-set on `(id, epoch,
status)`, and an attempt ends in one transaction that is void unless the same epoch is still running,
and that also makes the successors ready and writes their messages.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, exists, func, insert, select, update
from sqlalchemy.orm import Session

from nexus.access.types import Principal
from nexus.runs.records import event_row, failure_json, principal_of
from nexus.runs.storage import announce, message
from nexus.runs.tables import OutboxRow, RunRow, StepEventRow, StepRow
from nexus.runs.transitions import (
    Again,
    Cancelled,
    Failed,
    Outcome,
    Released,
    Skipped,
    Succeeded,
    Waits,
    after_crash,
    after_failure,
    after_need,
    run_end,
    run_result,
)
from nexus.runs.types import Failure, RetryPolicy, RunStatus, StepStatus

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
    attempt: int
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
    row = session.execute(
        select(RunRow)
        .join(StepRow, StepRow.run_id == RunRow.id)
        .where(StepRow.id == step_id)
        .with_for_update(of=RunRow)
    ).scalar_one_or_none()
    if row is None or row.cancel_requested or row.finished_at is not None:
        return None
    open_to_claim = (
        StepRow.id == step_id,
        StepRow.epoch == epoch,
        StepRow.status.in_((StepStatus.READY, StepStatus.WAITING)),
        StepRow.run_at <= now + _EARLY,
    )
    step = session.execute(
        update(StepRow).where(*open_to_claim).values(_taken(owner, now, lease)).returning(StepRow)
    ).scalar_one_or_none()
    if step is None:
        return None
    events = _begin_run(row, now)
    session.flush()
    session.execute(
        insert(StepEventRow), [*events, event_row(row.id, step.key, "step.started", now, attempt=step.attempts)]
    )
    return _claimed(row, step)


def _taken(owner: str, now: datetime, lease: float) -> dict[str, Any]:
    return {
        "status": StepStatus.RUNNING,
        "owner": owner,
        "lease_until": now + timedelta(seconds=lease),
        "attempts": StepRow.attempts + 1,
        "started_at": func.coalesce(StepRow.started_at, now),
        "progress": None,
    }


def _begin_run(row: RunRow, now: datetime) -> list[dict[str, Any]]:
    begun = row.started_at is not None
    if row.status != RunStatus.RUNNING:
        row.status = RunStatus.RUNNING
    if begun:
        return []
    row.started_at = now
    return [event_row(row.id, None, "run.started", now)]


def _claimed(row: RunRow, step: StepRow) -> Claimed:
    return Claimed(
        step_id=step.id,
        epoch=step.epoch,
        run_id=row.id,
        key=step.key,
        uses=step.uses,
        with_=step.with_,
        when=step.when,
        timeout=step.timeout,
        queue=step.queue,
        attempt=step.attempts,
        state=step.state,
        signal=step.signal,
        principal=principal_of(row.project_id, row.starter),
        inputs=row.inputs,
    )


def outputs_of(session: Session, run_id: str) -> dict[str, dict[str, Any]]:
    """Return `{key: {"output", "status"}}` of the steps of a run, for templates."""
    query = select(StepRow.key, StepRow.status, StepRow.output).where(StepRow.run_id == run_id)
    return {key: {"output": output, "status": status} for key, status, output in session.execute(query)}


@dataclass(slots=True)
class _Change:
    """What has come together so far while an attempt ends."""

    row: RunRow
    now: datetime
    events: list[dict[str, Any]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    ready: list[StepRow] = field(default_factory=list)

    def event(self, key: str | None, type_: str, **data: Any) -> None:
        self.events.append(event_row(self.row.id, key, type_, self.now, **data))


def finish(
    session: Session,
    claimed: Claimed,
    outcome: Outcome,
    now: datetime,
    terms: Terms,
    *,
    owner: str,
    go_on: bool = False,
    lines: Sequence[dict[str, Any]] = (),
) -> Ended:
    """End an attempt: in one transaction, and only if this epoch is still running.

    With `go_on`, one step that has become ready in the same queue is taken by `owner` at once, without
    a message. `lines` are log lines of the attempt not stored yet.
    """
    row = session.execute(select(RunRow).where(RunRow.id == claimed.run_id).with_for_update()).scalar_one_or_none()
    step = None if row is None else _held(session, claimed)
    if row is None or step is None:
        return Ended(fenced=True)
    change = _Change(row, now, events=list(lines))
    ended, kept, dead = _apply(step, outcome, change, terms)
    if ended:
        _settle(session, step, change, terms.republish)
    following = _go_on(change, claimed.queue, owner, terms.lease) if go_on else None
    _finish_run(session, change, going_on=following is not None)
    _write(session, change)
    return Ended(
        next=None if following is None else _claimed(row, following),
        published=bool(change.messages),
        run_finished=row.finished_at is not None,
        retried=kept,
        dead=dead,
    )


def _held(session: Session, claimed: Claimed) -> StepRow | None:
    """Return the step if its epoch still runs. The lock of the run's row makes this the fence."""
    return session.execute(
        select(StepRow)
        .where(StepRow.id == claimed.step_id, StepRow.epoch == claimed.epoch, StepRow.status == StepStatus.RUNNING)
        .with_for_update()
    ).scalar_one_or_none()


def _values(step: StepRow) -> dict[str, Any]:
    return {"id": step.id, "epoch": step.epoch, "project_id": step.project_id, "queue": step.queue}


def _apply(step: StepRow, outcome: Outcome, change: _Change, terms: Terms) -> tuple[bool, bool, bool]:
    """Write the outcome to the step; return whether it has ended, is retried, and was given up as poison."""
    row = change.row
    step.owner = step.lease_until = None
    match outcome:
        case Succeeded(output):
            step.output, step.error = output, None
            _end(step, StepStatus.SUCCEEDED, change, attempt=step.attempts)
        case Skipped():
            step.error = None
            _end(step, StepStatus.SKIPPED, change, reason="condition")
        case Cancelled():
            _end(step, StepStatus.CANCELLED, change)
        case Failed() if row.cancel_requested and outcome.retryable:
            _end(step, StepStatus.CANCELLED, change)
        case Failed():
            return _apply_failure(step, outcome, change, terms)
        case Waits() | Released() if row.cancel_requested:
            _end(step, StepStatus.CANCELLED, change)
        case Waits(seconds, state):
            _park(step, seconds, state, change, terms.republish)
            return False, False, False
        case Released():
            change.event(step.key, "step.released", attempt=step.attempts)
            make_ready(step, change.now, 0.0, terms.republish)
            change.messages.append(message(_values(step), change.now, change.now))
            return False, False, False
    return True, False, False


def _apply_failure(step: StepRow, failed: Failed, change: _Change, terms: Terms) -> tuple[bool, bool, bool]:
    if failed.crashed:
        step.child_crashes += 1
    else:
        step.failures += 1
    verdict = after_failure(
        failed,
        RetryPolicy(**step.retries),
        failures=step.failures,
        child_crashes=step.child_crashes,
        crash_limit=terms.child_crash_limit,
        random=terms.random(),
    )
    step.error = failure_json(failed.failure)
    if isinstance(verdict, Again):
        change.event(step.key, "step.retrying", attempt=step.attempts, delay=round(verdict.delay, 3), error=step.error)
        due = make_ready(step, change.now, verdict.delay, terms.republish)
        change.messages.append(message(_values(step), change.now, due))
        return False, True, False
    step.error = failure_json(verdict)
    _end(step, StepStatus.FAILED, change, attempt=step.attempts, error=step.error)
    return True, False, failed.crashed


def _end(step: StepRow, status: StepStatus, change: _Change, **data: Any) -> None:
    step.status = status
    step.finished_at = change.now
    step.run_at = step.signal = None
    change.event(step.key, f"step.{status}", **data)


def _park(
    step: StepRow, seconds: float | None, state: dict[str, Any] | None, change: _Change, republish: float
) -> None:
    step.status = StepStatus.WAITING
    step.epoch += 1
    step.signal = None
    if state is not None:
        step.state = state
    step.run_at = None
    if seconds is not None:
        step.run_at = change.now + timedelta(seconds=seconds)
        step.republish_at = step.run_at + timedelta(seconds=republish)
        change.messages.append(message(_values(step), change.now, step.run_at))
    change.event(step.key, "step.waiting", seconds=seconds)


def make_ready(step: StepRow, now: datetime, delay: float, republish: float) -> datetime:
    """Make a running step ready for its next attempt, `delay` seconds from now; return when that is."""
    due = now + timedelta(seconds=delay)
    step.status = StepStatus.READY
    step.epoch += 1
    step.owner = step.lease_until = None
    step.run_at = step.ready_at = due
    step.republish_at, step.republished = due + timedelta(seconds=republish), 0
    return due


def _settle(session: Session, step: StepRow, change: _Change, republish: float) -> None:
    """Tell the steps behind `step` that it has ended; those it takes along end too, and so on."""
    change.row.steps_left -= 1
    frontier = [step]
    while frontier:
        ended = frontier.pop()
        if not ended.needed_by:
            continue
        waiting = session.execute(
            select(StepRow).where(
                StepRow.run_id == ended.run_id, StepRow.key.in_(ended.needed_by), StepRow.status == StepStatus.PENDING
            )
        ).scalars()
        for behind in waiting.all():
            behind.needs_left -= 1
            behind.needs_skipped += ended.status == StepStatus.SKIPPED
            status = StepStatus(ended.status)
            # A step that was skipped because of a failure hands the failure on, not a branch not taken.
            if status is StepStatus.SKIPPED and ended.error is not None:
                status = StepStatus.FAILED
            becomes = after_need(behind.needs_left, behind.needs_skipped, len(behind.needs), status)
            if becomes is StepStatus.READY:
                make_ready(behind, change.now, 0.0, republish)
                change.ready.append(behind)
            elif becomes is StepStatus.SKIPPED:
                if status is not StepStatus.SKIPPED:
                    behind.error = failure_json(Failure("need_failed", "A step that this one needs did not succeed."))
                change.row.steps_left -= 1
                _end(behind, StepStatus.SKIPPED, change, reason="needs")
                frontier.append(behind)
        session.flush()


def _go_on(change: _Change, queue: str, owner: str, lease: float) -> StepRow | None:
    """Take one of the steps that have just become ready in this queue, if any, for the same worker."""
    step = next((step for step in change.ready if step.queue == queue), None)
    if step is None or change.row.cancel_requested:
        return None
    change.ready.remove(step)
    step.status, step.owner = StepStatus.RUNNING, owner
    step.lease_until = change.now + timedelta(seconds=lease)
    step.attempts += 1
    step.started_at = step.started_at or change.now
    change.event(step.key, "step.started", attempt=step.attempts)
    return step


def _write(session: Session, change: _Change) -> None:
    session.flush()
    change.messages += [message(_values(ready), change.now, change.now) for ready in change.ready]
    if change.messages:
        session.execute(insert(OutboxRow), change.messages)
        announce(session, "outbox")
    session.execute(insert(StepEventRow), change.events)


def _finish_run(session: Session, change: _Change, *, going_on: bool = False) -> None:
    row = change.row
    if row.steps_left > 0:
        if not going_on and not change.ready:
            _rest_run(session, row)
        return
    session.flush()
    steps = session.execute(
        select(
            StepRow.key, StepRow.needed_by, StepRow.status, StepRow.output, StepRow.error, StepRow.finished_at
        ).where(StepRow.run_id == row.id)
    ).all()
    statuses = [StepStatus(step.status) for step in steps]
    row.status = run_end(statuses, cancel_requested=row.cancel_requested, deadline_passed=row.error is not None)
    row.finished_at = change.now
    if row.status == RunStatus.SUCCEEDED:
        row.result = run_result((s.key, s.needed_by, StepStatus(s.status), s.output) for s in steps)
        row.error = None
    elif row.status == RunStatus.FAILED and row.error is None:
        failed = [step for step in steps if step.status == StepStatus.FAILED]
        first = min(failed, key=lambda step: step.finished_at)
        row.error = {**(first.error or {}), "step": first.key}
    change.event(None, "run.finished", status=row.status)


def _rest_run(session: Session, row: RunRow) -> None:
    """Show the run as waiting when nothing of it is ready or runs."""
    session.flush()
    active = exists().where(StepRow.run_id == row.id, StepRow.status.in_((StepStatus.READY, StepStatus.RUNNING)))
    if not session.execute(select(active)).scalar_one():
        row.status = RunStatus.WAITING


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


def give_back(
    session: Session, run_id: str, step_id: str, epoch: int, now: datetime, terms: Terms, *, crashed: bool = True
) -> bool:
    """Make a running step ready again after its engine died (or let go of it); False if it moved on meanwhile."""
    row = session.execute(select(RunRow).where(RunRow.id == run_id).with_for_update()).scalar_one_or_none()
    fence = (StepRow.id == step_id, StepRow.epoch == epoch, StepRow.status == StepStatus.RUNNING)
    step = session.execute(select(StepRow).where(*fence).with_for_update()).scalar_one_or_none()
    if row is None or step is None:
        return False
    change = _Change(row, now)
    step.crashes += crashed
    verdict = after_crash(step.crashes, terms.crash_limit) if crashed else Again(0.0)
    if row.cancel_requested:
        _end(step, StepStatus.CANCELLED, change)
        _settle(session, step, change, terms.republish)
    elif isinstance(verdict, Again):
        change.event(step.key, "step.lost" if crashed else "step.released", attempt=step.attempts, delay=verdict.delay)
        due = make_ready(step, now, verdict.delay, terms.republish)
        change.messages.append(message(_values(step), now, due))
    else:
        step.error = failure_json(verdict)
        _end(step, StepStatus.FAILED, change, attempt=step.attempts, error=step.error)
        _settle(session, step, change, terms.republish)
    step.owner = step.lease_until = None
    _finish_run(session, change)
    _write(session, change)
    return True


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
        session.execute(insert(OutboxRow), [message(_values(s), now, max(s.run_at or now, now)) for s in steps])
        announce(session, "outbox")
    return len(steps)


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
    due = OutboxRow.due_at <= now
    count = select(OutboxRow.id).where(due).limit(limit + 1).subquery()
    chosen = select(OutboxRow.id).where(due)
    if session.execute(select(func.count()).select_from(count)).scalar_one() > limit:
        turn = func.row_number().over(partition_by=OutboxRow.project_id, order_by=OutboxRow.id).label("turn")
        turns = select(OutboxRow.id, turn).where(due).subquery()
        chosen = select(turns.c.id).order_by(turns.c.turn, turns.c.id).limit(limit)
    query = select(OutboxRow).where(OutboxRow.id.in_(chosen)).order_by(OutboxRow.id).with_for_update(skip_locked=True)
    return [Message(row.id, row.step_id, row.epoch, row.queue) for row in session.execute(query).scalars()]


def next_due(session: Session) -> datetime | None:
    """Return when the earliest message is due, or None when there is none."""
    return session.execute(select(func.min(OutboxRow.due_at))).scalar_one_or_none()


def delete_messages(session: Session, ids: Collection[int]) -> None:
    """Forget messages that the broker has taken."""
    session.execute(delete(OutboxRow).where(OutboxRow.id.in_(ids)))
