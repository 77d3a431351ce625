"""Queries of the API side: start and read, leases, counts. Each runs in one transaction. Steering: `steering`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Final

from sqlalchemy import delete, exists, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from nexus.access.types import Principal
from nexus.runs.errors import RunNotFound
from nexus.runs.graph import fingerprint
from nexus.runs.outbox import message, send_along
from nexus.runs.planting import run_values, step_values
from nexus.runs.records import event_row, run_of
from nexus.runs.tables import EVENT, RUN, STEP, LeaseRow, OutboxRow, RunRow, StepEventRow, StepRow
from nexus.runs.types import Run, RunCounts, RunSpec, RunStatus, StepStatus
from nexus.storage.exchange import exchange_of

_FRESH_STEP: Final = {
    **dict.fromkeys(("started_at", "finished_at", "output", "error", "progress")),
    "items_left": 0,
    "state": None,
}
_FRESH_RUN: Final = {**dict.fromkeys(("started_at", "finished_at", "error", "result")), "paused": False, "round": 0}
_PUT_RUN: Final = {
    # Asked for by RETURNING: with column defaults on the server, PostgreSQL's driver counts no rows.
    "sqlite": sqlite.insert(RUN).on_conflict_do_nothing().returning(RUN.c.id),
    "postgresql": postgresql.insert(RUN).on_conflict_do_nothing().returning(RUN.c.id),
}
_PUT_STEPS: Final = insert(STEP)
_PUT_EVENTS: Final = insert(EVENT)
_LIVE = (StepStatus.READY, StepStatus.RUNNING, StepStatus.WAITING)


def add_run(
    session: Session, spec: RunSpec, principal: Principal, now: datetime, republish: float, digest: str | None = None
) -> tuple[Run, str, bool]:
    """Insert a run, its steps, and the messages of those that need nothing. `digest` is the fingerprint of `spec`.

    Returns the run, its fingerprint and True; or False and the run that has the same project, kind,
    name and idempotency key already, whose fingerprint may differ. What is inserted goes along with the
    commit, or with the next `send` of the transaction's exchange.
    """
    exchange = exchange_of(session)
    digest = digest or fingerprint(spec)
    values = {**run_values(spec, principal, now), "fingerprint": digest}
    put = exchange.ask(_PUT_RUN[session.get_bind().dialect.name], values)
    if spec.idempotency_key is not None:
        exchange.send()
        if put.one_or_none() is None:
            return _first(session, spec, principal)
    steps = step_values(values, spec.steps, now, republish)
    exchange.put(_PUT_STEPS, steps)
    exchange.put(_PUT_EVENTS, [event_row(values["id"], None, "run.created", now, steps=len(steps))])
    send_along(session, [message(step, now, now) for step in steps if step["status"] == "ready"])
    shown = [SimpleNamespace(**_FRESH_STEP, **step) for step in steps]
    return run_of(SimpleNamespace(**_FRESH_RUN, **values), shown), digest, True


def _first(session: Session, spec: RunSpec, principal: Principal) -> tuple[Run, str, bool]:
    """Return the run that was started with the same idempotency key, its fingerprint, and False."""
    first = select(RunRow).where(
        RunRow.project_id == principal.project_id,
        RunRow.kind == spec.kind,
        RunRow.name == spec.name,
        RunRow.idempotency_key == spec.idempotency_key,
    )
    row = session.execute(first).scalar_one()
    return run_of(row, steps_of(session, row.id)), row.fingerprint, False


def run_with_steps(session: Session, project_id: str, run_id: str, principal_id: str | None = None) -> Run:
    """Return a run of the project (and of the principal, if given) with its steps. Raises `RunNotFound`."""
    row = run_row(session, project_id, run_id, principal_id)
    return run_of(row, steps_of(session, run_id))


def run_alone(session: Session, project_id: str, run_id: str, principal_id: str | None = None) -> Run:
    """Return a run of the project (and of the principal, if given) without its steps. Raises `RunNotFound`."""
    return run_of(run_row(session, project_id, run_id, principal_id))


def run_status(session: Session, project_id: str, run_id: str, principal_id: str | None = None) -> RunStatus:
    """Return how a run of the project (and of the principal, if given) stands. Raises `RunNotFound`."""
    query = select(RunRow.status, RunRow.principal_id).where(RunRow.id == run_id, RunRow.project_id == project_id)
    found = session.execute(query).one_or_none()
    if found is None or principal_id not in (None, found.principal_id):
        raise RunNotFound
    return RunStatus(found.status)


def steps_of(session: Session, run_id: str) -> Sequence[StepRow]:
    """Return the steps of a run in the order of its description, without the items of mapped ones."""
    query = select(StepRow).where(StepRow.run_id == run_id, StepRow.map_index == -1)
    return session.execute(query.order_by(StepRow.position)).scalars().all()


def items_page(session: Session, run_id: str, key: str, after: int, limit: int) -> Sequence[StepRow]:
    """Return up to `limit` items of a mapped step behind the index `after`, in order."""
    query = select(StepRow).where(StepRow.run_id == run_id, StepRow.key == key, StepRow.map_index > max(after, -1))
    return session.execute(query.order_by(StepRow.map_index).limit(limit)).scalars().all()


def run_row(
    session: Session, project_id: str, run_id: str, principal_id: str | None = None, *, lock: bool = False
) -> RunRow:
    """Return the row of a run of the project (and of the principal, if given). Raises `RunNotFound`."""
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
    due = select(func.min(StepRow.run_at)).where(StepRow.status == StepStatus.READY, StepRow.held.is_(False))
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
