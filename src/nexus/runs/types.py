"""What a run is made of: what callers hand in, what they get back, what a step's code sees."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Protocol, TypeAlias

from nexus.access.types import Principal
from nexus.core.services import Services

Level: TypeAlias = Literal["debug", "info", "warning", "error"]


class RunStatus(StrEnum):
    """Where a run stands. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Tell whether the run has ended."""
        return self in (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED)


class StepStatus(StrEnum):
    """Where a step stands. The last four are final."""

    PENDING = "pending"
    READY = "ready"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Tell whether the step has ended."""
        return self in (StepStatus.SUCCEEDED, StepStatus.SKIPPED, StepStatus.FAILED, StepStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a failing step is tried again, and how long it rests in between (seconds).

    `exponential` waits `base * 2**n`, `linear` `base * (n + 1)`, `fixed` `base`; never more than `cap`
    (a provider's Retry-After may be longer), and always with jitter of 0.5 to 1.5.
    """

    max: int = 0
    backoff: Literal["exponential", "linear", "fixed"] = "exponential"
    base: float = 1.0
    cap: float = 60.0


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One step of a run: which handler, with which inputs, after which other steps.

    `timeout` is in seconds and for one attempt. A step whose `when` does not hold is skipped; so is
    one of whose needs all were skipped, or any failed.
    """

    key: str
    uses: str
    with_: dict[str, Any] = field(default_factory=dict)
    needs: list[str] = field(default_factory=list)
    when: str | None = None
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: float | None = None
    queue: str = "default"


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Everything that starts a run. `deadline` is in seconds from the start, for the run as a whole.

    A second start with the same project, kind, name and idempotency key gives the first run again.
    """

    kind: str
    name: str
    steps: list[StepSpec]
    inputs: dict[str, Any] = field(default_factory=dict)
    version: int | None = None
    idempotency_key: str | None = None
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far something is: `done` of `total` (None: not known) in `unit`."""

    done: float
    total: float | None
    unit: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a step or a run failed, in words that are safe to show. A run's names the step."""

    code: str
    message: str
    field: str | None = None
    step: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A step as it stands."""

    id: str
    key: str
    uses: str
    status: StepStatus
    attempts: int
    started_at: datetime | None
    finished_at: datetime | None
    output: dict[str, Any] | None
    error: Failure | None
    needs: list[str]
    progress: Progress | None
    next_attempt_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it stands. `result` is the output of its last step, or of each last step by key."""

    id: str
    project_id: str
    principal_id: str
    kind: str
    name: str
    version: int | None
    status: RunStatus
    progress: Progress
    inputs: dict[str, Any]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: Failure | None
    result: dict[str, Any] | None
    steps: list[Step] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One line of a run's timeline. `id` only grows; `type` is such as `step.succeeded` or `log`."""

    id: int
    run_id: str
    step_key: str | None
    type: str
    at: datetime
    data: dict[str, Any]


class StepSink(Protocol):
    """Where a step's words go while it runs. The engine has the real one."""

    @property
    def cancelled(self) -> bool:
        """Tell whether the step should stop."""
        ...

    def log(self, message: str, level: Level) -> None:
        """Take one line of log."""
        ...

    def progress(self, progress: Progress) -> None:
        """Take the newest progress."""
        ...

    async def save(self, state: dict[str, Any]) -> None:
        """Store the step's state for its next attempt."""
        ...


class KeptSink:
    """Keeps everything in lists: for trying a handler without an engine."""

    def __init__(self) -> None:
        """Start empty, not cancelled."""
        self.cancelled = False
        self.lines: list[tuple[str, Level]] = []
        self.reports: list[Progress] = []
        self.states: list[dict[str, Any]] = []

    def log(self, message: str, level: Level) -> None:
        """Keep the line."""
        self.lines.append((message, level))

    def progress(self, progress: Progress) -> None:
        """Keep the report."""
        self.reports.append(progress)

    async def save(self, state: dict[str, Any]) -> None:
        """Keep the state."""
        self.states.append(state)


@dataclass(slots=True)
class StepContext:
    """What a handler knows about the step it executes, and how it speaks while it does.

    `principal` is of kind `system` with the project and the scopes of whoever started the run.
    `state` is what this step last saved or parked with; `signal` is what woke a parked step, if
    anybody did.
    """

    run_id: str
    step_key: str
    attempt: int
    principal: Principal
    services: Services = field(default_factory=Services)
    inputs_of_run: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] | None = None
    signal: dict[str, Any] | None = None
    sink: StepSink = field(default_factory=KeptSink)

    @property
    def project_id(self) -> str:
        """Return the project that the run belongs to."""
        return self.principal.project_id

    @property
    def idempotency_key(self) -> str:
        """Return `<run id>.<step key>`: the same for every attempt. Send it with every outside effect."""
        return f"{self.run_id}.{self.step_key}"

    @property
    def cancelled(self) -> bool:
        """Tell whether the step should stop. Async handlers are cancelled anyway; ask from threads."""
        return self.sink.cancelled

    def log(self, message: str, level: Level = "info") -> None:
        """Add a line to the run's log. May be called from any thread; never waits."""
        self.sink.log(message, level)

    def progress(self, done: float, total: float | None = None, unit: str = "steps") -> None:
        """Report how far the step is. May be called from any thread, as often as one likes."""
        self.sink.progress(Progress(done, total, unit))

    async def save(self, state: dict[str, Any]) -> None:
        """Store a checkpoint: a later attempt finds it in `state`. Raises `LeaseLost` if this attempt is over."""
        await self.sink.save(state)


class Parked(Exception):
    """Raise in a handler to wait without holding a worker.

    The step is executed again at `until` (None: never by itself), or as soon as `RunService.signal`
    brings it something, with `state` in its context.
    """

    def __init__(self, until: datetime | None = None, state: dict[str, Any] | None = None) -> None:
        """Wait until `until` or a signal; keep `state` (None: keep the present one)."""
        super().__init__("the step waits")
        self.until = until
        self.state = state


Handler: TypeAlias = Callable[[StepContext, dict[str, Any]], Awaitable[dict[str, Any]]]
Handlers: TypeAlias = Mapping[str, Handler]


class Renderer(Protocol):
    """Fills in templates of `with` and decides `when`.

    `scope` is `{"inputs": {..}, "steps": {key: {"output": .., "status": ..}}}`.
    """

    def render(self, with_: dict[str, Any], scope: dict[str, Any]) -> dict[str, Any]:
        """Return the handler's inputs. Raises `NexusError` for a template that does not fit."""
        ...

    def holds(self, when: str, scope: dict[str, Any]) -> bool:
        """Tell whether the condition holds. Raises `NexusError` for one that cannot be decided."""
        ...


class PlainRenderer:
    """Passes inputs through as they are, and takes a `when` only as the word true or false."""

    def render(self, with_: dict[str, Any], scope: dict[str, Any]) -> dict[str, Any]:
        """Return `with_` itself."""
        return with_

    def holds(self, when: str, scope: dict[str, Any]) -> bool:
        """Tell whether `when` is the word true."""
        return when.strip().lower() == "true"


@dataclass(frozen=True, slots=True)
class RunCounts:
    """How much work waits, for metrics. Ages are in seconds, 0 when nothing waits."""

    ready: dict[str, int]
    running: dict[str, int]
    waiting: int
    oldest_ready_age: float
    outbox: int
    oldest_outbox_age: float
    expired_leases: int
