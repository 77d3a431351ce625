"""Queries of the API side: start, read, cancel, retry, wake. Each runs in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, Final

from sqlalchemy import delete, exists, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from nexus.access.types import Principal
from nexus.runs.errors import RunFinished, RunNotFinished, RunNotFound, RunNotWaiting, StepNotFound
from nexus.runs.graph import fingerprint
from nexus.runs.outbox import PUT_MESSAGES, announce, message, message_of
from nexus.runs.planting import run_values, step_values
from nexus.runs.records import event_row, failure_json, run_of
from nexus.runs.tables import EVENT, RUN, STEP, LeaseRow, OutboxRow, RunRow, StepEventRow, StepRow
from nexus.runs.transitions import Node, reopen, run_end
from nexus.runs.types import Failure, Run, RunCounts, RunSpec, RunStatus, StepStatus

_FRESH_STEP: Final = {
    **dict.fromkeys(("started_at", "finished_at", "output", "error", "progress")),
    "items_left": 0,
    "state": None,
}
_FRESH_RUN: Final = {**dict.fromkeys(("started_at", "finished_at", "error", "result")), "paused": False, "round": 0}
_PUT_RUN: Final = {
    "sqlite": sqlite.insert(RUN).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(RUN).on_conflict_do_nothing(),
}
_PUT_STEPS: Final = insert(STEP)
_PUT_EVENTS: Final = insert(EVENT)
_LIVE = (StepStatus.READY, StepStatus.RUNNING, StepStatus.WAITING)
_IDLE = (StepStatus.PENDING, StepStatus.READY, StepStatus.WAITING)


def add_run(
    session: Session, spec: RunSpec, principal: Principal, now: datetime, republish: float, digest: str | None = None
) -> tuple[Run, str, bool]:
    """Insert a run, its steps, and the messages of those that need nothing. `digest` is the fingerprint of `spec`.

    Returns the run, its fingerprint and True; or False and the run that has the same project, kind,
    name and idempotency key already, whose fingerprint may differ.
    """
    connection = session.connection()
    digest = digest or fingerprint(spec)
    values = {**run_values(spec, principal, now), "fingerprint": digest}
    if not connection.execute(_PUT_RUN[connection.dialect.name], values).rowcount:
        first = select(RunRow).where(
            RunRow.project_id == principal.project_id,
            RunRow.kind == spec.kind,
            RunRow.name == spec.name,
            RunRow.idempotency_key == spec.idempotency_key,
        )
        row = session.execute(first).scalar_one()
        return run_of(row, steps_of(session, row.id)), row.fingerprint, False
    steps = step_values(values, spec.steps, now, republish)
    connection.execute(_PUT_STEPS, steps)
    connection.execute(PUT_MESSAGES, [message(step, now, now) for step in steps if step["status"] == "ready"])
    connection.execute(_PUT_EVENTS, [event_row(values["id"], None, "run.created", now, steps=len(steps))])
    announce(session, "outbox")
    shown = [SimpleNamespace(**_FRESH_STEP, **step) for step in steps]
    return run_of(SimpleNamespace(**_FRESH_RUN, **values), shown), digest, True


def run_with_steps(session: Session, project_id: str, run_id: str, principal_id: str | None = None) -> Run:
    """Return a run of the project (and of the principal, if given) with its steps. Raises `RunNotFound`."""
    row = _run_row(session, project_id, run_id, principal_id)
    return run_of(row, steps_of(session, run_id))


def run_alone(session: Session, project_id: str, run_id: str, principal_id: str | None = None) -> Run:
    """Return a run of the project (and of the principal, if given) without its steps. Raises `RunNotFound`."""
    return run_of(_run_row(session, project_id, run_id, principal_id))


def run_status(session: Session, project_id: str, run_id: str, principal_id: str | None = None) -> RunStatus:
    """Return how a run of the project (and of the principal, if given) stands. Raises `RunNotFound`."""
    query = select(RunRow.status, RunRow.principal_id).where(RunRow.id == run_id, RunRow.project_id == project_id)
    found = session.execute(query).one_or_none()
    if found is None or principal_id not in (None, found.principal_id):
        raise RunNotFound
    return RunStatus(found.status)


def steps_of(session: Session, run_id: str) -> Sequence[StepRow]:
    """Return the steps of a run in the order of its description."""
    return session.execute(select(StepRow).where(StepRow.run_id == run_id).order_by(StepRow.position)).scalars().all()


def _run_row(
    session: Session, project_id: str, run_id: str, principal_id: str | None = None, *, lock: bool = False
) -> RunRow:
    query = select(RunRow).where(RunRow.id == run_id, RunRow.project_id == project_id)
    row = session.execute(query.with_for_update() if lock else query).scalar_one_or_none()
    if row is None or principal_id not in (None, row.principal_id):
        raise RunNotFound
    return row


def list_runs(
    session: Session,
    project_id: str,
    *,
    kind: str | None,
    name: str | None,
    status: str | None,
    principal_id: str | None,
    after: str | None,
    limit: int,
    newest_first: bool,
) -> list[Run]:
    """Return up to `limit` runs of the project, without steps, beginning behind the run `after`."""
    query = select(RunRow).where(RunRow.project_id == project_id)
    wanted = {"kind": kind, "name": name, "status": status, "principal_id": principal_id}
    query = query.filter_by(**{column: value for column, value in wanted.items() if value is not None})
    if after is not None:
        query = query.where(RunRow.id < after if newest_first else RunRow.id > after)
    order = RunRow.id.desc() if newest_first else RunRow.id.asc()
    return [run_of(row) for row in session.execute(query.order_by(order).limit(limit)).scalars()]


def events_after(
    session: Session,
    run_id: str,
    after: int,
    limit: int,
    *,
    types: Sequence[str] | None = None,
    step: str | None = None,
) -> Sequence[StepEventRow]:
    """Return up to `limit` lines of a run's timeline with ids above `after`."""
    query = select(StepEventRow).where(StepEventRow.run_id == run_id, StepEventRow.id > after)
    if types is not None:
        query = query.where(StepEventRow.type.in_(types))
    if step is not None:
        query = query.where(StepEventRow.step_key == step)
    return session.execute(query.order_by(StepEventRow.id).limit(limit)).scalars().all()


def request_cancel(session: Session, project_id: str, run_id: str, now: datetime, error: Failure | None = None) -> Run:
    """Ask a run to stop: idle steps are cancelled here, running ones by their engine.

    With `error` the run ends as failed with it. Raises `RunFinished` for a run that has succeeded or failed.
    """
    row = _run_row(session, project_id, run_id, lock=True)
    if RunStatus(row.status).final:
        if row.status == RunStatus.CANCELLED:
            return run_of(row, steps_of(session, run_id))
        raise RunFinished
    if not row.cancel_requested:
        row.cancel_requested = True
        row.error = None if error is None else failure_json(error)
        _cancel_idle(session, row, now)
        announce(session, "cancel")
    session.flush()
    return run_of(row, steps_of(session, run_id))


def _cancel_idle(session: Session, row: RunRow, now: datetime) -> None:
    stop = (
        update(StepRow)
        .where(StepRow.run_id == row.id, StepRow.status.in_(_IDLE))
        .values(status=StepStatus.CANCELLED, epoch=StepRow.epoch + 1, finished_at=now, run_at=None)
        .returning(StepRow.key)
    )
    stopped = session.execute(stop).scalars().all()
    events = [event_row(row.id, None, "run.cancelling", now)]
    events += [event_row(row.id, key, "step.cancelled", now) for key in stopped]
    row.steps_left -= len(stopped)
    if row.steps_left == 0:
        statuses = session.execute(select(StepRow.status).where(StepRow.run_id == row.id)).scalars().all()
        ended = [StepStatus(status) for status in statuses]
        row.status = run_end(ended, cancel_requested=True, deadline_passed=row.error is not None)
        row.finished_at = now
        events.append(event_row(row.id, None, "run.finished", now, status=row.status))
    session.execute(insert(StepEventRow), events)


def retry_run(session: Session, project_id: str, run_id: str, now: datetime, republish: float) -> Run:
    """Open what failed or was cancelled again, and all that stands behind it. Raises `RunNotFinished`."""
    row = _run_row(session, project_id, run_id, lock=True)
    if row.status not in (RunStatus.FAILED, RunStatus.CANCELLED):
        raise RunNotFinished
    steps = {step.key: step for step in steps_of(session, run_id)}
    fresh = reopen({s.key: Node(s.key, s.needs, StepStatus(s.status), needed_by=s.needed_by) for s in steps.values()})
    for key, node in fresh.items():
        _open_again(steps[key], node, now, republish)
    ready = [steps[key] for key, node in fresh.items() if node.status is StepStatus.READY]
    row.status, row.cancel_requested, row.error, row.result = RunStatus.QUEUED, False, None, None
    row.finished_at, row.deadline_at, row.steps_left = None, None, len(fresh)
    session.flush()
    session.execute(insert(OutboxRow), [message_of(step, now) for step in ready])
    session.execute(insert(StepEventRow), [event_row(run_id, None, "run.retried", now, steps=sorted(fresh))])
    announce(session, "outbox")
    return run_of(row, list(steps.values()))


def _open_again(step: StepRow, node: Node, now: datetime, republish: float) -> None:
    ready = node.status is StepStatus.READY
    step.status, step.epoch = node.status, step.epoch + 1
    step.needs_left, step.needs_skipped = node.needs_left, node.needs_skipped
    step.failures = step.crashes = step.child_crashes = step.republished = 0
    step.owner = step.lease_until = step.output = step.error = step.finished_at = step.started_at = step.progress = None
    step.run_at = step.ready_at = now if ready else None
    step.republish_at = now + timedelta(seconds=republish) if ready else None


def wake_waiting(
    session: Session,
    project_id: str,
    run_id: str,
    now: datetime,
    republish: float,
    *,
    key: str | None = None,
    signal: dict[str, Any] | None = None,
) -> Run:
    """Make waiting steps of a run ready at once: the one called `key`, or all of them.

    Raises `StepNotFound`, and `RunNotWaiting` when nothing waits.
    """
    row = _run_row(session, project_id, run_id, lock=True)
    steps = steps_of(session, run_id)
    if key is not None and all(step.key != key for step in steps):
        raise StepNotFound(field="step")
    chosen = [step for step in steps if step.status == StepStatus.WAITING and key in (None, step.key)]
    if not chosen:
        raise RunNotWaiting
    for step in chosen:
        step.status, step.epoch, step.signal = StepStatus.READY, step.epoch + 1, signal
        step.run_at = step.ready_at = now
        step.republish_at, step.republished = now + timedelta(seconds=republish), 0
    row.status = RunStatus.RUNNING
    session.flush()
    session.execute(insert(OutboxRow), [message_of(step, now) for step in chosen])
    events = [event_row(run_id, step.key, "step.resumed", now, signalled=signal is not None) for step in chosen]
    session.execute(insert(StepEventRow), events)
    announce(session, "outbox")
    return run_of(row, steps)


def ended_after(session: Session, event_id: int, before: datetime, limit: int) -> list[tuple[int, Run]]:
    """Return up to `limit` runs of all projects that ended behind the event `event_id`, with that event's id.

    Events younger than `before` are left for later: the ids of two runs' events need not be committed in
    order, and one that comes late must not be passed over.
    """
    query = select(StepEventRow.id, RunRow).join(RunRow, RunRow.id == StepEventRow.run_id)
    ends = query.where(StepEventRow.id > event_id, StepEventRow.type == "run.finished", StepEventRow.at < before)
    return [(id_, run_of(row)) for id_, row in session.execute(ends.order_by(StepEventRow.id).limit(limit))]


def ready_steps(session: Session, limit: int) -> int:
    """Return how many steps wait for a worker, counting no further than `limit`."""
    some = select(StepRow.id).where(StepRow.status == StepStatus.READY).limit(limit).subquery()
    return session.execute(select(func.count()).select_from(some)).scalar_one()


def counts(session: Session, now: datetime) -> RunCounts:
    """Return how much work waits, runs and is overdue, over all projects."""
    by_queue = select(StepRow.status, StepRow.queue, func.count()).where(StepRow.status.in_(_LIVE))
    ready: dict[str, int] = {}
    running: dict[str, int] = {}
    waiting = 0
    for status, queue, count in session.execute(by_queue.group_by(StepRow.status, StepRow.queue)):
        if status == StepStatus.WAITING:
            waiting += count
        else:
            (ready if status == StepStatus.READY else running)[queue] = count
    due = select(func.min(StepRow.run_at)).where(StepRow.status == StepStatus.READY)
    oldest = session.execute(due).scalar_one_or_none()
    outbox, oldest_message = session.execute(
        select(func.count(), func.min(OutboxRow.due_at)).where(OutboxRow.due_at <= now)
    ).one()
    expired = select(func.count()).where(StepRow.status == StepStatus.RUNNING, StepRow.lease_until < now)
    return RunCounts(
        ready=ready,
        running=running,
        waiting=waiting,
        oldest_ready_age=_age(oldest, now),
        outbox=outbox,
        oldest_outbox_age=_age(oldest_message, now),
        expired_leases=session.execute(expired).scalar_one(),
    )


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())


def take_lease(session: Session, name: str, owner: str, now: datetime, seconds: float) -> bool:
    """Take or renew the lease `name` for `owner`; tell whether it is theirs now."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    until = now + timedelta(seconds=seconds)
    # The lease is mended, too, when the clock was set back and it seems to run for ever.
    far = now + timedelta(seconds=10 * seconds)
    put = dialect.insert(LeaseRow).values(name=name, owner=owner, until=until)
    put = put.on_conflict_do_update(
        index_elements=[LeaseRow.name],
        set_={"owner": owner, "until": until},
        where=(LeaseRow.owner == owner) | (LeaseRow.until < now) | (LeaseRow.until > far),
    ).returning(LeaseRow.name)
    return session.execute(put).scalar_one_or_none() is not None


def forget_runs(session: Session, before: datetime, limit: int) -> int:
    """Delete up to `limit` runs that ended before `before`, with all that belongs to them; return how many."""
    old = select(RunRow.id).where(RunRow.finished_at < before).order_by(RunRow.id).limit(limit)
    ids = session.execute(old).scalars().all()
    if ids:
        steps = exists().where(StepRow.id == OutboxRow.step_id, StepRow.run_id.in_(ids))
        session.execute(delete(OutboxRow).where(steps))
        session.execute(delete(StepEventRow).where(StepEventRow.run_id.in_(ids)))
        session.execute(delete(StepRow).where(StepRow.run_id.in_(ids)))
        session.execute(delete(RunRow).where(RunRow.id.in_(ids)))
    return len(ids)
