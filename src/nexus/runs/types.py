"""What a run is made of: what callers hand in, what they get back, what a step's code sees."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
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

    `on` names what is tried again: codes of errors, or classes of them (`transitions.ERROR_CLASSES`);
    without it, that is every error which is known to pass. `never` is left alone whatever `on` says.
    """

    max: int = 0
    backoff: Literal["exponential", "linear", "fixed"] = "exponential"
    base: float = 1.0
    cap: float = 60.0
    on: list[str] | None = None
    never: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One step of a run: which handler, with which inputs, after which other steps.

    `timeout` is in seconds and for one attempt. A step whose `when` does not hold is skipped; so is
    one of whose needs all were skipped, or any failed.

    With `map`, a list or the template of one, the step is executed for each item, at most `max_parallel`
    at once (`when` decides for the whole, `item_when` for each); its output is the list of their outputs, in
    order. `go_on`: its failure does not fail the run,
    nor an item's the map. `fallback` replaces some of `with_` in the last attempt. At most `concurrency`
    steps of the same `lane` run at once, in all runs together.
    """

    key: str
    uses: str
    with_: dict[str, Any] = field(default_factory=dict)
    needs: list[str] = field(default_factory=list)
    when: str | None = None
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: float | None = None
    queue: str = "default"
    map: Any = None
    item_when: str | None = None
    max_parallel: int | None = None
    go_on: bool = False
    fallback: dict[str, Any] | None = None
    lane: str | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Parent:
    """The step that waits for a child run to end."""

    run_id: str
    step_id: str
    depth: int


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Everything that starts a run. `deadline` is in seconds from the start, for the run as a whole.

    A second start with the same project, kind, name and idempotency key gives the first run again.

    `on_failure` are steps for when the run fails, with `failure` in their scope; `outputs` are templates of
    the result. Runs of a higher `priority` go first, and at most `concurrency` runs of one `lane` go on at
    once. `trigger` says what started the run: `{"type": "schedule", "id": .., ..}`; templates know it as
    `run.trigger`.
    """

    kind: str
    name: str
    steps: list[StepSpec]
    inputs: dict[str, Any] = field(default_factory=dict)
    version: int | None = None
    idempotency_key: str | None = None
    deadline: float | None = None
    on_failure: list[StepSpec] = field(default_factory=list)
    outputs: dict[str, Any] | None = None
    priority: int = 0
    trigger: dict[str, Any] | None = None
    lane: str | None = None
    concurrency: int | None = None
    parent: Parent | None = None
    origin: str | None = None
    """The id of what the run was made of, such as a workflow's."""


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
    """A step as it stands.

    `map_index` is the place of an item of a mapped step, None for a step itself; `items_total` and
    `items_left` count the items of one. `role` is `failure` for a step of `on_failure`.
    """

    id: str
    key: str
    uses: str
    status: StepStatus
    attempts: int
    started_at: datetime | None
    finished_at: datetime | None
    output: Any
    error: Failure | None
    needs: list[str]
    progress: Progress | None
    next_attempt_at: datetime | None = None
    map_index: int | None = None
    items_total: int | None = None
    items_left: int | None = None
    role: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it stands.

    `result` is what its `outputs` say; without them the output of its last step, or of each last step by key.
    """

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
    result: Any
    steps: list[Step] = field(default_factory=list)
    priority: int = 0
    paused: bool = False
    trigger: dict[str, Any] | None = None
    parent_run_id: str | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One line of a run's timeline. `id` only grows; `type` is such as `step.succeeded` or `log`."""

    id: int
    run_id: str
    step_key: str | None
    type: str
    at: datetime
    data: dict[str, Any]
    map_index: int | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that a step has written."""

    file_id: str
    name: str
    size: int
    content_type: str


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

    def artifact(self, artifact: Artifact) -> None:
        """Take note of a file that the step has written."""
        ...

    async def save(self, state: dict[str, Any]) -> None:
        """Store the step's state for its next attempt."""
        ...

    def hide(self, value: Any) -> Any:
        """Return `value` without the secrets that the step has used."""
        ...


class KeptSink:
    """Keeps everything in lists: for trying a handler without an engine."""

    def __init__(self) -> None:
        """Start empty, not cancelled."""
        self.cancelled = False
        self.lines: list[tuple[str, Level]] = []
        self.reports: list[Progress] = []
        self.states: list[dict[str, Any]] = []
        self.artifacts: list[Artifact] = []

    def log(self, message: str, level: Level) -> None:
        """Keep the line."""
        self.lines.append((message, level))

    def progress(self, progress: Progress) -> None:
        """Keep the report."""
        self.reports.append(progress)

    def artifact(self, artifact: Artifact) -> None:
        """Keep the note."""
        self.artifacts.append(artifact)

    async def save(self, state: dict[str, Any]) -> None:
        """Keep the state."""
        self.states.append(state)

    def hide(self, value: Any) -> Any:
        """Return `value` itself: a step that is only tried has no secrets."""
        return value


@dataclass(slots=True)
class StepContext:
    """What a handler knows about the step it executes, and how it speaks while it does.

    `principal` is of kind `system` with the project and the scopes of whoever started the run.
    `state` is what this step last saved or parked with; `signal` is what woke a parked step, if
    anybody did. `round` counts how often the run was retried; `depth` how many runs stand above it.
    """

    run_id: str
    step_key: str
    attempt: int
    principal: Principal
    step_id: str = ""
    map_index: int | None = None
    round: int = 0
    depth: int = 0
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
        """Return `<run id>.<step key>[.<map index>]`, the same for every attempt: sent with every outside effect."""
        key = f"{self.run_id}.{self.step_key}"
        return key if self.map_index is None else f"{key}.{self.map_index}"

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

    def artifact(self, file_id: str, name: str, size: int, content_type: str = "application/octet-stream") -> None:
        """Note a file that the step has written, for the list of the run's artefacts. Never waits."""
        self.sink.artifact(Artifact(file_id, name, size, content_type))

    async def save(self, state: dict[str, Any]) -> None:
        """Store a checkpoint: a later attempt finds it in `state`. Raises `LeaseLost` if this attempt is over."""
        await self.sink.save(state)

    def hide(self, value: Any) -> Any:
        """Return `value` with `***` for the secrets that the step has used: for what it keeps in tables of its own."""
        return self.sink.hide(value)


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
"""Executes a step. A handler with an attribute `target`, a function from inputs to a name or None, says whom
it will call: a target that keeps failing is left alone for a while (`breaker`)."""
Handlers: TypeAlias = Mapping[str, Handler]


class Renderer(Protocol):
    """Fills in templates of `with` and decides `when`.

    `scope` is `{"inputs": {..}, "steps": {key: {"output": .., "status": ..}}, "run": {"id", "trigger", ..}}`,
    in items of a map also `item` and `index`, in steps of `on_failure` also `failure`.
    """

    @property
    def kinds(self) -> Collection[str] | None:
        """Return the kinds of runs that have templates; the inputs of others are plain. None for all."""
        ...

    def render(self, with_: dict[str, Any], scope: dict[str, Any]) -> dict[str, Any]:
        """Return the handler's inputs. Raises `NexusError` for a template that does not fit."""
        ...

    def items(self, map_: Any, scope: dict[str, Any]) -> list[Any]:
        """Return the items of a map. Raises `NexusError` for a template that gives no list."""
        ...

    def reads(self, template: dict[str, Any], when: str | None) -> Collection[str] | None:
        """Return the keys of the steps whose outputs these name; None for all."""
        ...

    def secrets(self, project_id: str) -> Revealing | None:
        """Return the project's secrets for the scope of one step; None where there are none."""
        ...

    def holds(self, when: str, scope: dict[str, Any]) -> bool:
        """Tell whether the condition holds. Raises `NexusError` for one that cannot be decided."""
        ...


class Revealing(Protocol):
    """Secrets by name that remember which of their values were asked for."""

    @property
    def revealed(self) -> list[str]:
        """Return the values that were asked for: they are hidden wherever the step's words are kept."""
        ...


class PlainRenderer:
    """Passes inputs through as they are, and takes a `when` only as the word true or false."""

    kinds: Collection[str] | None = None

    def render(self, with_: dict[str, Any], scope: dict[str, Any]) -> dict[str, Any]:
        """Return `with_` itself."""
        return with_

    def items(self, map_: Any, scope: dict[str, Any]) -> list[Any]:
        """Return `map_` itself, or the input of that name."""
        return list(map_ if isinstance(map_, list) else scope["inputs"][map_])

    def reads(self, template: dict[str, Any], when: str | None) -> Collection[str] | None:
        """Return nothing: plain text names no outputs."""
        return ()

    def secrets(self, project_id: str) -> Revealing | None:
        """Return None: plain text names no secrets."""
        return None

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
