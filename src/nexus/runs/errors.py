"""What can go wrong with durable work.

NexusError
|-- InvalidInput       InvalidRunSpec        422 invalid_run_spec
|                      IdempotencyKeyReused  422 idempotency_key_reused
|-- NotFound           RunNotFound           404 run_not_found
|                      StepNotFound          404 step_not_found
|-- Conflict           RunFinished           409 run_finished
|                      RunNotFinished        409 run_not_finished
|                      RunNotWaiting         409 run_not_waiting
|                      LeaseLost             409 lease_lost
|-- RateLimited        QueueFull             429 queue_full
|-- Unavailable        EngineNotStarted      503 engine_not_started
`-- DeadlineExceeded   StepTimeout           504 step_timeout

Failures that are only ever recorded on a step or a run, never raised: `step_dead_lettered`, `step_cancelled`,
`step_output_invalid`, `need_failed`, `handler_unknown`, `run_deadline_exceeded`, `internal_error`.
"""

from __future__ import annotations

from nexus.core.errors import Conflict, DeadlineExceeded, InvalidInput, NotFound, RateLimited, Unavailable


class InvalidRunSpec(InvalidInput):
    """The description of the run is not valid."""

    code = "invalid_run_spec"


class IdempotencyKeyReused(InvalidInput):
    """This idempotency key was already used for a different request."""

    code = "idempotency_key_reused"


class RunNotFound(NotFound):
    """There is no run with this id."""

    code = "run_not_found"


class StepNotFound(NotFound):
    """The run has no step with this key."""

    code = "step_not_found"


class RunFinished(Conflict):
    """The run has already ended."""

    code = "run_finished"


class RunNotFinished(Conflict):
    """The run has not ended in failure, so there is nothing to try again."""

    code = "run_not_finished"


class RunNotWaiting(Conflict):
    """No step of the run waits for anything."""

    code = "run_not_waiting"


class LeaseLost(Conflict):
    """This attempt is over: another one has taken the step."""

    code = "lease_lost"


class QueueFull(RateLimited):
    """Too much work is waiting already; try again later."""

    code = "queue_full"


class EngineNotStarted(Unavailable):
    """The engine did not reach its message broker in time."""

    code = "engine_not_started"


class StepTimeout(DeadlineExceeded):
    """The step took longer than its timeout."""

    code = "step_timeout"
