"""The run that tells channels of a question: of kind `alert`, durable, a step for each channel (`approval_jobs`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy.orm import Session

from nexus.automation import channel_storage
from nexus.automation.channel_service import RETRIES, TIMEOUT
from nexus.automation.errors import ChannelNotFound
from nexus.runs.types import RunSpec, StepContext, StepSpec

NOTIFY: Final = "approvals.notify"


def announcing(session: Session, context: StepContext, approval_id: str, names: Sequence[str]) -> RunSpec:
    """Return the run that tells channels, by name or id, what a step asks. Raises `ChannelNotFound`."""
    steps = []
    for number, name in enumerate(names, 1):
        channel = channel_storage.get(session, context.project_id, name)
        if channel is None:
            raise ChannelNotFound(f"There is no channel {name!r}.", field="notify")
        given = {"approval_id": approval_id, "channel_id": channel.id}
        steps.append(StepSpec(f"notify-{number}", NOTIFY, given, retries=RETRIES, timeout=TIMEOUT))
    return RunSpec(
        kind="alert",
        name="approval",
        steps=steps,
        inputs={"approval_id": approval_id},
        idempotency_key=f"approval:{approval_id}",
        trigger={"type": "approval", "id": approval_id, "caused_by": context.run_id},
    )
