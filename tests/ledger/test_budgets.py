"""Budgets: periods by the calendar, what may begin, what is told."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from nexus.access.types import BudgetPeriod
from nexus.ledger.budgets import Budget, period_end, period_start

NOW = datetime(2026, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        ("day", datetime(2026, 12, 31, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        ("month", datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        ("total", datetime(1970, 1, 1, tzinfo=UTC), None),
    ],
)
def test_periods(period: BudgetPeriod, start: datetime, end: datetime | None) -> None:
    assert (period_start(period, NOW), period_end(period, NOW)) == (start, end)
    assert period_end("month", datetime(2028, 2, 29, tzinfo=UTC)) == datetime(2028, 3, 1, tzinfo=UTC)


def known(period: BudgetPeriod = "day", amount: float = 10.0) -> Budget:
    budget = Budget("bud_1", amount=amount, period=period, project_id="prj_1")
    budget.turn(NOW)
    budget.loaded = True
    return budget


def test_a_new_period_begins_with_nothing_spent() -> None:
    budget = known()
    budget.spent, budget.told = 9.0, 80
    budget.turn(NOW)
    assert budget.total == 9.0
    budget.turn(datetime(2027, 1, 1, tzinfo=UTC))
    assert (budget.total, budget.told) == (0, 0)
    always = known("total")
    always.spent = 9.0
    always.turn(datetime(2030, 1, 1, tzinfo=UTC))
    assert always.total == 9.0


def test_reservations_count_and_one_call_alone_may_always_finish_the_budget() -> None:
    budget = known()
    assert budget.admits(10.0)
    assert budget.admits(25.0), "nobody knows that it will cost so much"
    budget.reserved = 6.0
    assert budget.admits(4.0)
    assert not budget.admits(4.1)
    budget.reserved, budget.elsewhere = 0.0, 6.0
    assert not budget.admits(4.1)
    budget.elsewhere, budget.spent = 0.0, 10.0
    assert not budget.admits(0.0)


def test_each_percentage_is_told_once_in_a_period() -> None:
    budget = known()
    budget.since = 7.9
    assert budget.reached() == []
    budget.since = 8.0
    assert [event.percent for event in budget.reached()] == [80]
    assert budget.reached() == []
    budget.since = 12.0
    event = budget.reached()[0]
    assert (event.percent, event.spent_usd, event.scope) == (100, 12.0, "project")
    budget.turn(datetime(2027, 1, 1, tzinfo=UTC))
    budget.since = 20.0
    assert [event.percent for event in budget.reached()] == [80, 100]
