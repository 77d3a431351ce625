"""Queries of the engine side: claim a step, keep and collect leases, publish. How attempts end: `completion`.

Two rules make work neither lost nor done twice. A step is taken by compare-and-set on `(id, epoch,
status)`, and an attempt ends in one transaction that is void unless the same epoch is still running,
and that also makes the successors ready and writes their messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice, zip_longest
from typing import Any, Final

from sqlalchemy import Row, bindparam, delete, exists, func, insert, or_, select, text, update
from sqlalchemy.orm import Session

from nexus.access.types import Principal
from nexus.runs import lanes
from nexus.runs.outbox import message_of, send
from nexus.runs.records import event_row, principal_of
from nexus.runs.tables import OUTBOX, PUT_EVENTS, RUN, STEP, WORKING, RunRow, StepEventRow, StepRow
from nexus.runs.types import RetryPolicy, RunStatus, StepStatus
from nexus.storage.exchange import Answer, exchange_of

# How much earlier than its time a step may begin: clocks of two machines are never equal.
_EARLY = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What every step of a run knows of it. `failure` is why it failed, for the steps of `on_failure`."""

    id: str
    kind: str
    name: str
    version: int | None
    principal: Principal
    inputs: dict[str, Any]
    trigger: dict[str, Any] | None
    round: int
    depth: int
    failure: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A step that this engine holds, with all that its execution needs.

    `known` are outputs of the run's steps that this engine has seen itself, to be spared reading them.
    """

    step_id: str
    epoch: int
    run: RunFacts
    key: str
    map_index: int
    item: Any
    uses: str
    with_: dict[str, Any]
    when: str | None
    timeout: float | None
    queue: str
    rank: int
    lane: str | None
    attempt: int
    needs: list[str]
    needed_by: list[str]
    options: dict[str, Any]
    policy: RetryPolicy
    failures: int
    crashes: int
    child_crashes: int
    state: dict[str, Any] | None
    signal: dict[str, Any] | None
    known: dict[str, Any] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        """Return the id of the run."""
        return self.run.id

    @property
    def is_item(self) -> bool:
        """Tell whether this is an item of a mapped step."""
        return self.map_index >= 0

    @property
    def is_map(self) -> bool:
        """Tell whether this is a mapped step itself."""
        return self.map_index < 0 and "map" in self.options

    @property
    def go_on(self) -> bool:
        """Tell whether a failure of this step is taken in stride."""
        return bool(self.options.get("go_on"))


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
    """The numbers that decide how attempts end and begin. Seconds, and `random` in [0, 1).

    `render` fills in the templates of a run's result.
    """

    lease: float
    republish: float
    crash_limit: int
    child_crash_limit: int
    random: Callable[[], float]
    render: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] | None = None


def claim(session: Session, step_id: str, epoch: int, owner: str, now: datetime, terms: Terms) -> Claimed | None:
    """Take a step for `owner`, or return None when the message is stale, a duplicate or early.

    A step of a paused run, or of a lane that is full, is held for later.
    """
    exchange = exchange_of(session)
    taken = {
        "b_id": step_id,
        "b_epoch": epoch,
        "b_latest": now + _EARLY,
        "owner": owner,
        "lease_until": now + timedelta(seconds=terms.lease),
        "now": now,
    }
    found, free = exchange.ask(_RUN_OF_STEP, {"b_id": step_id}), exchange.ask(_TAKE_FREE, taken)
    exchange.send()
    run, step = found.one_or_none(), free.one_or_none()
    if run is None or run.cancel_requested or run.finished_at is not None:
        return None
    if run.paused or run.step_lane or run.lane:
        if run.step_epoch != epoch or not _admitted(session, run, step_id, epoch, now, terms):
            return None
        step = session.execute(_TAKE, taken).one_or_none()
    if step is None:
        return None
    events = []
    # One that a deadline stopped before it began is running already, for the steps of its `on_failure`.
    if run.status != RunStatus.RUNNING or run.started_at is None:
        exchange.put(_BEGIN, {"b_run": run.id, "now": now})
        if run.started_at is None:
            events.append(event_row(run.id, None, "run.started", now))
            if run.lane:
                exchange.send()
                # Its other steps may have been turned away while the run itself could not begin.
                siblings = lanes.call_held(session, run.id, now, terms.republish)
                send(session, [message_of(sibling, now) for sibling in siblings])
    events.append(event_row(run.id, step.key, "step.started", now, step.map_index, attempt=step.attempts))
    exchange.put(PUT_EVENTS, events)
    return claimed_of(facts_of(run), step)


def _admitted(session: Session, run: Any, step_id: str, epoch: int, now: datetime, terms: Terms) -> bool:
    """Hold the step unless it may begin. One whose run is paused, or may not begin, leaves its turn to another."""
    room = False
    if not run.paused:
        room = not run.step_lane or lanes.admits(session, run.step_lane, run.step_lane_limit, step_id, now)
        begun = not run.lane or run.started_at is not None
        if room and (begun or lanes.admits_run(session, run.lane, run.lane_limit, run.id)):
            return True
    lanes.hold(session, step_id, epoch, now)
    if run.step_lane and (run.paused or room):
        called = lanes.call_next(session, run.step_lane, now, terms.republish)
        send(session, [message_of(called, now)] if called is not None else [])
    if run.paused and run.lane and run.started_at is None:
        steps = lanes.call_next_run(session, run.lane, now, terms.republish)
        send(session, [message_of(step, now) for step in steps])
    return False


_FACTS: Final = (
    "id", "project_id", "kind", "name", "version", "starter", "inputs", "trigger", "round", "depth", "failing",
    "error", "status", "cancel_requested", "paused", "started_at", "finished_at", "lane", "lane_limit",
)  # fmt: skip
_RUN_OF_STEP: Final = (
    select(
        *(RUN.c[name] for name in _FACTS),
        STEP.c.lane.label("step_lane"),
        STEP.c.lane_limit.label("step_lane_limit"),
        STEP.c.epoch.label("step_epoch"),
    )
    .join(STEP, STEP.c.run_id == RUN.c.id)
    .where(STEP.c.id == bindparam("b_id"))
    .with_for_update(of=RUN)
)
_TAKE: Final = (
    update(STEP)
    .where(
        STEP.c.id == bindparam("b_id"),
        STEP.c.epoch == bindparam("b_epoch"),
        or_(STEP.c.status == "ready", STEP.c.status == "waiting"),
        STEP.c.run_at <= bindparam("b_latest"),
    )
    .values(
        status="running",
        attempts=STEP.c.attempts + 1,
        owner=bindparam("owner"),
        lease_until=bindparam("lease_until"),
        started_at=func.coalesce(STEP.c.started_at, bindparam("now", type_=STEP.c.started_at.type)),
        progress=None,
        held=False,
        woken=False,
    )
    .returning(*WORKING)
)
# What may begin without further questions, told by the run that the statement before has locked.
_TAKE_FREE: Final = _TAKE.where(
    STEP.c.lane.is_(None),
    exists().where(
        RUN.c.id == STEP.c.run_id,
        RUN.c.lane.is_(None),
        RUN.c.finished_at.is_(None),
        ~RUN.c.cancel_requested,
        ~RUN.c.paused,
    ),
)
_BEGIN: Final = (
    update(RUN)
    .where(RUN.c.id == bindparam("b_run"))
    .values(status="running", started_at=func.coalesce(RUN.c.started_at, bindparam("now", type_=RUN.c.started_at.type)))
)


def facts_of(run: Any) -> RunFacts:
    """Return what steps know of their run, given its row."""
    return RunFacts(
        id=run.id,
        kind=run.kind,
        name=run.name,
        version=run.version,
        principal=principal_of(run.project_id, run.starter),
        inputs=run.inputs,
        trigger=run.trigger,
        round=run.round,
        depth=run.depth,
        failure=run.error if run.failing else None,
    )


def claimed_of(
    run: RunFacts, step: Row[Any], *, epoch: int = 0, attempt: int = 0, known: dict[str, Any] | None = None
) -> Claimed:
    """Return a claimed step, given what is known of its run and its own row."""
    values = step._mapping  # noqa: SLF001  the public way to columns whose names are Python's words
    return Claimed(
        step_id=step.id,
        epoch=epoch or step.epoch,
        run=run,
        key=step.key,
        map_index=step.map_index,
        item=None if step.item is None else step.item[0],
        uses=step.uses,
        with_=values["with"],
        when=values["when"],
        timeout=step.timeout,
        queue=step.queue,
        rank=step.rank,
        lane=step.lane,
        attempt=attempt or step.attempts,
        needs=step.needs,
        needed_by=step.needed_by,
        options=step.options or {},
        policy=RetryPolicy(**step.retries),
        failures=step.failures,
        crashes=step.crashes,
        child_crashes=step.child_crashes,
        state=step.state,
        signal=step.signal,
        known={} if known is None else known,
    )


def outputs_of(session: Session, run_id: str, keys: Collection[str] | None) -> dict[str, dict[str, Any]]:
    """Return `{key: {"output", "status"}}` of these steps of a run (None: of all), for templates."""
    query = select(StepRow.key, StepRow.status, StepRow.output).where(StepRow.run_id == run_id, StepRow.map_index == -1)
    if keys is not None:
        query = query.where(StepRow.key.in_(keys))
    return {key: {"output": output, "status": status} for key, status, output in session.execute(query)}


def items_of(session: Session, run_id: str, key: str) -> Sequence[Any]:
    """Return `(map_index, status, output, error)` of the items of a mapped step, in order."""
    query = select(StepRow.map_index, StepRow.status, StepRow.output, StepRow.error).where(
        StepRow.run_id == run_id, StepRow.key == key, StepRow.map_index >= 0
    )
    return session.execute(query.order_by(StepRow.map_index)).all()


def renew(session: Session, owner: str, step_ids: Collection[str], now: datetime, lease: float) -> dict[str, int]:
    """Extend the leases of `owner` on these steps; return `{step id: epoch}` of what it still holds.

    Only what the engine knows itself to run is renewed: a step taken in a commit whose answer got lost
    must come free.
    """
    wanted = {"b_ids": list(step_ids), "b_owner": owner, "until": now + timedelta(seconds=lease)}
    return {held.id: held.epoch for held in session.execute(_RENEW, wanted)}


_RENEW: Final = (
    update(STEP)
    .where(
        STEP.c.id.in_(bindparam("b_ids", expanding=True)),
        STEP.c.owner == bindparam("b_owner"),
        STEP.c.status == "running",
    )
    .values(lease_until=bindparam("until"))
    .returning(STEP.c.id, STEP.c.epoch)
)


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
    found = session.execute(_LOST, {"b_now": now, "b_limit": limit})
    return [(run_id, step_id, epoch) for run_id, step_id, epoch in found]


_LOST: Final = (
    select(STEP.c.run_id, STEP.c.id, STEP.c.epoch)
    .where(STEP.c.status == "running", STEP.c.lease_until < bindparam("b_now"))
    .limit(bindparam("b_limit"))
)


def steps_held_by(session: Session, owner: str) -> list[tuple[str, str, int]]:
    """Return `(run id, step id, epoch)` of all that `owner` still runs."""
    query = select(StepRow.run_id, StepRow.id, StepRow.epoch)
    held = query.where(StepRow.owner == owner, StepRow.status == StepStatus.RUNNING)
    return [(run_id, step_id, epoch) for run_id, step_id, epoch in session.execute(held)]


def mend_leases(session: Session, now: datetime, lease: float) -> int:
    """Shorten leases that end impossibly late, because a clock was set back; return how many."""
    wanted = {"b_longest": now + timedelta(seconds=2 * lease), "until": now + timedelta(seconds=lease)}
    return len(session.execute(_MEND, wanted).all())


_MEND: Final = (
    update(STEP)
    .where(STEP.c.status == "running", STEP.c.lease_until > bindparam("b_longest"))
    .values(lease_until=bindparam("until"))
    .returning(STEP.c.id)
)


def republish(session: Session, now: datetime, seconds: float, limit: int, *, all_at_once: bool = False) -> int:
    """Write messages again for due steps that nobody took and that have none; return how many.

    Each step waits twice as long as before for the next time. With `all_at_once` (the broker is known to
    be empty) no step waits.
    """
    steps = session.execute(_FORGOTTEN, {"b_before": None if all_at_once else now, "b_limit": limit}).all()
    changes = []
    for step in steps:
        pause = min(3600.0, seconds * 2.0 ** min(step.republished + 1, 10))
        changes.append({"b_id": step.id, "until": max(step.run_at, now) + timedelta(seconds=pause)})
    if steps:
        session.connection().execute(_SENT_AGAIN, changes)
        send(session, [message_of(step, now, max(step.run_at, now)) for step in steps])
    return len(steps)


_BEFORE: Final = bindparam("b_before", type_=STEP.c.republish_at.type)
_FORGOTTEN: Final = (
    select(*(STEP.c[name] for name in ("id", "epoch", "project_id", "queue", "rank", "run_at", "republished")))
    .where(
        STEP.c.status.in_(("ready", "waiting")),
        STEP.c.run_at.is_not(None),
        _BEFORE.is_(None) | (STEP.c.republish_at < _BEFORE),
        ~exists().where(OUTBOX.c.step_id == STEP.c.id, OUTBOX.c.epoch == STEP.c.epoch),
    )
    .limit(bindparam("b_limit"))
    .with_for_update(skip_locked=True)
)
_SENT_AGAIN: Final = (
    update(STEP)
    .where(STEP.c.id == bindparam("b_id"))
    .values(republished=STEP.c.republished + 1, held=False, republish_at=bindparam("until"))
)


def overdue_runs(session: Session, now: datetime, limit: int) -> list[tuple[str, str]]:
    """Return `(project id, run id)` of runs whose deadline has passed."""
    found = session.execute(_OVERDUE, {"b_now": now, "b_limit": limit})
    return [(project_id, run_id) for project_id, run_id in found]


_OVERDUE: Final = (
    select(RUN.c.project_id, RUN.c.id)
    .where(RUN.c.deadline_at < bindparam("b_now"), RUN.c.finished_at.is_(None), ~RUN.c.cancel_requested)
    .order_by(RUN.c.deadline_at)
    .limit(bindparam("b_limit"))
)


def due_messages(session: Session, now: datetime, limit: int, rooms: Mapping[str, int] | None = None) -> list[Message]:
    """Return messages to publish, locked against other dispatchers: up to `limit`, and `rooms` of each queue.

    When more are due than that, projects take turns and high priorities go first, so that a large one holds
    up no small one; a queue that nobody works on holds up no other.
    """
    if rooms is not None and min(rooms.values()) <= 0:
        # What is due is most likely for the full queue, and nothing that may be sent.
        rows: Sequence[Row[Any]] = _in_turns(session, now, rooms)[:limit]
    else:
        exchange = exchange_of(session)
        due = exchange.ask(_DUE, {"b_now": now, "b_limit": limit + 1})
        exchange.send()
        rows = due.rows
        asked = Counter(row.queue for row in rows)
        scarce = rooms is not None and any(count > rooms.get(name, 0) for name, count in asked.items())
        if len(rows) > limit or scarce:
            rows = _in_turns(session, now, dict.fromkeys(asked, limit) if rooms is None else rooms)[:limit]
    return [Message(row.id, row.step_id, row.epoch, row.queue) for row in rows]


def _in_turns(session: Session, now: datetime, rooms: Mapping[str, int]) -> list[Row[Any]]:
    """Return the messages that are next in each queue, the same number for each project that wants any."""
    chosen: list[Row[Any]] = []
    for queue, room in rooms.items():
        if room > 0:
            projects = session.execute(_PROJECTS, {"b_queue": queue, "b_limit": _MOST_PROJECTS}).scalars().all()
            shuffle = sorted(projects, key=lambda project: hash((project, now)))
            chosen += _share(session, now, queue, room, shuffle)
    return chosen


def _share(session: Session, now: datetime, queue: str, room: int, projects: Sequence[str]) -> list[Row[Any]]:
    waiting: list[list[Row[Any]]] = []
    for project in projects:
        wanted = {"b_queue": queue, "b_project": project, "b_now": now, "b_limit": room}
        waiting.append(list(session.execute(_OF_PROJECT, wanted).all()))
        if len(waiting) >= room and all(waiting):
            break
    turns = (row for turn in zip_longest(*waiting) for row in turn if row is not None)
    return list(islice(turns, room))


_MOST_PROJECTS: Final = 200
_DUE: Final = (
    select(OUTBOX)
    .where(OUTBOX.c.due_at <= bindparam("b_now"))
    .order_by(OUTBOX.c.due_at)
    .limit(bindparam("b_limit"))
    .with_for_update(skip_locked=True)
)
_OF_PROJECT: Final = (
    select(OUTBOX)
    .where(
        OUTBOX.c.queue == bindparam("b_queue"),
        OUTBOX.c.project_id == bindparam("b_project"),
        OUTBOX.c.due_at <= bindparam("b_now"),
    )
    .order_by(OUTBOX.c.rank, OUTBOX.c.id)
    .limit(bindparam("b_limit"))
    .with_for_update(skip_locked=True)
)
# Which projects have messages, one look into the index for each of them rather than one for each message.
_PROJECTS: Final = text(
    """
    WITH RECURSIVE walk(project_id) AS (
        SELECT (SELECT project_id FROM outbox WHERE queue = :b_queue ORDER BY project_id LIMIT 1)
        UNION ALL
        SELECT (
            SELECT project_id FROM outbox
            WHERE queue = :b_queue AND project_id > walk.project_id ORDER BY project_id LIMIT 1
        )
        FROM walk WHERE walk.project_id IS NOT NULL
    )
    SELECT project_id FROM walk WHERE project_id IS NOT NULL LIMIT :b_limit
    """
)


def next_due(session: Session) -> Answer:
    """Ask when the earliest message is due: `first`, or None. It is told at the end of the transaction."""
    return exchange_of(session).ask(_FIRST, {})


_FIRST: Final = select(func.min(OUTBOX.c.due_at).label("first"))


def delete_messages(session: Session, ids: Collection[int]) -> None:
    """Forget messages that the broker has taken, at the end of the transaction."""
    exchange_of(session).put(_FORGET, [{"b_id": id_} for id_ in ids])


_FORGET: Final = delete(OUTBOX).where(OUTBOX.c.id == bindparam("b_id"))
