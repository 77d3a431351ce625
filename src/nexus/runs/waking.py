"""Waking a step that waits: by a signal, by the end of its child run, by an approval."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from nexus.runs.outbox import message_of, send
from nexus.runs.records import event_row
from nexus.runs.tables import EVENT, RunRow, StepRow
from nexus.runs.types import RunStatus, StepStatus


def wake_step(
    session: Session, run_id: str, step_id: str, now: datetime, republish: float, signal: dict[str, Any] | None = None
) -> bool:
    """Let a step go on that waits, or is just about to: one that parks after this is ready again at once.

    False when the step does neither. What it waits for must have been written in this transaction.
    """
    run = session.execute(select(RunRow).where(RunRow.id == run_id).with_for_update()).scalar_one_or_none()
    step = session.get(StepRow, step_id, with_for_update=True, populate_existing=True)
    if run is None or step is None or run.cancel_requested:
        return False
    if step.status == StepStatus.RUNNING:
        step.woken, step.signal = True, signal
        session.flush()
        return True
    if step.status != StepStatus.WAITING:
        return False
    wake_rows(session, run, [step], now, republish, signal)
    return True


def wake_rows(
    session: Session, run: RunRow, steps: list[StepRow], now: datetime, republish: float, signal: dict[str, Any] | None
) -> None:
    """Make waiting steps of a locked run ready at once; of a paused one, as soon as it is resumed."""
    for step in steps:
        step.status, step.epoch, step.signal = StepStatus.READY, step.epoch + 1, signal
        step.run_at = step.ready_at = now
        step.republish_at, step.republished, step.held = now + timedelta(seconds=republish), 0, run.paused
    if not run.paused:
        run.status = RunStatus.RUNNING
    session.flush()
    events = [
        event_row(run.id, step.key, "step.resumed", now, step.map_index, signalled=signal is not None) for step in steps
    ]
    session.execute(insert(EVENT), events)
    if not run.paused:
        send(session, [message_of(step, now) for step in steps])
