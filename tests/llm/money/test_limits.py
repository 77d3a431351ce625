"""Limits and budgets as callers meet them: over real HTTP, in every dialect, with real concurrency."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from tests.ledger.test_limiter import Limits
from tests.llm.conftest import PATIENT, WHO, Gateway, fast, serving

from nexus.access.types import KeyLimits
from nexus.ledger.budget_book import BudgetBook
from nexus.ledger.limiter import Limiter
from nexus.ledger.service import Ledger
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings
from nexus.storage.db import Database
from nexus.testing.upstream import FakeUpstream

HTTP = httpx.Client()
ASK = [{"role": "user", "content": "alpha beta gamma delta"}]
# The fake answers with the four words and tells 12 tokens read (4 of them cached) and 4 written: gpt-4o's price.
COST = (8 * 2.5 + 4 * 1.25 + 4 * 10) / 1e6

Make = Callable[..., Gateway]


@pytest.fixture
def limited(upstream: FakeUpstream, ledger: Ledger, database: Database) -> Iterator[Make]:
    """Return a function that serves the slice to a key with these limits."""
    with ExitStack() as stack:

        def make(project: KeyLimits | None = None, **limits: Any) -> Gateway:
            owners = {"key_1": KeyLimits(**limits)} | ({"prj_1": project} if project else {})
            limiter = Limiter(Limits(**owners), BudgetBook(database=database, ledger=ledger))
            provider = {"name": "up", "kind": "openai", "base_url": upstream.url, "api_key": "sk-up"}
            settings = LLMSettings(**fast(providers=[provider], timeouts=PATIENT))
            llm = LLMService(settings=settings, record=ledger.record, limiter=limiter)
            return stack.enter_context(serving(llm, ledger, WHO))

        yield make


def ask(gateway: Gateway, path: str = "/v1/chat/completions", **body: Any) -> httpx.Response:
    whole = {"model": "up/gpt-4o", "messages": ASK, "max_tokens": 10} | body
    return HTTP.post(gateway.url + path, json=whole, timeout=20)


def test_without_limits_nothing_is_told(limited: Make) -> None:
    answer = ask(limited())
    assert answer.status_code == 200
    assert not [name for name in answer.headers if "ratelimit" in name]


def test_requests_are_counted_and_refused(limited: Make) -> None:
    gateway = limited(rpm=2)
    answers = [ask(gateway), ask(gateway, stream=True), ask(gateway)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
    refused = answers[-1]
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-limit-requests"] == "2"
    assert refused.headers["ratelimit-policy"] == '"req";q=2;w=60'
    assert refused.headers["ratelimit"].startswith('"req";r=0;t=')
    assert "x-ratelimit-limit-tokens" not in refused.headers
    assert [(row.status, row.error_code) for row in gateway.rows][-1] == ("error", "rate_limit_exceeded")


def test_what_could_be_read_is_on_record_whatever_refuses_it(limited: Make, ledger: Ledger) -> None:
    gateway = limited(rpm=1)
    unread = [{"messages": "none"}, {"messages": [{"role": "nobody", "content": "x"}]}, {"temperature": "warm"}]
    assert [ask(gateway, **bad).status_code for bad in unread] == [400] * 3
    with serving(gateway.llm, ledger, replace(WHO, models=("up/other",))) as narrow:
        assert ask(narrow).status_code == 404
    assert not gateway.rows
    assert [ask(gateway).status_code for _ in "12"] == [200, 429]
    assert ask(limited(rpm=9), model="nobody/knows").status_code == 404
    assert [row.error_code for row in gateway.rows] == [None, "rate_limit_exceeded", "model_not_found"]


def test_the_sdk_understands_a_refusal(limited: Make, upstream: FakeUpstream) -> None:
    client = openai.OpenAI(base_url=f"{limited(rpm=1).url}/v1", api_key="nx", max_retries=0)
    client.chat.completions.create(model="up/gpt-4o", messages=ASK)  # type: ignore[arg-type]
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(model="up/gpt-4o", messages=ASK)  # type: ignore[arg-type]
    assert refused.value.code == "rate_limit_exceeded"
    assert len(upstream.seen) == 1, "what is refused never reaches a provider"


def test_tokens_are_settled_with_what_was_used(limited: Make) -> None:
    gateway = limited(tpm=200)
    answer = ask(gateway, max_tokens=100)
    assert answer.headers["x-ratelimit-limit-tokens"] == "200"
    assert answer.headers["x-ratelimit-remaining-tokens"] == str(200 - 16)
    assert ask(gateway, max_tokens=150).status_code == 200
    refused = ask(gateway, max_tokens=190)
    assert refused.status_code == 429
    assert "tokens per minute" in refused.json()["error"]["message"]
    embedded = HTTP.post(f"{gateway.url}/v1/embeddings", json={"model": "up/text-embedding-3-small", "input": "a"})
    assert embedded.status_code == 200
    assert int(embedded.headers["x-ratelimit-remaining-tokens"]) < 200 - 32


def test_a_failed_call_gives_its_tokens_back(limited: Make) -> None:
    gateway = limited(tpm=200)
    for fault in ("fault-status_500", "fault-status_400"):
        assert ask(gateway, model=f"up/{fault}", max_tokens=150).status_code >= 400
    assert ask(gateway, max_tokens=150).status_code == 200


async def in_parallel(gateway: Gateway, count: int, **body: Any) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(limits=limits, timeout=90) as client:
        whole = {"model": "up/gpt-4o", "messages": ASK, "max_tokens": 10} | body
        url = f"{gateway.url}/v1/chat/completions"
        return await asyncio.gather(*(client.post(url, json=whole) for _ in range(count)))


@pytest.mark.slow
async def test_200_at_once_with_a_budget_for_20(limited: Make, upstream: FakeUpstream) -> None:
    reserve = (6 * 2.5 + 10 * 10) / 1e6  # 22 characters are 6 tokens, and 10 may be answered
    gateway = limited(budget_usd=20 * COST, budget_period="day")
    answers = await in_parallel(gateway, 200)
    good = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(good) + len(refused) == 200
    spent = sum(row.cost_usd or 0.0 for row in gateway.rows)
    print(f"{len(good)} of 200 served, {spent / COST:.1f} of 20 spent")
    assert spent <= 20 * COST + reserve
    assert len(upstream.seen) == len(good)
    assert len(gateway.rows) == 200
    error = refused[0]
    assert error.json()["error"]["code"] == "insufficient_quota"
    assert error.headers["x-should-retry"] == "false"
    assert "retry-after" not in error.headers
    # One after another the rest of the budget is used, and then no more.
    while (answer := ask(gateway)).status_code == 200:
        pass
    assert answer.json()["error"]["type"] == "insufficient_quota"
    spent = sum(row.cost_usd or 0.0 for row in gateway.rows)
    assert 20 * COST - 1e-12 <= spent <= 20 * COST + reserve


@pytest.mark.slow
async def test_parallel_calls_of_a_key(limited: Make) -> None:
    gateway = limited(parallel=5)
    answers = await in_parallel(gateway, 40, model="up/slow-60", stream=True)
    codes = [answer.status_code for answer in answers]
    assert 5 <= codes.count(200) < 40
    assert (await in_parallel(gateway, 1))[0].status_code == 200, "all were given back"


@pytest.mark.slow
async def test_exactly_the_limit_of_requests_is_served(limited: Make) -> None:
    gateway = limited(project=KeyLimits(rpm=37))
    answers = await in_parallel(gateway, 150)
    assert [answer.status_code for answer in answers].count(200) == 37


def test_anthropic_has_its_own_names(limited: Make) -> None:
    gateway = limited(rpm=1, tpm=5000)
    body = {"model": "up/gpt-4o", "messages": ASK, "max_tokens": 10}
    head = {"anthropic-version": "2023-06-01"}
    first = HTTP.post(f"{gateway.url}/v1/messages", json=body, headers=head, timeout=20)
    if first.status_code == 404:
        pytest.skip("there is no Messages dialect yet")
    assert first.headers["anthropic-ratelimit-requests-limit"] == "1"
    assert first.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert first.headers["anthropic-ratelimit-tokens-reset"].endswith("Z")
    refused = HTTP.post(f"{gateway.url}/v1/messages", json=body, headers=head, timeout=20)
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert "retry-after" in refused.headers
    assert "x-ratelimit-limit-requests" not in refused.headers


async def test_text_tasks_and_code_in_this_process_are_limited_too(limited: Make) -> None:
    gateway = limited(rpm=1)
    body = {"text": "alpha beta", "model": "up/gpt-4o"}
    first = HTTP.post(f"{gateway.url}/api/v1/text/summarize", json=body, timeout=20)
    assert first.status_code == 200
    refused = HTTP.post(f"{gateway.url}/api/v1/text/summarize", json=body, timeout=20)
    assert refused.status_code == 429
    assert refused.json()["code"] == "rate_limit_exceeded"
    assert json.loads(refused.content)["retryable"] is True


def two_places(upstream: FakeUpstream, **limits: int) -> dict[str, Any]:
    """A route whose first deployment has limits and would get every call."""
    accounts = [{"name": name, "kind": "openai", "base_url": upstream.url} for name in ("small", "large")]
    places = [
        {"provider": "small", "model": "gpt-4o-mini", "weight": 1, **limits},
        {"provider": "large", "model": "gpt-4o", "weight": 0},
    ]
    return {"providers": accounts, "routes": [{"name": "r", "deployments": places}]}


@pytest.mark.parametrize("limits", [{"rpm": 2}, {"tpm": 50}])
def test_a_deployment_at_its_limit_is_passed_by(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, limits: dict[str, int]
) -> None:
    gateway = make_gateway(**two_places(upstream, **limits))
    answers = [ask(gateway, model="r", max_tokens=20) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 5
    # Each call really takes 16 tokens, and might take 26: the third finds 18 left of 50.
    assert [row.provider for row in gateway.rows] == ["small", "small", "large", "large", "large"]


def test_nothing_but_deployments_at_their_limit_is_a_429(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    changes = two_places(upstream, rpm=2)
    del changes["routes"][0]["deployments"][1]
    gateway = make_gateway(**changes)
    answers = [ask(gateway, model="r") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "retry-after" in answers[-1].headers
    assert len(upstream.seen) == 2
