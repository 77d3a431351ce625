"""How an attempt ends: one transaction, void unless its epoch still runs, that releases what stands behind.

Here the outcome is written to the step itself; what follows from it is `aftermath`, how the run ends `conclusion`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from nexus.runs import lanes
from nexus.runs.aftermath import Ending, ask_behind, close
from nexus.runs.engine_storage import Claimed, Ended, Terms, claimed_of, facts_of
from nexus.runs.outbox import message
from nexus.runs.planting import item_values
from nexus.runs.records import failure_json
from nexus.runs.tables import RUN, STEP, WORKING
from nexus.runs.transitions import (
    Again,
    Cancelled,
    Failed,
    Outcome,
    Released,
    Skipped,
    Spread,
    Succeeded,
    Waits,
    after_crash,
    after_failure,
)
from nexus.runs.types import Failure, StepStatus
from nexus.storage.events import publish
from nexus.storage.exchange import exchange_of

_LOCK_RUN: Final = (
    select(RUN.c.id, RUN.c.cancel_requested, RUN.c.paused, RUN.c.steps_left)
    .where(RUN.c.id == bindparam("b_run"))
    .with_for_update()
)
_COUNT_DOWN: Final = (
    update(RUN)
    .where(RUN.c.id == bindparam("b_run"))
    .values(steps_left=RUN.c.steps_left - 1)
    .returning(RUN.c.id, RUN.c.cancel_requested, RUN.c.paused, RUN.c.steps_left)
)
_FENCE: Final = (STEP.c.id == bindparam("b_id"), STEP.c.epoch == bindparam("b_epoch"), STEP.c.status == "running")
_END: Final = (
    update(STEP)
    .where(*_FENCE)
    .values(
        {
            name: bindparam(name)
            for name in ("status", "output", "error", "finished_at", "failures", "crashes", "child_crashes")
        }
    )
    .values(owner=None, lease_until=None, run_at=None, signal=None)
)
_READY: Final = (
    update(STEP)
    .where(*_FENCE)
    .values({name: bindparam(name) for name in ("error", "failures", "crashes", "child_crashes", "republish_at")})
    .values(run_at=bindparam("due"), ready_at=bindparam("due"))
    .values(status="ready", epoch=STEP.c.epoch + 1, owner=None, lease_until=None, republished=0)
)
# None keeps what the step has saved.
_KEPT: Final = func.coalesce(bindparam("kept", type_=STEP.c.state.type), STEP.c.state)
_PARK: Final = (
    update(STEP)
    .where(*_FENCE)
    .values(status="waiting", epoch=STEP.c.epoch + 1, owner=None, lease_until=None, signal=None)
    .values({name: bindparam(name) for name in ("attempts", "republish_at")})
    .values(run_at=bindparam("due"), state=_KEPT)
)
_WOKEN: Final = select(STEP.c.woken).where(*_FENCE)
_WOKEN_AGAIN: Final = (
    update(STEP)
    .where(*_FENCE)
    .values(status="ready", epoch=STEP.c.epoch + 1, owner=None, lease_until=None, woken=False, republished=0)
    .values(republish_at=bindparam("republish_at"), state=_KEPT)
    .values(run_at=bindparam("due"), ready_at=bindparam("due"))
)
_SPREAD: Final = (
    update(STEP)
    .where(*_FENCE)
    .values(status="waiting", epoch=STEP.c.epoch + 1, owner=None, lease_until=None, signal=None)
    .values(run_at=None, republish_at=None, items_left=bindparam("items_left"), state=bindparam("state"))
    .returning(*WORKING)
)
_CHUNK: Final = 500


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
    progress: dict[str, Any] | None = None,
) -> Ended:
    """End an attempt, if its epoch still runs.

    With `go_on`, one step that has become ready in the same queue is taken by `owner` at once, without
    a message. `lines` are log lines and `progress` the newest report of the attempt, not stored yet.
    """
    exchange = exchange_of(session)
    certain = _CERTAIN.get(type(outcome)) if not claimed.is_item else None
    # Locks the run in any case: everything that touches its steps does so first, and in this order.
    counted = exchange.ask(_LOCK_RUN if certain is None else _COUNT_DOWN, {"b_run": claimed.run_id})
    ended = behind = None
    if certain is not None and claimed.lane is None:
        output = outcome.output if isinstance(outcome, Succeeded) else None
        ended = exchange.ask(_END, _end_values(claimed, certain, now, output=output))
        behind = ask_behind(exchange, claimed.run_id, claimed.needed_by)
    exchange.send()
    row = counted.one_or_none()
    if row is None:
        return Ended(fenced=True)
    if claimed.lane is not None:
        lanes.lock(session, claimed.lane)
    ending = Ending(
        transaction=session,
        exchange=exchange,
        claimed=claimed,
        now=now,
        terms=terms,
        cancel_requested=row.cancel_requested,
        paused=row.paused,
        steps_left=row.steps_left + (certain is not None),
        written_left=row.steps_left,
        lines=lines,
        progress=progress,
        behind=behind,
    )
    if ended is not None and certain is not None:
        _note_end(ending, certain, output=output)
        counts = bool(ended.count)
    else:
        counts = _apply(ending, outcome)
    if counts:
        return close(ending, owner if go_on else None)
    if certain is not None:
        exchange.put(_LEFT, {"b_run": claimed.run_id, "steps_left": ending.steps_left})
    return Ended(fenced=True)


# Outcomes that end a step whatever happens around it.
_CERTAIN: Final[dict[type, StepStatus]] = {
    Succeeded: StepStatus.SUCCEEDED,
    Skipped: StepStatus.SKIPPED,
    Cancelled: StepStatus.CANCELLED,
}
_LEFT: Final = update(RUN).where(RUN.c.id == bindparam("b_run")).values(steps_left=bindparam("steps_left"))


def give_back(
    session: Session, run_id: str, step_id: str, epoch: int, now: datetime, terms: Terms, *, crashed: bool = True
) -> bool:
    """Make a running step ready again after its engine died (or let go of it); False if it moved on meanwhile."""
    row = session.execute(select(RUN).where(RUN.c.id == run_id).with_for_update()).one_or_none()
    fence = (STEP.c.id == step_id, STEP.c.epoch == epoch, STEP.c.status == StepStatus.RUNNING)
    step = session.execute(select(STEP).where(*fence).with_for_update()).one_or_none()
    if row is None or step is None:
        return False
    claimed, left = claimed_of(facts_of(row), step), row.steps_left
    exchange = exchange_of(session)
    ending = Ending(session, exchange, claimed, now, terms, row.cancel_requested, row.paused, left, left, lines=())
    if row.cancel_requested:
        _end(ending, StepStatus.CANCELLED)
    elif not crashed:
        _again(ending, 0.0, "step.released", _counters(claimed))
    else:
        counters = _counters(claimed, crashes=1)
        verdict = after_crash(counters["crashes"], terms.crash_limit)
        if isinstance(verdict, Again):
            _again(ending, verdict.delay, "step.lost", counters)
        else:
            _give_up(ending, verdict, counters)
    close(ending, None)
    return True


def _apply(ending: Ending, outcome: Outcome) -> bool:
    """Write the outcome to the step; False when the attempt no longer counts."""
    if ending.cancel_requested and _gives_way(outcome):
        return _end(ending, StepStatus.CANCELLED)
    match outcome:
        case Succeeded(output):
            return _end(ending, StepStatus.SUCCEEDED, output=output)
        case Spread(items):
            return _spread(ending, items)
        case Skipped():
            return _end(ending, StepStatus.SKIPPED)
        case Cancelled():
            return _end(ending, StepStatus.CANCELLED)
        case Failed():
            return _fail(ending, outcome)
        case Waits():
            return _park(ending, outcome)
        case Released():
            return _again(ending, 0.0, "step.released", _counters(ending.claimed))


def _gives_way(outcome: Outcome) -> bool:
    """Tell whether an outcome that is not the end becomes one when the run is being cancelled."""
    return isinstance(outcome, Spread | Waits | Released) or (isinstance(outcome, Failed) and outcome.retryable)


def _fail(ending: Ending, failed: Failed) -> bool:
    counters = _counters(ending.claimed, failures=not failed.crashed, child_crashes=failed.crashed)
    verdict = after_failure(
        failed,
        ending.claimed.policy,
        failures=counters["failures"],
        child_crashes=counters["child_crashes"],
        crash_limit=ending.terms.child_crash_limit,
        random=ending.terms.random(),
    )
    if isinstance(verdict, Again):
        ending.retried = True
        return _again(ending, verdict.delay, "step.retrying", counters, failure_json(failed.failure))
    if failed.crashed:
        return _give_up(ending, verdict, counters)
    return _end(ending, StepStatus.FAILED, error=failure_json(verdict), counters=counters)


def _give_up(ending: Ending, verdict: Failure, counters: dict[str, int]) -> bool:
    """End a step that has crashed too often, and tell of it: the run may go on as if nothing was."""
    ending.dead, error, claimed, run = True, failure_json(verdict), ending.claimed, ending.claimed.run
    if not _end(ending, StepStatus.FAILED, error=error, counters=counters):
        return False
    told = {"run_id": run.id, "kind": run.kind, "name": run.name, "version": run.version, "trigger": run.trigger}
    told |= {"step": claimed.key, "map_index": claimed.map_index if claimed.is_item else None, "error": error}
    project = run.principal.project_id
    publish(ending.session, "step.dead_lettered", project, told, at=ending.now, subject=run.name)
    return True


def _end(
    ending: Ending,
    status: StepStatus,
    *,
    output: Any = None,
    error: dict[str, Any] | None = None,
    counters: dict[str, int] | None = None,
) -> bool:
    _note_end(ending, status, output=output, error=error)
    return _fenced(ending, _END, _end_values(ending.claimed, status, ending.now, output, error, counters))


def _note_end(ending: Ending, status: StepStatus, *, output: Any = None, error: dict[str, Any] | None = None) -> None:
    claimed, ending.status, ending.output = ending.claimed, status, output
    told = {"attempt": claimed.attempt, **({} if error is None else {"error": error})}
    ending.event(claimed.key, f"step.{status}", claimed.map_index, **told)


def _end_values(
    claimed: Claimed,
    status: StepStatus,
    now: datetime,
    output: Any = None,
    error: dict[str, Any] | None = None,
    counters: dict[str, int] | None = None,
) -> dict[str, Any]:
    return {
        "b_id": claimed.step_id,
        "b_epoch": claimed.epoch,
        "status": status,
        "output": output,
        "error": error,
        "finished_at": now,
        **(counters or _counters(claimed)),
    }


def _again(
    ending: Ending, delay: float, event: str, counters: dict[str, int], error: dict[str, Any] | None = None
) -> bool:
    claimed, ending.status = ending.claimed, StepStatus.READY
    due = ending.later(delay)
    values = {
        "b_id": claimed.step_id,
        "b_epoch": claimed.epoch,
        "error": error,
        "due": due,
        "republish_at": due + timedelta(seconds=ending.terms.republish),
        **counters,
    }
    told = {"attempt": claimed.attempt, "delay": round(delay, 3)}
    ending.event(claimed.key, event, claimed.map_index, **told, **({} if error is None else {"error": error}))
    ending.messages.append(_message(claimed, ending.now, due))
    return _fenced(ending, _READY, values)


def _park(ending: Ending, waits: Waits) -> bool:
    """Let the step wait; one that was woken meanwhile is ready again at once."""
    claimed, ending.status = ending.claimed, StepStatus.WAITING
    fence = {"b_id": claimed.step_id, "b_epoch": claimed.epoch}
    if waits.reason is None and ending.connection.execute(_WOKEN, fence).scalar_one_or_none():
        ending.status = StepStatus.READY
        ending.event(claimed.key, "step.resumed", claimed.map_index, signalled=True)
        ending.messages.append(_message(claimed, ending.now, ending.now))
        again = {"kept": waits.state, "due": ending.now, "republish_at": ending.later(ending.terms.republish)}
        return _fenced(ending, _WOKEN_AGAIN, {**fence, **again})
    due = None if waits.seconds is None else ending.later(waits.seconds)
    values = {
        "kept": waits.state,
        "attempts": claimed.attempt - (waits.reason is not None),
        "due": due,
        "republish_at": None if due is None else due + timedelta(seconds=ending.terms.republish),
    }
    why = {} if waits.reason is None else {"reason": waits.reason}
    ending.event(claimed.key, "step.waiting", claimed.map_index, seconds=waits.seconds, **why)
    if due is not None:
        ending.messages.append(_message(claimed, ending.now, due))
    return _fenced(ending, _PARK, {**fence, **values})


def _spread(ending: Ending, items: list[Any]) -> bool:
    """Plant a step for each item, in chunks; the mapped step waits for them. A map of nothing is done."""
    if not items:
        return _end(ending, StepStatus.SUCCEEDED, output=[])
    claimed, now, ending.status = ending.claimed, ending.now, StepStatus.WAITING
    fence = {"b_id": claimed.step_id, "b_epoch": claimed.epoch}
    state = {"items": len(items)}
    mapper = ending.connection.execute(_SPREAD, {**fence, "items_left": len(items), "state": state}).one_or_none()
    if mapper is None:
        return False
    ending.event(claimed.key, "step.spread", items=len(items))
    rows = item_values(mapper, items, now, ending.terms.republish, paused=ending.paused)
    for start in range(0, len(rows), _CHUNK):
        ending.connection.execute(_PLANT, rows[start : start + _CHUNK])
    ending.messages += [message(row, now, now) for row in rows if not row["held"]]
    return True


_PLANT: Final = insert(STEP)


def _counters(claimed: Claimed, *, failures: int = 0, crashes: int = 0, child_crashes: int = 0) -> dict[str, int]:
    """Return the step's counters with these added."""
    return {
        "failures": claimed.failures + failures,
        "crashes": claimed.crashes + crashes,
        "child_crashes": claimed.child_crashes + child_crashes,
    }


def _message(claimed: Claimed, now: datetime, due: datetime) -> dict[str, Any]:
    values = {
        "id": claimed.step_id,
        "epoch": claimed.epoch + 1,
        "project_id": claimed.run.principal.project_id,
        "queue": claimed.queue,
        "rank": claimed.rank,
    }
    return message(values, now, due)


def _fenced(ending: Ending, statement: Any, values: dict[str, Any]) -> bool:
    answer = ending.exchange.ask(statement, values)
    ending.exchange.send()
    return bool(answer.count)
