"""Checks of deployments: when, how many at once, what they cost, and what they do to the breaker."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from typing import Any

import pytest
from tests.clock import until
from tests.llm.conftest import WHO, fast, serving
from tests.llm.routing.test_delivery import ask, said
from tests.llm.scripts import failing

from nexus.ledger.service import Ledger
from nexus.ledger.types import Invocation
from nexus.llm.routing.health import Health
from nexus.llm.routing.standing import FAILURES
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings
from nexus.testing.script import Script, response
from nexus.testing.upstream import FakeUpstream, answer


def service(upstream: FakeUpstream, ledger: Ledger, *routes: dict[str, Any]) -> LLMService:
    provider = {"name": "up", "kind": "openai", "base_url": upstream.url, "api_key": "sk-upstream-secret-key"}
    return LLMService(settings=LLMSettings(**fast(providers=[provider], routes=list(routes))), record=ledger.record)


def checked(name: str, *models: str, **health: Any) -> dict[str, Any]:
    return {
        "name": name,
        "deployments": [{"provider": "up", "model": model} for model in models],
        "health": {"interval": 10} | health,
    }


def test_only_routes_that_ask_are_checked_each_place_once_and_spread_in_time(
    upstream: FakeUpstream, ledger: Ledger
) -> None:
    models = [f"m{i}" for i in range(40)]
    plain = {"name": "plain", "deployments": [{"provider": "up", "model": "unseen"}]}
    llm = service(upstream, ledger, checked("a", *models), checked("b", "m0", "m1"), plain)
    times: dict[str, list[float]] = {}
    for tick in range(60):
        for deployment, policy in llm.health.due(float(tick)):
            assert policy.interval == 10
            times.setdefault(deployment.model, []).append(float(tick))
    assert set(times) == set(models)
    assert len({moments[0] for moments in times.values()}) >= 8, "the first checks do not come all at once"
    assert max(Counter(moments[0] for moments in times.values()).values()) < 12
    gaps = [b - a for moments in times.values() for a, b in itertools.pairwise(moments)]
    assert all(7 <= gap <= 13 for gap in gaps)
    assert len(set(gaps)) > 2


async def test_a_check_is_a_look_at_the_models_or_one_token(upstream: FakeUpstream, ledger: Ledger) -> None:
    llm = service(upstream, ledger, checked("a", "echo"), checked("b", "other", by_call=True))
    for deployment, policy in [*llm.health.due(0.0), *llm.health.due(11.0)]:
        await llm.health._check(deployment, policy)
    listed, called = sorted(upstream.seen, key=lambda seen: seen.method)[:2]
    assert (listed.method, listed.route) == ("GET", "/v1/models")
    assert listed.headers["authorization"] == "Bearer sk-upstream-secret-key"
    assert (called.method, called.model, called.json["max_tokens"]) == ("POST", "other", 1)
    await llm.stop()


async def test_a_token_of_a_check_is_on_record(upstream: FakeUpstream, ledger: Ledger) -> None:
    rows: list[Invocation] = []
    ledger.on_record(rows.append)
    route = checked("b", "gpt-4o", by_call=True)
    route["deployments"][0]["price"] = {"input": 2.5, "output": 10}
    llm = service(upstream, ledger, checked("a", "echo"), route)
    for deployment, policy in [*llm.health.due(0.0), *llm.health.due(11.0)]:
        await llm.health._check(deployment, policy)
    found = await llm.health.try_out(WHO, "up", "echo")
    assert found.error is None
    upstream.answering = failing("500")
    assert (await llm.health.try_out(WHO, "up", "echo")).error is not None
    told = [(row.kind, row.model, row.principal_id, row.project_id, row.status) for row in rows]
    assert told == [
        ("health", "up/gpt-4o", "health", "", "ok"),
        ("health", "up/echo", "key_1", "prj_1", "ok"),
        ("health", "up/echo", "key_1", "prj_1", "error"),
    ]
    assert rows[0].cost_usd
    assert rows[0].input_tokens
    await llm.stop()


async def test_what_a_check_finds_opens_and_closes_the_breaker(upstream: FakeUpstream, ledger: Ledger) -> None:
    llm = service(upstream, ledger, checked("a", "echo", by_call=True))
    deployment = llm.registry.find("a").deployments[0]
    policy = llm.registry.find("a").health
    assert policy is not None
    standing = llm.router.standing(deployment)
    upstream.answering = failing("500")
    for _ in range(FAILURES):
        await llm.health._check(deployment, policy)
    assert standing.opened
    upstream.answering = answer
    await llm.health._check(deployment, policy)
    assert not standing.opened
    await llm.stop()


async def test_a_list_of_models_ends_no_rest(upstream: FakeUpstream, ledger: Ledger) -> None:
    llm = service(upstream, ledger, checked("a", "echo"))
    route = llm.registry.find("a")
    assert route.health is not None
    standing = llm.router.standing(route.deployments[0])
    now = time.monotonic()
    for _ in range(FAILURES):
        standing.failed(now)
    await llm.health._check(route.deployments[0], route.health)
    assert standing.opened
    standing.rests_until = 0.0
    await llm.health._check(route.deployments[0], route.health)
    assert not standing.opened
    await llm.stop()


@pytest.mark.parametrize(("status", "alive"), [(200, True), (404, True), (429, True), (401, True), (500, False)])
async def test_whoever_answers_properly_is_alive(
    upstream: FakeUpstream, ledger: Ledger, status: int, alive: bool
) -> None:
    upstream.answering = lambda _: Script((response(status, b"{}"),))
    llm = service(upstream, ledger, checked("a", "echo"))
    route = llm.registry.find("a")
    assert route.health is not None
    await llm.health._check(route.deployments[0], route.health)
    assert (not llm.router.standing(route.deployments[0]).failures) is alive
    await llm.stop()


class Checking:
    """Starts the checks with the server."""

    def __init__(self, llm: LLMService) -> None:
        self._llm = llm

    async def start(self) -> None:
        self._llm.health.start()

    async def stop(self) -> None:
        await self._llm.health.stop()


@pytest.mark.slow
def test_a_place_that_dies_is_known_before_a_caller_asks(upstream: FakeUpstream, ledger: Ledger) -> None:
    upstream.answering = lambda seen: failing("500")(seen) if seen.method == "GET" else answer(seen)
    fallback = {"name": "s", "deployments": [{"provider": "up", "model": "echo"}]}
    llm = service(upstream, ledger, checked("r", "dead", interval=1) | {"fallbacks": ["s"]}, fallback)
    standing = llm.router.standing(llm.registry.find("r").deployments[0])
    with serving(llm, ledger, WHO, Checking(llm)) as gateway:
        until(lambda: standing.opened)
        assert said(ask(gateway, "r")) == "alpha beta gamma delta"
    assert [seen.model for seen in upstream.seen if seen.method == "POST"] == ["echo"]


async def test_no_more_than_a_few_at_once(upstream: FakeUpstream, ledger: Ledger) -> None:
    llm = service(upstream, ledger, checked("a", *[f"m{i}" for i in range(20)]))
    under_way, most = 0, 0

    class Counting(Health):
        async def _ask(self, who: Any, deployment: Any, *, by_call: bool) -> Any:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.01)
            under_way -= 1
            return await super()._ask(who, deployment, by_call=by_call)

    health = Counting(
        registry=llm.registry, router=llm.router, client=llm.client, delivery=llm._delivery, record=ledger.record
    )
    health.due(0.0)
    await asyncio.gather(*(health._check(deployment, policy) for deployment, policy in health.due(11.0)))
    assert most <= 4
    assert len(upstream.seen) == 20
    await llm.stop()
