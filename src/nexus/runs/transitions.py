"""The state machine of runs and steps: which change is legal, and what follows from it. No I/O.

pending -> ready -> running -> succeeded | failed | skipped | cancelled
running -> ready (retry, crash, release)   running -> waiting (parked, items at work) -> running | ready
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from nexus.runs.types import Failure, RetryPolicy, RunStatus, StepStatus

S = StepStatus

LEGAL: Final[Mapping[StepStatus, frozenset[StepStatus]]] = {
    S.PENDING: frozenset({S.READY, S.SKIPPED, S.CANCELLED}),
    S.READY: frozenset({S.RUNNING, S.CANCELLED, S.FAILED}),
    S.RUNNING: frozenset({S.READY, S.WAITING, S.SUCCEEDED, S.SKIPPED, S.FAILED, S.CANCELLED}),
    S.WAITING: frozenset({S.READY, S.RUNNING, S.CANCELLED}),
    S.SUCCEEDED: frozenset(),
    S.SKIPPED: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELLED: frozenset(),
}
"""Where a step may go by itself. A retry of the whole run opens failed, cancelled and skipped steps again."""


ERROR_CLASSES: Final[Mapping[str, str]] = {
    "timeout": "It took too long: 408, 504, the step's own timeout.",
    "rate_limited": "The other side wants fewer calls: 429.",
    "unavailable": "The other side is away for the moment: 502, 503.",
    "internal": "An error of NEXUS itself: any other 5xx.",
    "invalid": "The request is wrong, and will be again: any other 4xx.",
    "any": "Every error.",
}
"""What `retries.on` and `never` may name beside the codes of errors."""


def error_class(status: int) -> str:
    """Return the class of an error of this HTTP status."""
    named = {408: "timeout", 504: "timeout", 429: "rate_limited", 502: "unavailable", 503: "unavailable"}
    return named.get(status, "internal" if status >= 500 else "invalid")


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The handler returned, or all items of a map have ended well."""

    output: Any


@dataclass(frozen=True, slots=True)
class Spread:
    """A mapped step knows its items; each becomes a step of its own."""

    items: list[Any]


@dataclass(frozen=True, slots=True)
class Skipped:
    """The step's condition does not hold."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed. `crashed`: its own child process died. `kind` is one of `ERROR_CLASSES`."""

    failure: Failure
    retryable: bool = False
    retry_after: float | None = None
    crashed: bool = False
    kind: str = "internal"


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The attempt stopped because the run was cancelled."""


@dataclass(frozen=True, slots=True)
class Waits:
    """The handler parked: `seconds` until it wants to be executed again, None for no limit.

    With a `reason` the handler was never called, and the attempt does not count.
    """

    seconds: float | None
    state: dict[str, Any] | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Released:
    """The engine gives the step back unharmed, because it shuts down."""


Outcome: TypeAlias = Succeeded | Spread | Skipped | Failed | Cancelled | Waits | Released


@dataclass(frozen=True, slots=True)
class Again:
    """The step is to be tried again after `delay` seconds."""

    delay: float


def after_need(needs_left: int, needs_skipped: int, needs_total: int, ended: StepStatus) -> StepStatus:
    """Return what a pending step becomes, its counters already taking in the need that `ended`.

    It is skipped at once when a need failed or was cancelled, ready when all are through, and
    skipped when all of them were skipped: a branch not taken takes its tail along, but not the join
    where it meets one that was.
    """
    if ended in (S.FAILED, S.CANCELLED):
        return S.SKIPPED
    if needs_left > 0:
        return S.PENDING
    return S.SKIPPED if needs_skipped == needs_total else S.READY


def after_failure(
    failed: Failed, policy: RetryPolicy, *, failures: int, child_crashes: int, crash_limit: int, random: float
) -> Again | Failure:
    """Return when to try again, or with what to give up.

    `failures` and `child_crashes` count this attempt too; `random` in [0, 1) is the jitter. A crash of
    the step's own child is repeated whatever the policy, up to `crash_limit`, and never as a failure.
    """
    if failed.crashed:
        if child_crashes >= crash_limit:
            return Failure("step_dead_lettered", f"The step crashed {child_crashes} times and was given up.")
        return Again(backoff(RetryPolicy(), child_crashes - 1, random))
    if not may_repeat(failed, policy) or failures > policy.max:
        return failed.failure
    return Again(max(backoff(policy, failures - 1, random), failed.retry_after or 0.0))


def may_repeat(failed: Failed, policy: RetryPolicy) -> bool:
    """Tell whether the policy wants this failure tried again, attempts permitting."""
    names = {failed.failure.code, failed.kind, "any"}
    if not names.isdisjoint(policy.never):
        return False
    return failed.retryable if policy.on is None else not names.isdisjoint(policy.on)


def after_crash(crashes: int, limit: int) -> Again | Failure:
    """Return what becomes of a step whose engine died under it for the `crashes`-th time."""
    if crashes >= limit:
        return Failure("step_dead_lettered", f"The engine died {crashes} times under the step; it was given up.")
    # The first times are surely not the step's fault; later it should not take the engine down in a circle.
    return Again(0.0 if crashes <= 3 else min(60.0, 2.0 ** (crashes - 3)))


def backoff(policy: RetryPolicy, n: int, random: float) -> float:
    """Return the rest before retry `n` (from 0) in seconds; `random` in [0, 1) spreads it by 0.5 to 1.5."""
    factor = {"exponential": 2.0 ** min(n, 60), "linear": n + 1.0, "fixed": 1.0}[policy.backoff]
    return min(policy.cap, policy.base * factor) * (0.5 + random)


def run_end(statuses: Iterable[StepStatus], *, cancel_requested: bool, deadline_passed: bool = False) -> RunStatus:
    """Return how a run ends whose steps have all ended; `statuses` without failures that were taken in stride."""
    seen = set(statuses)
    if deadline_passed and S.CANCELLED in seen:
        return RunStatus.FAILED
    if cancel_requested and S.CANCELLED in seen:
        return RunStatus.CANCELLED
    return RunStatus.FAILED if seen & {S.FAILED, S.CANCELLED} else RunStatus.SUCCEEDED


def run_result(steps: Iterable[tuple[str, list[str], StepStatus, Any]]) -> Any:
    """Return a run's result from `(key, needed_by, status, output)` of its steps.

    It is the output of the one step that nothing needs; with several such, their outputs by key.
    """
    lasts = {key: output for key, needed_by, status, output in steps if not needed_by and status is S.SUCCEEDED}
    if len(lasts) == 1:
        return next(iter(lasts.values()))
    return lasts or None


@dataclass(slots=True)
class Node:
    """A step as `reopen` sees it. `tolerated`: the run goes on without it, should it fail."""

    key: str
    needs: list[str]
    status: StepStatus
    tolerated: bool = False
    needs_left: int = 0
    needs_skipped: int = 0
    needed_by: list[str] = field(default_factory=list)


def reopen(nodes: Mapping[str, Node], begin: str | None = None) -> dict[str, Node]:
    """Return the steps of an ended run that a retry opens again, with fresh status and counters.

    These are the failed and the cancelled ones, the one to `begin` from, and all that stand after them;
    what else has succeeded, or was skipped by its own condition, stays.
    """
    opened: set[str] = set()
    frontier = [
        node.key
        for node in nodes.values()
        if node.key == begin or node.status is S.CANCELLED or (node.status is S.FAILED and not node.tolerated)
    ]
    while frontier:
        key = frontier.pop()
        if key not in opened:
            opened.add(key)
            frontier.extend(nodes[key].needed_by)
    fresh: dict[str, Node] = {}
    for key in opened:
        node = nodes[key]
        left = [need for need in node.needs if need in opened]
        skipped = [need for need in node.needs if need not in opened and nodes[need].status is S.SKIPPED]
        status = S.PENDING if left else S.READY
        fresh[key] = replace(node, status=status, needs_left=len(left), needs_skipped=len(skipped))
    return fresh
