"""Which descriptions of runs are refused, and for which field."""

from __future__ import annotations

import math
from typing import Any

import pytest

from nexus.runs.errors import InvalidRunSpec
from nexus.runs.graph import check, fingerprint
from nexus.runs.types import RetryPolicy, RunSpec, StepSpec


def spec(*steps: StepSpec, **changes: Any) -> RunSpec:
    return RunSpec(**{"kind": "test", "name": "a name", "steps": list(steps), **changes})


A = StepSpec("a", "noop")


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (spec(A, kind=""), "kind"),
        (spec(A, kind="Not A Kind"), "kind"),
        (spec(A, name=""), "name"),
        (spec(A, name="x" * 201), "name"),
        (spec(A, deadline=0), "deadline"),
        (spec(A, deadline=math.nan), "deadline"),
        (spec(A, idempotency_key=""), "idempotency_key"),
        (spec(), "steps"),
        (spec(*[StepSpec(f"s{n}", "noop") for n in range(11)]), "steps"),
        (spec(StepSpec("1a", "noop")), "steps.0.key"),
        (spec(StepSpec("a.b", "noop")), "steps.0.key"),
        (spec(A, A), "steps.0.key"),
        (spec(StepSpec("a", "No Op")), "steps.0.uses"),
        (spec(A, StepSpec("b", "noop", needs=["c"])), "steps.1.needs"),
        (spec(A, StepSpec("b", "noop", needs=["a", "a"])), "steps.1.needs"),
        (spec(StepSpec("a", "noop", needs=["a"])), "steps.0.needs"),
        (spec(A, StepSpec("b", "noop", needs=["c"]), StepSpec("c", "noop", needs=["b"])), "steps.1.needs"),
        (spec(StepSpec("a", "noop", timeout=-1)), "steps.0.timeout"),
        (spec(StepSpec("a", "noop", timeout=math.inf)), "steps.0.timeout"),
        (spec(StepSpec("a", "noop", queue="fast")), "steps.0.queue"),
        (spec(StepSpec("a", "noop", retries=RetryPolicy(max=-1))), "steps.0.retries"),
        (spec(StepSpec("a", "noop", retries=RetryPolicy(base=math.nan))), "steps.0.retries"),
    ],
)
def test_a_bad_description_is_refused_by_field(bad: RunSpec, field: str) -> None:
    with pytest.raises(InvalidRunSpec) as refused:
        check(bad, queues=["default"], step_limit=10)
    assert refused.value.field == field


def test_a_diamond_is_fine() -> None:
    b, c = StepSpec("b", "noop", needs=["a"]), StepSpec("c", "noop", needs=["a"])
    check(spec(A, b, c, StepSpec("d", "noop", needs=["b", "c"])), queues=["default"], step_limit=10)


@pytest.mark.parametrize("value", [object(), {1, 2}, "\ud800", 2**70])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRunSpec):
        fingerprint(spec(A, inputs={"x": value}))


def test_the_fingerprint_tells_requests_apart_and_not_the_order_of_names() -> None:
    one = fingerprint(spec(A, inputs={"x": 1, "y": 2}))
    assert one == fingerprint(spec(A, inputs={"y": 2, "x": 1}))
    assert one != fingerprint(spec(A, inputs={"x": 1, "y": 3}))
