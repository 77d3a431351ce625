"""Wait without holding a worker: some seconds, until a moment, or for a signal.

- {key: rest, uses: wait, with: {seconds: 3600}}
- {key: noon, uses: wait, with: {until: "2026-12-24T12:00:00Z"}}
- {key: paid, uses: wait, with: {signal: true, seconds: 86400}}

The signal comes with `POST /api/v1/runs/{id}/resume {"step": "paid", "signal": {..}}`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import AwareDatetime, Field, model_validator

from nexus.automation.step import StepModel
from nexus.core.clock import Clock, rfc3339
from nexus.runs.types import Parked, StepContext

# The engine begins a step up to a second early, for clocks differ.
_CLOSE = timedelta(seconds=1)


class WaitInputs(StepModel):
    """How long. With `signal`, the step ends as soon as one comes, and the time is the longest it waits."""

    seconds: float | None = Field(None, ge=0, le=366 * 86_400)
    until: AwareDatetime | None = Field(None, description="A moment with its zone")
    signal: bool = False

    @model_validator(mode="after")
    def _something_ends_it(self) -> WaitInputs:
        if self.seconds is not None and self.until is not None:
            raise ValueError("give either seconds or until")
        if self.seconds is None and self.until is None and not self.signal:
            raise ValueError("give seconds, until or signal")
        return self


class WaitOutputs(StepModel):
    """What ended the wait: a signal with its data, or the time. `waited_until` is when."""

    signalled: bool
    signal: dict[str, Any] | None
    waited_until: str | None


class Wait:
    """The step `wait`."""

    uses = "wait"
    summary = "Wait some seconds, until a moment, or for a signal."
    queue = "default"
    Inputs = WaitInputs
    Outputs = WaitOutputs

    async def run(self, context: StepContext, inputs: WaitInputs) -> WaitOutputs:
        """Park, or see what has ended the wait."""
        now = context.services.get(Clock).now()  # type: ignore[type-abstract]
        if context.state is None:
            until = _end(now, inputs)
            raise Parked(until, {"until": rfc3339(until)})
        said = context.state.get("until")
        over = said is not None and datetime.fromisoformat(said) - now <= _CLOSE
        if context.signal is None and not over and inputs.signal:
            # Woken, and not by a signal with something in it: that counts as one all the same.
            return WaitOutputs(signalled=True, signal=None, waited_until=rfc3339(now))
        return WaitOutputs(signalled=context.signal is not None, signal=context.signal, waited_until=rfc3339(now))


def _end(now: datetime, inputs: WaitInputs) -> datetime | None:
    if inputs.until is not None:
        return inputs.until.astimezone(UTC)
    return None if inputs.seconds is None else now + timedelta(seconds=inputs.seconds)


plug = Wait()
