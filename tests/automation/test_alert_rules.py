"""What alert rules mean, in tables of cases: no database, no clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from nexus.automation.alert_rules import (
    BudgetSpent,
    Change,
    Condition,
    Metric,
    Reading,
    Status,
    StuckStep,
    beyond,
    budget_readings,
    change,
    increases,
    lasting,
    metric_value,
    percentile,
    share,
    step_limit,
)

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
CONDITIONS: TypeAdapter[Any] = TypeAdapter(Condition)


@pytest.mark.parametrize(
    ("status", "resolved_ago", "firing", "becomes"),
    [
        (None, None, True, "fire"),
        (None, None, False, None),
        ("firing", None, True, "again"),
        ("firing", None, False, "resolve"),
        ("acknowledged", None, True, "again"),
        ("acknowledged", None, False, "resolve"),
        ("resolved", 1000, False, None),
        ("resolved", 1000, True, "fire"),
        ("resolved", 300, True, "fire"),
        ("resolved", 299, True, "suppress"),
        ("resolved", 299, False, None),
    ],
)
def test_what_becomes_of_an_alert(
    status: Status | None, resolved_ago: int | None, firing: bool, becomes: Change | None
) -> None:
    resolved_at = None if resolved_ago is None else NOW - timedelta(seconds=resolved_ago)
    assert change(status, resolved_at, firing, NOW, 300) == becomes


def test_a_condition_must_last() -> None:
    pending: dict[str, str] = {}
    seen = []
    for second, firing in ((0, True), (30, True), (60, True), (90, False), (120, True)):
        reading = Reading("a", firing, "t")
        found, pending = lasting(pending, [reading], NOW + timedelta(seconds=second), 60)
        seen.append([one.firing for one in found])
    # Not yet: nothing is said at all, so that what stands is left as it is.
    assert seen == [[], [], [True], [False], []]


@pytest.mark.parametrize(
    ("bad", "total", "firing"), [(0, 0, False), (3, 4, False), (2, 10, False), (3, 10, True), (10, 10, True)]
)
def test_shares(bad: int, total: int, firing: bool) -> None:
    assert share("k", "Runs", bad, total, 0.2, 5).firing is firing


@pytest.mark.parametrize(
    ("given", "earlier", "limit"),
    [
        ({"seconds": 60}, [], 60),
        ({"factor": 3}, [1.0] * 19, None),
        ({"factor": 3}, [1.0] * 20, 3),
        ({"factor": 2}, [1.0] * 98 + [50.0, 70.0], 100),
        ({"factor": 3, "seconds": 2}, [1.0] * 20, 2),
        ({"factor": 3, "seconds": 9}, [1.0] * 20, 3),
        ({"factor": 3, "seconds": 9}, [], 9),
    ],
)
def test_when_a_step_is_stuck(given: dict[str, float], earlier: list[float], limit: float | None) -> None:
    assert step_limit(StuckStep(kind="stuck_step", **given), earlier) == limit


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_percentiles_are_values_that_so_many_do_not_exceed(values: list[float], part: float) -> None:
    found = percentile(values, part)
    assert found in values
    assert sum(value <= found for value in values) >= part * len(values) - 1e-9


@pytest.mark.parametrize(
    ("spent", "amount", "firing"),
    [(0, 10, [False, False]), (8, 10, [True, False]), (10, 10, [True, True]), (0, 0, [True, True])],
)
def test_budgets(spent: float, amount: float, firing: list[bool]) -> None:
    readings = budget_readings(BudgetSpent(kind="budget"), "bud_1", "", spent, amount)
    assert [reading.firing for reading in readings] == firing
    assert [reading.key for reading in readings] == ["bud_1:80", "bud_1:100"]


@pytest.mark.parametrize(
    ("op", "value", "firing"),
    [(">", 5, False), (">", 5.1, True), (">=", 5, True), ("<", 5, False), ("<", 4.9, True), ("<=", 5, True)],
)
def test_thresholds(op: str, value: float, firing: bool) -> None:
    assert [reading.firing for reading in beyond("k", "x", value, op, 5)] == [firing]
    assert beyond("k", "x", None, op, 5) == []


def sample(**values: float) -> dict[str, Any]:
    return {"m": [({"queue": name, "zone": "a"}, value) for name, value in values.items()]}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 18),
        ({"over": "max"}, 9),
        ({"over": "min"}, 2),
        ({"over": "avg"}, 6),
        ({"labels": {"queue": "cpu"}}, 9),
        ({"labels": {"queue": "gpu"}}, None),
        ({"metric": "other"}, None),
        ({"of": "increase"}, 13),
    ],
)
def test_metrics_of_several_processes(given: dict[str, Any], expected: float | None) -> None:
    processes = [[sample(cpu=1, llm=5), sample(cpu=7, llm=2), sample(cpu=9, llm=2)], [sample(llm=4), sample(llm=7)]]
    condition = Metric(kind="metric", **({"metric": "m", "threshold": 1} | given))
    # llm went from 5 to 2: the process's counter began anew, so 2 were counted since.
    assert metric_value(processes, condition) == expected


@given(st.lists(st.integers(0, 1000), min_size=2))
def test_a_counter_never_shrinks(values: list[int]) -> None:
    grown = increases([{"s": float(value)} for value in values])["s"]
    assert grown >= max(0, values[-1] - values[0])


@pytest.mark.parametrize(
    "condition",
    [
        {"kind": "nothing"},
        {"kind": "run_failed", "typo": 1},
        {"kind": "failure_rate", "above": 1},
        {"kind": "failure_rate"},
        {"kind": "stuck_step"},
        {"kind": "metric", "metric": "A b", "threshold": 1},
        {"kind": "metric", "metric": "nexus_x", "threshold": "high"},
        {"kind": "usage", "of": "smiles", "threshold": 1},
    ],
)
def test_conditions_that_make_no_sense(condition: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CONDITIONS.validate_python(condition)
