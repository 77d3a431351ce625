"""What is recorded for every recorded answer is what genai-prices' own reading of it and own formula say."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import httpx
import pytest
from botocore.eventstream import EventStreamBuffer
from genai_prices import calc_price, extract_usage
from genai_prices.data_snapshot import get_snapshot
from tests.llm.conftest import Gateway

from nexus.testing.recordings import Exchange, load_cassette
from nexus.testing.replay import as_script
from nexus.testing.upstream import FakeUpstream

HTTP = httpx.Client(timeout=20)
ASK = [{"role": "user", "content": "hello"}]


class Form(NamedTuple):
    """A wire form on record: where it is found, whose kind serves it, how genai-prices reads it."""

    name: str
    url: str
    kind: str
    theirs: str
    flavor: str
    doors: tuple[str, ...] = ("/v1/chat/completions",)


CHAT, RESPONSES, MESSAGES, GEMINI = "/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1beta"
FORMS = [
    Form("openai chat", r"api\.openai\.com/v1/chat/completions", "openai", "openai", "chat", (CHAT, MESSAGES)),
    Form("openai responses", r"api\.openai\.com/v1/responses$", "openai", "openai", "responses", (RESPONSES,)),
    Form("openai embeddings", r"api\.openai\.com/v1/embeddings", "openai", "openai", "embeddings", ("/v1/embeddings",)),
    Form(
        "anthropic", r"api\.anthropic\.com/v1/messages(\?.*)?$", "anthropic", "anthropic", "default", (MESSAGES, CHAT)
    ),
    Form("google", r"googleapis\.com/.*:(stream)?[gG]enerateContent", "google", "google", "default", (GEMINI, CHAT)),
    Form("bedrock", r"bedrock-runtime.*/converse(-stream)?$", "bedrock", "aws", "default"),
    Form("groq", r"api\.groq\.com/.*/chat/completions", "groq", "groq", "default"),
    Form("mistral", r"api\.mistral\.ai/v1/chat/completions", "mistral", "mistral", "default"),
    Form("deepseek", r"api\.deepseek\.com/.*chat/completions", "deepseek", "deepseek", "chat"),
    Form("openrouter", r"openrouter\.ai/api/v1/chat/completions", "openrouter", "openrouter", "chat"),
]


CASES = [(form, door) for form in FORMS for door in form.doors]


@cache
def recordings(shared: Path) -> list[Exchange]:
    found: list[Exchange] = []
    for path in sorted((shared / "data" / "llm" / "cassettes").glob("*/*")):
        try:
            found += load_cassette(path)
        except ValueError:
            continue
    return found


def of(form: Form, shared: Path) -> Iterator[tuple[Exchange, str, dict[str, Any]]]:
    """Every answer in this form that tells its usage: with the model asked for and the body that tells it."""
    for exchange in recordings(shared):
        if exchange.status != 200 or exchange.method != "POST" or not re.search(form.url, exchange.url.split("?")[0]):
            continue
        try:
            told = telling(exchange)
        except (ValueError, KeyError):
            continue
        model = model_of(exchange)
        if told is not None and model:
            yield exchange, model, told


def model_of(exchange: Exchange) -> str:
    for pattern in (r"/model/([^/]+)/converse", r"/models/([^/:]+):"):
        if found := re.search(pattern, exchange.url):
            return unquote(found[1])
    return str(json.loads(exchange.request or b"{}").get("model") or "")


def telling(exchange: Exchange) -> dict[str, Any] | None:
    """Return the last thing said of the usage, put together from the pieces of a stream."""
    if exchange.framed:
        buffer = EventStreamBuffer()
        buffer.add_data(exchange.body)
        told = [json.loads(event.payload) for event in buffer if event.headers.get(":event-type") == "metadata"]
        return told[-1] if told else None
    if not exchange.streamed:
        bodies = json.loads(exchange.body)
        bodies = bodies if isinstance(bodies, list) else [bodies]
    else:
        lines = re.findall(rb"^data: ?(\{.*)$", exchange.body.replace(b"\r\n", b"\n"), re.MULTILINE)
        bodies = [json.loads(line) for line in lines]
    whole: dict[str, Any] = {}
    for body in bodies:
        body = body.get("message") or body.get("response") or body if isinstance(body, dict) else {}
        if body.get("usage"):
            known = whole.get("usage", {})
            whole["usage"] = known | {key: value for key, value in body["usage"].items() if value is not None}
        for candidate in body.get("candidates") or ():
            if queries := (candidate.get("groundingMetadata") or {}).get("webSearchQueries"):
                whole["webSearchQueries"] = queries
        if body.get("usageMetadata"):
            whole["usageMetadata"] = body["usageMetadata"]
        whole |= {name: body[name] for name in ("model", "service_tier", "object", "tool_usage") if body.get(name)}
    return whole if whole.get("usage") or whole.get("usageMetadata") else None


def asked(form: Form, door: str, model: str, exchange: Exchange) -> tuple[str, dict[str, Any]]:
    """Return a small request that gets the recorded answer: a stream for a stream."""
    stream = exchange.streamed or exchange.framed or "stream" in exchange.path.lower()
    body: dict[str, Any] = {"model": f"up/{model}"} | ({"stream": True} if stream else {})
    if door == GEMINI:
        action = "streamGenerateContent?alt=sse" if exchange.streamed else "generateContent"
        return f"/v1beta/models/up/{model}:{action}", {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    if door == MESSAGES:
        return door, body | {"max_tokens": 100, "messages": ASK}
    if door in (RESPONSES, "/v1/embeddings"):
        return door, body | {"input": "hello"}
    return door, body | {"messages": ASK}


def expected(form: Form, model: str, told: dict[str, Any]) -> Decimal | None:
    """Return what genai-prices itself makes of the answer; None where it knows no price."""
    usage = extract_usage(told | {"model": None}, provider_id=form.theirs, api_flavor=form.flavor).usage
    if (told.get("usage") or {}).get("num_cached_tokens"):
        # Mistral's word for what came from its cache: genai-prices knows the price of it, but not the word yet.
        usage.cache_read_tokens = told["usage"]["num_cached_tokens"]
    if searches := ((told.get("tool_usage") or {}).get("web_search") or {}).get("num_requests"):
        # Searches of the Responses form: the same of OpenAI's.
        usage.web_searches = searches
    if queries := told.get("webSearchQueries"):
        # Google bills them by the question for Gemini 2.5 and older, by the query since.
        usage.web_searches = len(set(queries) - {""}) if model.startswith("gemini-3") else 1
    tier = told.get("service_tier")
    context = {"service_tier": tier} if isinstance(tier, str) else None
    try:
        found = calc_price(
            usage, model, provider_id=form.theirs, genai_request_timestamp=datetime.now(UTC), price_context=context
        )
    except LookupError:
        return None
    return found.total_price


@pytest.mark.slow
@pytest.mark.parametrize(("form", "door"), CASES, ids=[f"{form.name} at {door}" for form, door in CASES])
def test_the_cost_is_that_of_the_providers_formula(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, shared: Path, form: Form, door: str
) -> None:
    cut = random.Random(20_261_126)
    account = {"name": "up", "kind": form.kind, "base_url": upstream.url, "api_key": "k", "region": "us-east-1"}
    gateway = make_gateway(providers=[account])
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    ours = theirs = Decimal(0)
    for exchange, model, told in of(form, shared):
        try:
            right = expected(form, model, told)
        except (ValueError, AttributeError):
            counts["left out: genai-prices cannot read it"] += 1
            continue
        gateway.rows.clear()
        gateway.llm.router._standing.clear()
        upstream.answering = lambda _, exchange=exchange: as_script(exchange, cut=cut)
        path, body = asked(form, door, model, exchange)
        answer = HTTP.post(gateway.url + path, json=body)
        if answer.status_code != 200:
            counts[f"left out: {answer.status_code}"] += 1
            continue
        row = gateway.row()
        price = gateway.llm.registry.find(f"up/{model}").deployments[0].price
        if price is not None and price.source == "nexus":
            counts["left out: a price of our own"] += 1
            continue
        if row.estimated:
            counts["left out: tells of no tokens, so they are estimated"] += 1
            continue
        if right is None or row.cost_usd is None:
            counts["no price"] += 1
            if not (right is None and row.cost_usd is None):
                wrong.append(f"{model}: {row.cost_usd} instead of {right}")
            continue
        counts["priced"] += 1
        ours, theirs = ours + Decimal(row.cost_usd), theirs + right
        if abs(Decimal(row.cost_usd) - right) > Decimal("1e-9"):
            wrong.append(f"{exchange.url} {model}: {row.cost_usd} instead of {right}: {told} {row}")
    print(f"{form.name} at {door}: {dict(counts)}, {ours:.6f} of {theirs:.6f} dollars")
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong])
    assert abs(ours - theirs) < Decimal("1e-7")
    assert counts["priced"] > 0 or form.name in ("deepseek",)
    assert get_snapshot().from_auto_update is False, "nothing came over the network"
