"""What alert rules mean: conditions, what measurements say about them, and what follows. No I/O, no clock.

A rule is looked at in two ways. Some kinds are measured from time to time (`Reading` of each thing that they
are about, such as a step or a budget); others are told by events (a run has failed, a model has drifted).
Either way `change` says what becomes of the alert of that thing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Status = Literal["firing", "acknowledged", "resolved"]
Change = Literal["fire", "again", "suppress", "resolve"]
Severity = Literal["info", "warning", "error", "critical"]

ENOUGH: Final = 20
"""Fewer earlier durations than this say nothing about how long a step usually takes."""
_SECONDS: Final = 30 * 86_400


class _Condition(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RunFailed(_Condition):
    """A run of the workflow has failed; the next that succeeds resolves it."""

    kind: Literal["run_failed"]
    workflow: str | None = Field(None, max_length=200, description="Its name; null: any")


class FailureRate(_Condition):
    """More than this part of the runs that ended within the window have failed."""

    kind: Literal["failure_rate"]
    workflow: str | None = Field(None, max_length=200)
    above: float = Field(ge=0, lt=1, description="0.2 is 20 %")
    window: float = Field(3600, ge=60, le=_SECONDS, description="Seconds")
    minimum: int = Field(5, ge=1, le=1_000_000, description="Fewer runs than these say nothing")


class StuckStep(_Condition):
    """A step runs longer than `seconds`, or than `factor` times the 99th percentile of its earlier durations."""

    kind: Literal["stuck_step"]
    workflow: str | None = Field(None, max_length=200)
    seconds: float | None = Field(None, gt=0, le=_SECONDS)
    factor: float | None = Field(None, ge=1, le=1000)

    @model_validator(mode="after")
    def _some_limit(self) -> StuckStep:
        if self.seconds is None and self.factor is None:
            raise ValueError("give seconds, factor, or both")
        return self


class QueueAge(_Condition):
    """The oldest step of the project that is ready has waited this long for a worker."""

    kind: Literal["queue_age"]
    queue: str | None = Field(None, max_length=32)
    seconds: float = Field(60, gt=0, le=_SECONDS)


class SchedulerLag(_Condition):
    """A schedule of the project is this late, or was in the last five minutes."""

    kind: Literal["scheduler_lag"]
    seconds: float = Field(30, gt=0, le=_SECONDS)


class DeadLetter(_Condition):
    """A step was given up because it, or its engine, died under it too often. It resolves after `clear`."""

    kind: Literal["dead_letter"]
    workflow: str | None = Field(None, max_length=200)
    clear: float = Field(3600, ge=60, le=_SECONDS, description="Seconds without another until it is resolved")


class BudgetSpent(_Condition):
    """So many percent of a budget of the project are spent; the next period resolves it."""

    kind: Literal["budget"]
    budget: str | None = Field(None, max_length=40, description="Its id; null: any")
    percent: Annotated[list[float], Field(min_length=1, max_length=10)] = Field(default=[80.0, 100.0])


class Drift(_Condition):
    """A model has drifted (event `model.drifted`); `model.recovered`, or `clear` without news, resolves it."""

    kind: Literal["drift"]
    model: str | None = Field(None, max_length=255)
    clear: float = Field(86_400, ge=60, le=_SECONDS, description="Seconds without news until it is resolved")


class ErrorRate(_Condition):
    """More than this part of the project's calls to language models, or of HTTP requests (5xx), fail."""

    kind: Literal["error_rate"]
    of: Literal["llm", "http"] = "llm"
    model: str | None = Field(None, max_length=255, description="For llm: null is any")
    above: float = Field(ge=0, lt=1)
    window: float = Field(300, ge=30, le=86_400)
    minimum: int = Field(20, ge=1, le=1_000_000)


class Metric(_Condition):
    """A metric of `/metrics` beyond a threshold: its value now, or how much it grew within the window."""

    kind: Literal["metric"]
    metric: str = Field(pattern=r"^[a-z_][a-z0-9_]{0,99}$")
    labels: dict[str, str] = Field(default_factory=dict, max_length=10)
    of: Literal["value", "increase"] = "value"
    over: Literal["sum", "max", "min", "avg"] = Field("sum", description="How series that fit become one number")
    window: float = Field(300, ge=30, le=3600, description="For increase: seconds")
    op: Literal[">", ">=", "<", "<="] = ">"
    threshold: float


class Usage(_Condition):
    """What the project has used within the window, out of the ledger, beyond a threshold."""

    kind: Literal["usage"]
    of: Literal["calls", "errors", "tokens", "cost_usd", "latency_ms_avg"]
    model: str | None = Field(None, max_length=255)
    window: float = Field(3600, ge=60, le=_SECONDS)
    op: Literal[">", ">=", "<", "<="] = ">"
    threshold: float


Condition = Annotated[
    RunFailed
    | FailureRate
    | StuckStep
    | QueueAge
    | SchedulerLag
    | DeadLetter
    | BudgetSpent
    | Drift
    | ErrorRate
    | Metric
    | Usage,
    Field(discriminator="kind"),
]

TOLD: Final = frozenset({"run_failed", "dead_letter", "drift"})
"""The kinds that events tell of."""

_OPS: Final = {
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What is so of one thing that a rule is about. `key` names it among those of its rule."""

    key: str
    firing: bool
    title: str
    value: float | None = None
    details: dict[str, Any] = field(default_factory=dict)


def change(
    status: Status | None, resolved_at: datetime | None, firing: bool, now: datetime, cooldown: float
) -> Change | None:
    """Return what becomes of the newest alert of a thing; None for nothing.

    `status` None: there was none. A thing that fires again within `cooldown` seconds of the last resolve is
    counted and nobody is told; it fires anew when it does so later.
    """
    live = status in ("firing", "acknowledged")
    if not firing:
        return "resolve" if live else None
    if live:
        return "again"
    if status == "resolved" and resolved_at is not None and now - resolved_at < timedelta(seconds=cooldown):
        return "suppress"
    return "fire"


def lasting(
    pending: Mapping[str, str], readings: Iterable[Reading], now: datetime, seconds: float
) -> tuple[list[Reading], dict[str, str]]:
    """Return the readings with those not firing that do so for less than `seconds`, and since when each does."""
    since: dict[str, str] = {}
    found: list[Reading] = []
    for reading in readings:
        if reading.firing:
            since[reading.key] = pending.get(reading.key, now.isoformat())
            began = datetime.fromisoformat(since[reading.key])
            if (now - began).total_seconds() < seconds:
                # Neither firing nor over: an alert that stands is left as it is.
                continue
        found.append(reading)
    return found, since


def share(key: str, what: str, bad: int, total: int, above: float, minimum: int) -> Reading:
    """Say whether more than a part of `total` is bad; fewer than `minimum` are not enough to say so."""
    part = bad / total if total else 0.0
    title = f"{what}: {part:.0%} of {total} failed"
    return Reading(key, total >= minimum and part > above, title, part, {"failed": bad, "total": total})


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value that `part` of the values do not exceed (nearest rank). `values` is not empty."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def step_limit(condition: StuckStep, earlier: Sequence[float]) -> float | None:
    """Return after how many seconds a step counts as stuck; None when that cannot be said yet."""
    limits = [] if condition.seconds is None else [condition.seconds]
    if condition.factor is not None and len(earlier) >= ENOUGH:
        limits.append(condition.factor * percentile(earlier, 0.99))
    return min(limits, default=None)


def budget_readings(condition: BudgetSpent, budget: str, name: str, spent: float, amount: float) -> list[Reading]:
    """Say of each percentage whether so much of a budget is spent."""
    used = 100.0 if amount <= 0 else 100 * spent / amount
    title = f"{used:.0f} % of the budget {name or budget} is spent"
    told = {"budget": budget, "spent_usd": round(spent, 6), "amount_usd": amount}
    return [
        Reading(f"{budget}:{percent:g}", used >= percent, title, used, {**told, "percent": percent})
        for percent in sorted(set(condition.percent))
    ]


def beyond(key: str, what: str, value: float | None, op: str, threshold: float) -> list[Reading]:
    """Say whether a number is beyond a threshold; nothing at all when there is no number."""
    if value is None:
        return []
    title = f"{what} is {value:g} ({op} {threshold:g})"
    return [Reading(key, _OPS[op](value, threshold), title, value, {"op": op, "threshold": threshold})]


Series = Mapping[str, Sequence[tuple[Mapping[str, str], float]]]


def fitting(samples: Series, name: str, labels: Mapping[str, str]) -> dict[tuple[tuple[str, str], ...], float]:
    """Return the values of the series of a metric whose labels have these values."""
    return {
        tuple(sorted(given.items())): value
        for given, value in samples.get(name, ())
        if all(given.get(label) == wanted for label, wanted in labels.items())
    }


def metric_value(processes: Iterable[Sequence[Series]], condition: Metric) -> float | None:
    """Return the number that a condition asks for; None when no process has such a series.

    `processes` holds the samples of each process within the window, oldest first.
    """
    numbers: list[float] = []
    for samples in processes:
        picked = [fitting(sample, condition.metric, condition.labels) for sample in samples]
        if condition.of == "value":
            numbers += list(picked[-1].values()) if picked else []
        else:
            numbers += list(increases(picked).values())
    if not numbers:
        return None
    if condition.over == "sum":
        return math.fsum(numbers)
    if condition.over == "avg":
        return math.fsum(numbers) / len(numbers)
    return max(numbers) if condition.over == "max" else min(numbers)


def increases(samples: Sequence[Mapping[Any, float]]) -> dict[Any, float]:
    """Return how much each counter grew from the first to the last sample. A series that is new began at 0."""
    grown: dict[Any, float] = {}
    for before, after in pairwise(samples):
        for series, value in after.items():
            step = value - before.get(series, 0.0)
            grown[series] = grown.get(series, 0.0) + (step if step >= 0 else value)
    return grown
