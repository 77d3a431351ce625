"""Where calls go."""

from __future__ import annotations

from collections import Counter

import pytest

from nexus.llm.routing import FAILURES, REST, Router
from nexus.llm.types import Deployment, Price, Route

A = Deployment(provider="a", model="m", weight=3, price=Price(input=2, output=2))
B = Deployment(provider="b", model="m", weight=1, price=Price(input=1, output=1))
C = Deployment(provider="c", model="m", weight=0)


def route(name: str, *deployments: Deployment, **more: object) -> Route:
    return Route(name=name, deployments=deployments, **more)  # type: ignore[arg-type]


def test_weights_decide_how_often_a_deployment_comes_first() -> None:
    target = route("r", A, B, C)
    router = Router({"r": target})
    firsts = Counter(router.order(target)[0].provider for _ in range(4000))
    assert firsts["c"] == 0
    assert firsts["a"] / firsts["b"] == pytest.approx(3, rel=0.25)
    assert all(len(router.order(target)) == 3 for _ in range(50))
    assert router.order(target)[-1] is C


@pytest.mark.parametrize(("strategy", "first"), [("least_busy", "b"), ("lowest_latency", "b"), ("lowest_cost", "b")])
def test_strategies_order_by_what_they_say(strategy: str, first: str) -> None:
    target = route("r", A, B, strategy=strategy)
    router = Router({"r": target}, pick=lambda: 0.0)
    router.standing(A).in_flight = 9
    router.standing(A).succeeded(2.0)
    router.standing(B).succeeded(0.1)
    assert router.order(target)[0].provider == first


def test_fallbacks_follow_in_order_and_only_once() -> None:
    routes = {
        "one": route("one", A, fallbacks=("two", "three")),
        "two": route("two", B, fallbacks=("one",)),
        "three": route("three", C),
    }
    plan = list(Router(routes).plan(routes["one"], 0.0))
    assert [(step.name, where.provider) for step, where in plan] == [("one", "a"), ("two", "b"), ("three", "c")]


def test_a_route_made_for_one_call_needs_no_place_in_the_table() -> None:
    assert [where for _, where in Router({}).plan(route("up/x", A), 0.0)] == [A]


def test_a_deployment_that_fails_five_times_rests_and_comes_back() -> None:
    target = route("r", A)
    router = Router({"r": target})
    for i in range(FAILURES):
        assert list(router.plan(target, float(i)))
        router.standing(A).failed(float(i))
    now = float(FAILURES - 1)
    assert not list(router.plan(target, now + 0.1))
    assert router.rest_seconds(target, now) == REST
    assert list(router.plan(target, now + REST))
    router.standing(A).failed(now + REST)
    assert list(router.plan(target, now + REST + 0.1)), "the window has passed: one failure is not five"
    router.standing(A).succeeded(0.1)
    assert not router.standing(A).failures


def test_slow_failures_do_not_open_the_breaker() -> None:
    target = route("r", A)
    router = Router({"r": target})
    for i in range(20):
        router.standing(A).failed(i * 3.0)
    assert list(router.plan(target, 61.0))
