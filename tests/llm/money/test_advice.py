"""Other models that advise the one that was asked, as with Anthropic's advisor tool: never for nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest
from tests.llm.conftest import Gateway, fast
from tests.llm.every_answer import STREAMS
from tests.llm.forms.test_every_answer import TEXT, messages

from nexus.llm.money.pricing import Question
from nexus.llm.registry import PricesBeside, Registry
from nexus.llm.routing.continuation import summed
from nexus.llm.settings import LLMSettings
from nexus.llm.types import Advice, Price, Usage
from nexus.testing.script import Script, Seen, chunked, response, stream_head
from nexus.testing.upstream import FakeUpstream

HTTP = httpx.Client(timeout=20)
ADVISOR = {"type": "advisor_20260301", "name": "advisor", "model": "wise"}
ASK = {"model": "r", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], "tools": [ADVISOR]}
TURNS = [
    {"type": "message", "input_tokens": 10, "output_tokens": 5},
    {"type": "advisor_message", "model": "wise", "input_tokens": 100, "output_tokens": 20},
    {
        "type": "advisor_message",
        "model": "wise",
        "input_tokens": 200,
        "cache_read_input_tokens": 50,
        "output_tokens": 30,
    },
]
ANSWER = messages(TEXT, usage={"input_tokens": 10, "output_tokens": 5, "iterations": TURNS})
QUICK = {"input": 1.0, "output": 10.0}
WISE = {"input": 100.0, "output": 1000.0, "cache_read": 10.0}
OWN = (10 * 1 + 5 * 10) / 1e6
ADVICE = (100 * 100 + 20 * 1000 + 200 * 100 + 50 * 10 + 30 * 1000) / 1e6
GUESSED = (100 * 1 + 20 * 10 + 250 * 1 + 30 * 10) / 1e6


def answering(seen: Seen) -> Script:
    if seen.json.get("stream"):
        return Script((stream_head(), chunked(STREAMS["anthropic"](ANSWER)), b"0\r\n\r\n"))
    return Script((response(200, json.dumps(ANSWER).encode()),))


def routes(*more: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "r", "deployments": [{"provider": "up", "model": "quick", "price": QUICK}]}, *more]


KNOWN: dict[str, dict[str, Any]] = {
    "a price of the operator's": {"prices": [{"provider": "up", "model": "wise", **WISE}]},
    "a deployment's": {
        "routes": routes({"name": "w", "deployments": [{"provider": "up", "model": "wise", "price": WISE}]})
    },
    "none": {},
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("known", KNOWN)
def test_advice_is_billed_at_the_adviser_s_price(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, known: str, stream: bool
) -> None:
    upstream.answering = answering
    provider = {"name": "up", "kind": "anthropic", "base_url": upstream.url, "api_key": "k"}
    gateway = make_gateway(**{"providers": [provider], "routes": routes()} | KNOWN[known])
    told = HTTP.post(f"{gateway.url}/v1/messages", json=ASK | {"stream": stream})
    assert told.status_code == 200
    row, priced = gateway.row(), known != "none"
    assert row.cost_usd == pytest.approx(OWN + (ADVICE if priced else GUESSED))
    assert (row.input_tokens, row.output_tokens) == (10, 5), "those of the model that was asked"
    assert row.estimated is not priced, "a price that is not known is guessed, and said to be"
    advice = row.details["advice"]
    assert [(one["model"], one["input_tokens"], one["output_tokens"], one["estimated"]) for one in advice] == [
        ("wise", 100, 20, not priced),
        ("wise", 250, 30, not priced),
    ]
    assert sum(one["cost_usd"] for one in advice) == pytest.approx(ADVICE if priced else GUESSED)


class Book:
    """Published prices, which are asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def find_all(self, questions: Sequence[Question]) -> list[tuple[Price | None, float]]:
        self.asked += [question.model for question in questions]
        return [(Price(input=3, output=15), float("inf")) for _ in questions]


async def test_published_prices_of_advisers_are_looked_up_once() -> None:
    provider = {"name": "up", "kind": "anthropic", "api_key": "k"}
    deployment = {"provider": "up", "model": "quick", "price": QUICK}
    book = Book()
    settings = LLMSettings(**fast(providers=[provider], routes=[{"name": "r", "deployments": [deployment]}]))
    registry = Registry(settings, book)
    beside, route = PricesBeside(registry), await registry.priced("r")
    assert beside.price_of(route.deployments[0], "wise") is None
    for _ in range(2):
        await beside.look_up(route, ["wise"])
    price = beside.price_of(route.deployments[0], "wise")
    assert price is not None
    assert (price.input, price.output) == (3, 15)
    assert book.asked == ["wise"]


def test_advice_of_several_attempts_adds_up() -> None:
    one, other = (Advice(model=name, usage=Usage(input_tokens=1)) for name in "ab")
    both = summed(Usage(input_tokens=1, advice=(one,)), Usage(input_tokens=2, advice=(other,)))
    assert both == Usage(input_tokens=3, advice=(one, other))
