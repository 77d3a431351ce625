"""Breakers, typical seconds, and the budget of further tries."""

from __future__ import annotations

import pytest

from nexus.llm.routing.standing import (
    FAILURES,
    LONGEST_REST,
    LONGEST_WAIT,
    REST,
    Breaker,
    RetryBudget,
    RoutingMeter,
    Standing,
)


class Notes(RoutingMeter):
    def __init__(self) -> None:
        self.states: list[Breaker] = []

    def breaker(self, deployment: str, state: Breaker) -> None:
        self.states.append(state)


def opened(meter: RoutingMeter | None = None) -> Standing:
    standing = Standing("a/m", meter or RoutingMeter())
    for i in range(FAILURES):
        standing.failed(float(i), "upstream_unavailable")
    return standing


def test_five_failures_in_a_row_open_the_breaker_and_one_call_tries_it() -> None:
    meter = Notes()
    standing = opened(meter)
    now = float(FAILURES - 1)
    assert standing.state(now) == "open"
    assert not standing.admits(now + REST - 0.1)
    assert standing.free_at(now) == now + REST
    assert standing.admits(now + REST)
    assert standing.state(now + REST) == "half_open"
    assert standing.enter() is True
    assert not standing.admits(now + REST), "exactly one"
    assert standing.free_at(now + REST) > now + REST
    standing.succeeded(0.1, now + REST + 1)
    standing.leave(probe=True)
    assert standing.admits(now + REST + 1)
    assert meter.states == ["open", "half_open", "closed"]


def test_a_failed_trial_rests_twice_as_long_a_minute_at_most() -> None:
    standing, now, rest = opened(), float(FAILURES - 1), REST
    for _ in range(6):
        now += rest
        assert standing.admits(now)
        assert standing.enter()
        standing.failed(now, probe=True)
        standing.leave(probe=True)
        rest = min(2 * rest, LONGEST_REST)
        assert not standing.admits(now + rest - 0.1)
    standing.answered()
    assert standing.rest == REST


def test_a_trial_that_was_given_up_lets_the_next_one_through() -> None:
    standing = opened()
    assert standing.enter()
    standing.leave(probe=True)
    assert standing.admits(100.0)
    assert standing.in_flight == 0


def test_calls_that_were_under_way_when_it_opened_do_not_prolong_the_rest() -> None:
    standing = Standing("a/m")
    for _ in range(7):
        assert standing.enter() is False
    for i in range(7):
        standing.failed(float(i))
        standing.leave()
    assert standing.rests_until == FAILURES - 1 + REST


def test_slow_failures_and_those_with_a_success_between_do_not_open_it() -> None:
    slow, mixed = Standing("a/m"), Standing("b/m")
    for i in range(20):
        slow.failed(i * 3.0)
        mixed.failed(i * 0.1)
        if i % 3 == 0:
            mixed.succeeded(0.1, i * 0.1)
    assert slow.admits(61.0)
    assert mixed.admits(2.0)


def test_streams_that_break_open_it_though_each_had_begun() -> None:
    standing = Standing("a/m")
    for i in range(FAILURES):
        standing.succeeded(0.1, i * 0.1, whole=False)
        standing.failed(i * 0.1)
    assert not standing.admits(1.0)


@pytest.mark.parametrize(("asked", "waited"), [(3.0, 3.0), (86_400.0, LONGEST_WAIT), (0.0, 0.0)])
def test_a_pause_that_was_asked_for_is_kept(asked: float, waited: float) -> None:
    standing = Standing("a/m")
    standing.asked_to_wait(asked, 10.0)
    assert standing.admits(10.0 + waited)
    assert not asked or not standing.admits(10.0 + waited - 0.01)
    standing.asked_to_wait(1.0, 10.0)
    assert standing.free_at(10.0) == pytest.approx(10.0 + max(waited, 1.0))


def test_what_was_slow_looks_better_with_time() -> None:
    standing = Standing("a/m")
    assert standing.typical(0.0) is None
    standing.succeeded(2.0, 0.0)
    assert standing.typical(0.5) == 2.0
    assert standing.typical(30.0) == pytest.approx(1.0)
    assert standing.typical(60.0) == pytest.approx(0.5)
    standing.succeeded(1.0, 60.0)
    assert standing.typical(60.0) == pytest.approx(0.6)


def test_further_tries_are_a_share_of_recent_requests() -> None:
    budget = RetryBudget(0.2, 3)
    assert [budget.take(0.0) for _ in range(5)] == [True, True, True, False, False]
    for _ in range(100):
        budget.count(1.0)
    assert sum(budget.take(1.0) for _ in range(50)) == 20
    assert not budget.take(11.0), "the last ten seconds still count"
    assert sum(budget.take(40.0) for _ in range(50)) == 3, "what is long ago does not"
