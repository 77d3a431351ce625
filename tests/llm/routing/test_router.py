"""Where calls go."""

from __future__ import annotations

from collections import Counter

import pytest

from nexus.llm.errors import UpstreamRateLimited, UpstreamUnavailable
from nexus.llm.routing.router import Router, Step
from nexus.llm.routing.standing import FAILURES, REST
from nexus.llm.types import Call, Deployment, Price, Route

A = Deployment(provider="a", model="m", weight=3, price=Price(input=2, output=2))
B = Deployment(provider="b", model="m", weight=1, price=Price(input=1, output=1))
C = Deployment(provider="c", model="m", weight=0)


def route(name: str, *deployments: Deployment, **more: object) -> Route:
    return Route(name=name, deployments=deployments, **more)  # type: ignore[arg-type]


def steps(router: Router, target: Route, now: float = 0.0, *, again: bool = False) -> list[Step]:
    """Every step of a call that fails everywhere."""
    plan, found = router.plan(target, now), []
    while (step := plan.next(now)) is not None:
        found.append(step)
        if again:
            plan.again(step.deployment)
    return found


def names(found: list[Step]) -> str:
    return " ".join(f"{step.route.name}:{step.deployment.provider}{'+' * step.again}" for step in found)


def break_it(router: Router, deployment: Deployment, now: float = 0.0) -> None:
    for _ in range(FAILURES):
        router.standing(deployment).failed(now)


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
    router.standing(A).succeeded(2.0, 0.0)
    router.standing(B).succeeded(0.1, 0.0)
    assert router.order(target)[0].provider == first


def test_cost_is_that_of_the_call() -> None:
    reads = Deployment(provider="reads", model="m", price=Price(input=1, output=9))
    writes = Deployment(provider="writes", model="m", price=Price(input=3, output=4))
    target = route("r", reads, writes, C, strategy="lowest_cost")
    router = Router({"r": target})
    for characters, maximum, first in ((400_000, 10, "reads"), (40, 4000, "writes"), (40, None, "writes")):
        call = Call(dialect="", model="r", parse=dict, characters=characters, max_tokens=maximum)  # type: ignore[arg-type]
        order = router.order(target, 0.0, call)
        assert (order[0].provider, order[-1].provider) == (first, "c"), "an unknown price comes last"


def test_what_is_not_known_is_tried_by_one_call_at_a_time() -> None:
    target = route("r", A, B, strategy="lowest_latency")
    router = Router({"r": target}, pick=lambda: 0.5)
    router.standing(A).succeeded(0.1, 0.0)
    assert router.order(target)[0] is B
    router.standing(B).enter()
    assert router.order(target)[0] is A


def test_a_slow_deployment_is_tried_again_after_a_while() -> None:
    target = route("r", A, B, strategy="lowest_latency")
    curious, dull = Router({}, pick=lambda: 0.01), Router({}, pick=lambda: 0.99)
    for router in (curious, dull):
        router.standing(A).succeeded(0.1, 100.0)
        router.standing(B).succeeded(3.0, 80.0)
        assert router.order(target, 80.0)[0] is A
    assert curious.order(target, 100.5)[0] is B
    assert dull.order(target, 100.5)[0] is A
    curious.standing(B).enter()
    assert curious.order(target, 100.5)[0] is A
    dull.standing(A).measured_at = 300.0
    assert dull.order(target, 300.0)[0] is B, "an old figure has faded"


def test_fallbacks_follow_in_order_and_only_once() -> None:
    routes = {
        "one": route("one", A, fallbacks=("two", "three")),
        "two": route("two", B, fallbacks=("one",)),
        "three": route("three", C),
    }
    router = Router(routes, retries=0)
    assert names(steps(router, routes["one"])) == "one:a two:b three:c"


def test_further_tries_come_after_the_other_deployments_and_before_the_fallbacks() -> None:
    routes = {"one": route("one", A, B, fallbacks=("two",)), "two": route("two", C)}
    router = Router(routes, pick=lambda: 0.0, retries=2)
    assert names(steps(router, routes["one"], again=True)) == "one:a one:b one:a+ one:b+ two:c two:c+ two:c+"
    assert names(steps(router, routes["one"])) == "one:a one:b two:c"


def test_what_is_to_be_avoided_comes_last_of_all() -> None:
    routes = {"one": route("one", A, fallbacks=("two",)), "two": route("two", B)}
    plan, found = Router(routes).plan(routes["one"], 0.0, avoid=A), []
    while (step := plan.next(0.0)) is not None:
        found.append(step.deployment.provider)
    assert found == ["b", "a"]


def test_a_route_made_for_one_call_needs_no_place_in_the_table() -> None:
    assert names(steps(Router({}), route("up/x", A))) == "up/x:a"


def test_resting_deployments_are_left_out_until_one_call_tries_them() -> None:
    target = route("r", A, B)
    router = Router({"r": target}, pick=lambda: 0.0)
    break_it(router, A)
    assert names(steps(router, target, 1.0)) == "r:b"
    assert names(steps(router, target, REST)) == "r:a r:b"
    router.standing(A).enter()
    assert names(steps(router, target, REST)) == "r:b"


def test_limits_of_a_deployment_are_asked_with_the_tokens_of_the_call() -> None:
    limited = Deployment(provider="l", model="m", tpm=1000)
    target = route("r", limited, B)
    router = Router({"r": target}, pick=lambda: 0.0)
    asked: list[tuple[str, int]] = []

    def allows(deployment: Deployment, tokens: int, now: float) -> bool:
        asked.append((deployment.provider, tokens))
        return False

    router.allows = allows
    call = Call(dialect="", model="r", parse=dict, characters=401, max_tokens=50)  # type: ignore[arg-type]
    step = router.plan(target, 0.0, call).next(0.0)
    assert step is not None
    assert step.deployment is B
    assert asked == [("l", 151)], "only where there is a limit"


def test_a_refusal_says_why_and_when_to_come_back() -> None:
    target = route("r", A, fallbacks=("s",))
    router = Router({"r": target, "s": route("s", B)})
    break_it(router, A)
    break_it(router, B, 3.0)
    refusal = router.refusal(target, 4.0)
    assert isinstance(refusal, UpstreamUnavailable)
    assert refusal.retry_after == REST - 4.0
    limited = Router({"r": target, "s": route("s", B)})
    limited.standing(A).asked_to_wait(9.0, 0.0)
    limited.standing(B).asked_to_wait(5.0, 0.0)
    refusal = limited.refusal(target, 1.0)
    assert isinstance(refusal, UpstreamRateLimited)
    assert refusal.retry_after == 4.0
    unwell = Router({})
    unwell.standing(A).asked_to_wait(9.0, 0.0, limited=False)
    assert isinstance(unwell.refusal(route("r", A), 1.0), UpstreamUnavailable)
    full = Router({}).refusal(route("r", A), 0.0)
    assert isinstance(full, UpstreamRateLimited)


def test_budgets_are_by_route_and_direct_names_share_their_providers() -> None:
    known = route("r", A)
    router = Router({"r": known})
    assert router.budget(known) is router.budget(known)
    assert router.budget(route("a/x", A)) is router.budget(route("a/y", A))
    assert router.budget(route("a/x", A)) is not router.budget(known)


def test_names_that_nobody_uses_do_not_pile_up() -> None:
    router = Router({})
    busy = Deployment(provider="p", model="busy")
    router.standing(busy).enter()
    for i in range(10_000):
        router.standing(Deployment(provider="p", model=str(i)))
    assert len(router._standing) <= 4097
    assert router.standing(busy).in_flight == 1
