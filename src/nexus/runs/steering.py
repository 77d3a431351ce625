"""Queries that change the course of a run: cancel, pause, resume, retry, signal. Each is one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import bindparam, delete, exists, func, select, update
from sqlalchemy.orm import Session

from nexus.runs.conclusion import conclude
from nexus.runs.errors import RunFinished, RunNotFinished, RunNotWaiting, StepNotFound
from nexus.runs.outbox import announce, message_of, send
from nexus.runs.planting import FAR
from nexus.runs.records import event_row, failure_json, run_of
from nexus.runs.storage import run_row, steps_of
from nexus.runs.tables import PUT_EVENTS, RUN, STEP, OutboxRow, RunRow, StepRow
from nexus.runs.transitions import Node, reopen
from nexus.runs.types import Failure, Run, RunStatus, StepStatus
from nexus.runs.waking import wake_rows
from nexus.storage.exchange import exchange_of

_TO_RUN = (StepStatus.READY, StepStatus.WAITING)


def request_cancel(
    session: Session, project_id: str, run_id: str, now: datetime, republish: float, error: Failure | None = None
) -> Run:
    """Ask a run to stop: idle steps are cancelled here, running ones by their engine.

    With `error` the run ends as failed with it. Raises `RunFinished` for a run that has succeeded or failed.
    """
    row = run_row(session, project_id, run_id, lock=True)
    if RunStatus(row.status).final:
        if row.status == RunStatus.CANCELLED:
            return run_of(row, steps_of(session, run_id))
        raise RunFinished
    if not row.cancel_requested:
        row.cancel_requested, row.paused = True, False
        if not row.failing:
            row.error = None if error is None else failure_json(error)
        _cancel_idle(session, row, now, republish)
        announce(session, "cancel")
    session.flush()
    return run_of(row, steps_of(session, run_id))


def _cancel_idle(session: Session, row: RunRow, now: datetime, republish: float) -> None:
    connection, stopping = session.connection(), {"b_run": row.id, "now": now}
    items = connection.execute(_STOP_ITEMS, stopping).scalars().all()
    # A mapped step some of whose items still run ends with the last of them.
    at_work = [tuple(found) for found in connection.execute(_ITEMS_AT_WORK, {"b_run": row.id})]
    for key, count in at_work:
        connection.execute(_ITEMS_LEFT, {"b_run": row.id, "b_key": key, "items_left": count})
    stopped = connection.execute(_STOP_STEPS, {**stopping, "b_busy": [key for key, _ in at_work]}).scalars().all()
    events = [event_row(row.id, None, "run.cancelling", now)]
    events += [event_row(row.id, key, "step.cancelled", now) for key in stopped]
    if items:
        events.append(event_row(row.id, None, "items.cancelled", now, count=len(items)))
    connection.execute(PUT_EVENTS, events)
    row.steps_left -= len(stopped)
    session.flush()
    if row.steps_left == 0:
        conclude(session, row.id, now, republish, cancelled=True)
        exchange_of(session).send()
        session.refresh(row)


_STOP: Final = (
    update(STEP)
    .where(STEP.c.run_id == bindparam("b_run"), STEP.c.status.in_(("pending", "ready", "waiting")))
    .values(status="cancelled", epoch=STEP.c.epoch + 1, finished_at=bindparam("now"), run_at=None, held=False)
    .returning(STEP.c.key)
)
_STOP_ITEMS: Final = _STOP.where(STEP.c.map_index >= 0)
_STOP_STEPS: Final = _STOP.where(STEP.c.map_index == -1, STEP.c.key.not_in(bindparam("b_busy", expanding=True)))
_ITEMS_AT_WORK: Final = (
    select(STEP.c.key, func.count())
    .where(STEP.c.run_id == bindparam("b_run"), STEP.c.map_index >= 0, STEP.c.status == "running")
    .group_by(STEP.c.key)
)
_ITEMS_LEFT: Final = (
    update(STEP)
    .where(STEP.c.run_id == bindparam("b_run"), STEP.c.key == bindparam("b_key"), STEP.c.map_index == -1)
    .values(items_left=bindparam("items_left"))
)


def pause_run(session: Session, project_id: str, run_id: str, now: datetime) -> Run:
    """Begin no further step of a run; those that run go on to their end. Raises `RunFinished`."""
    row = run_row(session, project_id, run_id, lock=True)
    if RunStatus(row.status).final or row.cancel_requested:
        raise RunFinished
    if not row.paused:
        row.paused = True
        running = exists().where(StepRow.run_id == run_id, StepRow.status == StepStatus.RUNNING)
        if not session.execute(select(running)).scalar_one():
            row.status = RunStatus.WAITING
        session.connection().execute(PUT_EVENTS, [event_row(run_id, None, "run.paused", now)])
        session.flush()
    return run_of(row, steps_of(session, run_id))


def resume_run(session: Session, project_id: str, run_id: str, now: datetime, republish: float) -> Run:
    """Let a paused run go on. Raises `RunNotWaiting` for one that is not paused."""
    row = run_row(session, project_id, run_id, lock=True)
    if not row.paused:
        raise RunNotWaiting
    row.paused = False
    none_out = ~exists().where(OutboxRow.step_id == StepRow.id, OutboxRow.epoch == StepRow.epoch)
    due = (StepRow.run_id == run_id, StepRow.status.in_(_TO_RUN), StepRow.run_at.is_not(None), none_out)
    steps = session.execute(select(StepRow).where(*due).order_by(StepRow.map_index)).scalars().all()
    called = _first_of_lanes(steps)
    for step in called:
        step.held, step.republish_at = False, max(step.run_at or now, now) + timedelta(seconds=republish)
    row.status = RunStatus.QUEUED if row.started_at is None else RunStatus.RUNNING if steps else row.status
    session.flush()
    session.connection().execute(PUT_EVENTS, [event_row(run_id, None, "run.resumed", now)])
    send(session, [message_of(step, now, max(step.run_at or now, now)) for step in called])
    return run_of(row, steps_of(session, run_id))


def _first_of_lanes(steps: Sequence[StepRow]) -> list[StepRow]:
    """Return the steps to call, of the held items of a map no more than their lane takes: the others follow those."""
    called, crowd = [], Counter[str]()
    for step in steps:
        waits = step.held and step.map_index >= 0 and step.lane is not None
        if waits:
            crowd[str(step.lane)] += 1
        if not waits or crowd[str(step.lane)] <= (step.lane_limit or 1):
            called.append(step)
    return called


def retry_run(
    session: Session, project_id: str, run_id: str, now: datetime, republish: float, begin: str | None = None
) -> Run:
    """Open what failed or was cancelled again, the step `begin` too, and all that stands behind them.

    Raises `RunNotFinished` (a succeeded run can only be retried from a step), `StepNotFound`.
    """
    row = run_row(session, project_id, run_id, lock=True)
    again = (RunStatus.FAILED, RunStatus.CANCELLED, *((RunStatus.SUCCEEDED,) if begin else ()))
    if row.status not in again:
        raise RunNotFinished
    row.steps_total -= _forget_failure_steps(session, run_id)
    steps = {step.key: step for step in steps_of(session, run_id)}
    if begin is not None and begin not in steps:
        raise StepNotFound(field="from")
    fresh = reopen({step.key: _node(step) for step in steps.values()}, begin)
    ready: list[StepRow] = []
    for key, node in fresh.items():
        anew = key == begin or any(need in fresh for need in node.needs)
        if not anew and (steps[key].state or {}).get("items"):
            ready += _open_items(session, steps[key], now, republish)
        else:
            session.execute(delete(StepRow).where(*_items_of(steps[key])))
            _open_again(steps[key], node, now, republish, anew=anew)
            ready += [steps[key]] if node.status is StepStatus.READY else []
    row.status, row.cancel_requested, row.error, row.result = RunStatus.QUEUED, False, None, None
    row.finished_at, row.deadline_at, row.steps_left = None, None, len(fresh)
    row.failing, row.paused, row.round = False, False, row.round + 1
    session.flush()
    told: dict[str, Any] = {"steps": sorted(fresh), **({} if begin is None else {"from": begin})}
    session.connection().execute(PUT_EVENTS, [event_row(run_id, None, "run.retried", now, **told)])
    send(session, [message_of(step, now) for step in ready])
    return run_of(row, list(steps.values()))


def _node(step: StepRow) -> Node:
    tolerated = bool((step.options or {}).get("go_on"))
    return Node(step.key, step.needs, StepStatus(step.status), tolerated, needed_by=step.needed_by)


def _items_of(step: StepRow) -> tuple[Any, ...]:
    return (StepRow.run_id == step.run_id, StepRow.key == step.key, StepRow.map_index >= 0)


def _forget_failure_steps(session: Session, run_id: str) -> int:
    """Delete the steps of `on_failure`, which come anew with the next failure; return how many there were."""
    steps = session.execute(select(StepRow).where(StepRow.run_id == run_id, StepRow.options.is_not(None))).scalars()
    late = [step for step in steps if (step.options or {}).get("role") == "failure"]
    for step in late:
        session.delete(step)
    session.flush()
    return sum(step.map_index < 0 for step in late)


def _open_again(step: StepRow, node: Node, now: datetime, republish: float, *, anew: bool = False) -> None:
    """Put a step back to its beginning; a checkpoint is kept unless what stands before it has changed."""
    ready = node.status is StepStatus.READY
    step.status, step.epoch = node.status, step.epoch + 1
    step.needs_left, step.needs_skipped = node.needs_left, node.needs_skipped
    step.failures = step.crashes = step.child_crashes = step.republished = step.items_left = 0
    step.owner = step.lease_until = step.output = step.error = step.finished_at = step.started_at = step.progress = None
    step.signal, step.held, step.woken = None, False, False
    if anew:
        step.state = None
    step.run_at = step.ready_at = now if ready else None
    step.republish_at = now + timedelta(seconds=republish) if ready else None


def _open_items(session: Session, mapper: StepRow, now: datetime, republish: float) -> list[StepRow]:
    """Open those items of a mapped step that did not succeed; return the steps that need a message."""
    broken = (StepStatus.FAILED, StepStatus.CANCELLED)
    query = select(StepRow).where(*_items_of(mapper), StepRow.status.in_(broken)).order_by(StepRow.map_index)
    items = list(session.execute(query).scalars())
    state = mapper.state
    _open_again(mapper, Node(mapper.key, mapper.needs, StepStatus.READY), now, republish)
    mapper.state, mapper.items_left = state, len(items)
    if not items:
        return [mapper]
    mapper.status, mapper.run_at, mapper.republish_at = StepStatus.WAITING, None, None
    limit = (mapper.options or {}).get("max_parallel")
    for place, item in enumerate(items):
        _open_again(item, Node(item.key, item.needs, StepStatus.READY), now, republish)
        if limit is not None and place >= limit:
            item.held, item.republish_at = True, now + timedelta(seconds=FAR)
    return items if limit is None else items[:limit]


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
    row = run_row(session, project_id, run_id, lock=True)
    named = select(StepRow).where(StepRow.run_id == run_id)
    if key is not None:
        named = named.where(StepRow.key == key)
        if session.execute(named.limit(1)).scalar_one_or_none() is None:
            raise StepNotFound(field="step")
    found = session.execute(named.where(StepRow.status == StepStatus.WAITING)).scalars()
    # A mapped step waits for its items, and for nothing that could be signalled.
    chosen = [step for step in found if step.items_left == 0]
    if not chosen:
        raise RunNotWaiting
    wake_rows(session, row, chosen, now, republish, signal)
    return run_of(row, steps_of(session, run_id))


def live_children(session: Session, run_id: str) -> list[tuple[str, str]]:
    """Return `(project id, run id)` of the child runs of a run that have not ended."""
    query = select(RunRow.project_id, RunRow.id).where(RunRow.parent_run_id == run_id, RunRow.finished_at.is_(None))
    return [(project_id, child_id) for project_id, child_id in session.execute(query)]


def orphans(session: Session, limit: int) -> Sequence[tuple[str, str]]:
    """Return `(project id, run id)` of child runs that go on though their parent has ended or is to stop."""
    return [(project_id, run_id) for project_id, run_id in session.execute(_ORPHANS, {"b_limit": limit})]


_PARENT: Final = RUN.alias("parent")
_ORPHANS: Final = (
    select(RUN.c.project_id, RUN.c.id)
    .join(_PARENT, _PARENT.c.id == RUN.c.parent_run_id)
    .where(
        RUN.c.parent_run_id.is_not(None),
        RUN.c.finished_at.is_(None),
        ~RUN.c.cancel_requested,
        _PARENT.c.finished_at.is_not(None) | _PARENT.c.cancel_requested,
    )
    .limit(bindparam("b_limit"))
)
