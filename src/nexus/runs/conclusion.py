"""How a run ends, once all its steps have: with its result, or through the steps for a failure.

Shared by the two ways to the end: the last step completes (`completion`), or the last idle ones are
cancelled (`steering`). The caller has locked the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import Session

from nexus.core.errors import NexusError
from nexus.runs.lanes import call_next_run
from nexus.runs.outbox import message, message_of, send
from nexus.runs.planting import spec_of, step_values
from nexus.runs.records import event_row, failure_json
from nexus.runs.tables import EVENT, PUT_EVENTS, RUN, STEP
from nexus.runs.transitions import run_end, run_result
from nexus.runs.types import Failure, RunStatus, StepStatus
from nexus.runs.waking import wake_step
from nexus.storage.events import publish_along
from nexus.storage.exchange import exchange_of

Render = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
_RUN: Final = select(
    *(column for column in RUN.c if column.name not in ("starter", "fingerprint", "created_at", "started_at", "result"))
).where(RUN.c.id == bindparam("b_run"))
_STEPS: Final = select(
    STEP.c.key, STEP.c.needed_by, STEP.c.status, STEP.c.output, STEP.c.error, STEP.c.finished_at, STEP.c.options
).where(STEP.c.run_id == bindparam("b_run"), STEP.c.map_index == -1)
_FINISH: Final = (
    update(RUN)
    .where(RUN.c.id == bindparam("b_run"))
    .values({name: bindparam(name) for name in ("status", "finished_at", "error", "result")})
    .values(steps_left=0, paused=False)
)
_BROKEN: Final = (StepStatus.FAILED, StepStatus.CANCELLED)


def conclude(
    session: Session, run_id: str, now: datetime, republish: float, *, cancelled: bool, render: Render | None = None
) -> bool:
    """End a run none of whose steps is left; False when the steps of its `on_failure` come first.

    `cancelled`: somebody wanted it to stop. What is written goes along with the transaction's exchange.
    """
    exchange = exchange_of(session)
    found, ended = exchange.ask(_RUN, {"b_run": run_id}), exchange.ask(_STEPS, {"b_run": run_id})
    exchange.send()
    run, steps = found.one(), ended.rows
    status, error, result = _verdict(run, steps, cancelled, render)
    plan = run.plan or {}
    if status is RunStatus.FAILED and not run.failing and plan.get("on_failure"):
        _open_failure(session, run, error, now, republish)
        return False
    exchange.put(_FINISH, {"b_run": run_id, "status": status, "finished_at": now, "error": error, "result": result})
    exchange.put(PUT_EVENTS, event_row(run_id, None, "run.finished", now, status=status))
    _tell(session, run, status, error, now)
    if run.parent_run_id is not None:
        exchange.send()
        wake_step(session, run.parent_run_id, run.parent_step_id, now, republish)
    if run.lane is not None:
        exchange.send()
        send(session, [message_of(step, now) for step in call_next_run(session, run.lane, now, republish)])
    return True


def _verdict(
    run: Any, steps: Sequence[Any], cancelled: bool, render: Render | None
) -> tuple[RunStatus, dict[str, Any] | None, Any]:
    """Return status, error and result."""
    if run.failing:
        return RunStatus.FAILED, run.error, None
    counted = [step for step in steps if not (_tolerated(step) and step.status == StepStatus.FAILED)]
    statuses = [StepStatus(step.status) for step in counted]
    status = run_end(statuses, cancel_requested=cancelled, deadline_passed=run.error is not None)
    if status is RunStatus.SUCCEEDED:
        return _result(run, steps, render)
    if status is RunStatus.CANCELLED:
        return status, None, None
    if run.error is not None:
        return status, run.error, None
    failed = [step for step in counted if step.status in _BROKEN]
    first = min(failed, key=lambda step: (step.status != StepStatus.FAILED, step.finished_at))
    stopped = failure_json(Failure("step_cancelled", "The step was stopped."))
    return status, {**(first.error or stopped), "step": first.key}, None


def _tolerated(step: Any) -> bool:
    return bool((step.options or {}).get("go_on"))


def _result(run: Any, steps: Sequence[Any], render: Render | None) -> tuple[RunStatus, dict[str, Any] | None, Any]:
    templates = (run.plan or {}).get("outputs")
    if templates is None or render is None:
        ends = ((step.key, step.needed_by, StepStatus(step.status), step.output) for step in steps)
        return RunStatus.SUCCEEDED, None, run_result(ends)
    scope = {
        "inputs": run.inputs,
        "steps": {step.key: {"output": step.output, "status": step.status} for step in steps},
        "run": {"id": run.id, "name": run.name, "version": run.version, "trigger": run.trigger},
    }
    try:
        return RunStatus.SUCCEEDED, None, render(templates, scope)
    except NexusError as error:
        failure = Failure(error.code, error.message, f"outputs.{(error.field or '').removeprefix('with.')}")
        return RunStatus.FAILED, failure_json(failure), None


def _open_failure(session: Session, run: Any, error: dict[str, Any] | None, now: datetime, republish: float) -> None:
    """Plant the steps of `on_failure`. The deadline and the wish to stop are behind us: they are to be done."""
    specs = [spec_of(stored) for stored in run.plan["on_failure"]]
    rows = step_values(run._mapping, specs, now, republish, role="failure", first=run.steps_total)  # noqa: SLF001
    session.execute(insert(STEP), rows)
    values = {
        "failing": True,
        "error": error,
        "cancel_requested": False,
        "deadline_at": None,
        "status": RunStatus.RUNNING,
        "steps_total": run.steps_total + len(rows),
        "steps_left": len(rows),
    }
    session.execute(update(RUN).where(RUN.c.id == run.id).values(values))
    session.execute(insert(EVENT), [event_row(run.id, None, "run.failing", now, error=error)])
    send(session, [message(row, now, now) for row in rows if row["status"] == StepStatus.READY])


def _tell(session: Session, run: Any, status: RunStatus, error: dict[str, Any] | None, now: datetime) -> None:
    data = {
        "run_id": run.id,
        "kind": run.kind,
        "name": run.name,
        "version": run.version,
        "status": status,
        "error": error,
        "trigger": run.trigger,
        "parent_run_id": run.parent_run_id,
    }
    publish_along(session, "run.finished", run.project_id, data, at=now, subject=run.name)
