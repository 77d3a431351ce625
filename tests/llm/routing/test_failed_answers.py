"""Answers that failed although their provider says 200: an error and another attempt, never a false end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import anthropic
import httpx
import openai
import pytest
from tests.llm.conftest import Gateway
from tests.llm.every_answer import STREAMS
from tests.llm.forms.test_every_answer import PART, converse, gemini

from nexus.testing.script import Script, Seen, chunked, response, stream_head
from nexus.testing.upstream import FakeUpstream, answer

HTTP = httpx.Client(timeout=20)
ASK: Any = [{"role": "user", "content": "alpha beta"}]
REASONS = {"google": "MALFORMED_FUNCTION_CALL", "bedrock": "malformed_model_output"}
KINDS = sorted(REASONS)
GEMINI_ASK = {"contents": [{"role": "user", "parts": [{"text": "alpha beta"}]}]}
BILLED = {"input": 100.0, "output": 1000.0}


def failed(kind: str, *, said: bool) -> dict[str, Any]:
    parts = [PART] if said else []
    return gemini(*parts, finish=REASONS[kind]) if kind == "google" else converse(*parts, stop=REASONS[kind])


def failing(*, said: bool, models: tuple[str, ...] = ("fails",)) -> Callable[[Seen], Script]:
    """Let some models fail in the end, with or without words before; all others answer."""

    def answering(seen: Seen) -> Script:
        if seen.model not in models:
            return answer(seen)
        kind = "google" if "enerateContent" in seen.path else "bedrock"
        body = failed(kind, said=said)
        if not seen.path.endswith(("?alt=sse", "converse-stream")):
            return Script((response(200, json.dumps(body).encode()),))
        events = "text/event-stream" if kind == "google" else "application/vnd.amazon.eventstream"
        if not said:
            return Script((stream_head(events), chunked(STREAMS[kind](body)), b"0\r\n\r\n"))
        # The words come first, and the end when they are with the client.
        whole = STREAMS[kind](body)
        cut = whole.rindex(b"data: ") if kind == "google" else whole.index(b"messageStop") - 60
        return Script((stream_head(events), chunked(whole[:cut]), 0.2, chunked(whole[cut:]), b"0\r\n\r\n"))

    return answering


@pytest.fixture
def make(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> Callable[..., Gateway]:
    def made(kind: str, *, alone: bool = False, **more: Any) -> Gateway:
        providers = [
            {"name": "up", "kind": kind, "base_url": upstream.url, "api_key": "k", "region": "us-east-1"},
            {"name": "next", "kind": "openai", "base_url": upstream.url, "api_key": "k"},
        ]
        first = {"provider": "up", "model": "fails", "price": BILLED}
        then = [] if alone else [{"provider": "next", "model": "echo", "price": BILLED}]
        routes = [{"name": "r", "deployments": [first], "fallbacks": ["s"] if then else []} | more]
        routes += [{"name": "s", "deployments": then}] if then else []
        return make_gateway(providers=providers, routes=routes, retries=0)

    return made


def ask(gateway: Gateway, *, stream: bool, **more: Any) -> httpx.Response:
    body = {"model": "r", "messages": ASK, "stream": stream} | more
    return HTTP.post(f"{gateway.url}/v1/chat/completions", json=body)


def words(response: httpx.Response) -> str:
    lines = [line[6:] for line in response.text.split("\n\n") if line.startswith("data: ") and "[DONE]" not in line]
    choices = [choice for line in lines for choice in json.loads(line).get("choices", ())]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def read(stream: Iterable[Any], failure: type[Exception]) -> tuple[list[Any], Exception]:
    """Read a stream that must fail: what came before, and how."""
    came: list[Any] = []
    try:
        came.extend(stream)
    except failure as error:
        return came, error
    raise AssertionError(came)


@pytest.mark.parametrize(
    ("stream", "said"), [(False, False), (False, True), (True, False)], ids=["whole, empty", "whole", "stream, empty"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_another_deployment_answers(
    make: Callable[..., Gateway], upstream: FakeUpstream, kind: str, said: bool, stream: bool
) -> None:
    upstream.answering = failing(said=said)
    gateway = make(kind)
    answered = ask(gateway, stream=stream)
    assert answered.status_code == 200
    assert (words(answered) if stream else answered.json()["choices"][0]["message"]["content"]) == "alpha beta"
    row = gateway.row()
    assert (row.status, row.route, row.details["attempts"]) == ("ok", "s", 2)
    (attempt,) = row.details["failed_attempts"]
    told = {"deployment": "up/fails", "error_code": "answer_failed", "finish_reason": REASONS[kind]}
    assert attempt.items() >= (told | {"input_tokens": 10, "output_tokens": 5, "estimated": False}).items()
    assert attempt["cost_usd"] == pytest.approx((10 * 100 + 5 * 1000) / 1e6)
    assert row.cost_usd == pytest.approx(attempt["cost_usd"] + (12 * 100 + 2 * 1000) / 1e6)
    standing = gateway.llm.router.standing(gateway.llm.registry.find("r").deployments[0])
    assert not standing.failures, "the deployment is well: it was the model that failed"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", KINDS)
def test_with_nowhere_to_go_it_is_an_error_that_names_the_reason(
    make: Callable[..., Gateway], upstream: FakeUpstream, kind: str, stream: bool
) -> None:
    upstream.answering = failing(said=False)
    gateway = make(kind, alone=True)
    answered = ask(gateway, stream=stream)
    error = answered.json()["error"]
    assert (answered.status_code, error["code"]) == (502, "answer_failed")
    assert REASONS[kind] in error["message"]
    row = gateway.row()
    assert (row.status, row.error_code, row.estimated) == ("error", "answer_failed", False)
    assert (row.input_tokens, row.output_tokens) == (10, 5)
    assert row.cost_usd == pytest.approx((10 * 100 + 5 * 1000) / 1e6)


@pytest.mark.parametrize("kind", KINDS)
def test_after_the_first_words_the_stream_ends_in_an_error(
    make: Callable[..., Gateway], upstream: FakeUpstream, kind: str
) -> None:
    upstream.answering = failing(said=True)
    gateway = make(kind)
    openai_client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="nx", max_retries=0, http_client=HTTP)
    heard = openai_client.chat.completions.create(model="r", messages=ASK, stream=True)
    chunks, error = read(heard, openai.APIError)
    assert REASONS[kind] in str(error)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello"
    assert {chunk.choices[0].finish_reason for chunk in chunks} == {None}
    row = gateway.row()
    assert (row.status, row.error_code, row.estimated) == ("error", "answer_failed", False)
    assert (row.input_tokens, row.output_tokens) == (10, 5)
    anthropic_client = anthropic.Anthropic(base_url=gateway.url, api_key="nx", max_retries=0)
    told = anthropic_client.messages.create(model="r", messages=ASK, max_tokens=9, stream=True)
    events, error = read(told, anthropic.APIError)
    assert REASONS[kind] in str(error)
    assert "message_stop" not in {event.type for event in events}
    given = openai_client.responses.create(model="r", input="hi", stream=True, store=False)
    events, error = read(given, openai.APIError)
    assert REASONS[kind] in str(error)
    assert "response.completed" not in {event.type for event in events}


@pytest.mark.parametrize("kind", KINDS)
def test_another_deployment_goes_on_where_the_route_says_so(
    make: Callable[..., Gateway], upstream: FakeUpstream, kind: str
) -> None:
    upstream.answering = failing(said=True)
    gateway = make(kind, continuation=True)
    answered = ask(gateway, stream=True)
    assert answered.text.endswith("data: [DONE]\n\n")
    said = words(answered)
    assert said.startswith("Hello")
    assert len(said) > len("Hello")
    row = gateway.row()
    assert (row.status, row.estimated) == ("ok", False)
    assert row.details["failed_attempts"][0]["output_tokens"] == 5


@pytest.mark.parametrize(
    "more", [{}, {"cache": {"ttl": 60}}, {"continuation": True}], ids=["", "cache", "continuation"]
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_of_the_provider_s_own_dialect_gets_every_byte(
    make: Callable[..., Gateway], upstream: FakeUpstream, more: dict[str, Any], stream: bool
) -> None:
    upstream.answering = failing(said=True)
    gateway = make("google", **more)
    operation = "streamGenerateContent?alt=sse" if stream else "generateContent"
    answered = HTTP.post(f"{gateway.url}/v1beta/models/r:{operation}", json=GEMINI_ASK)
    body = failed("google", said=True)
    assert answered.status_code == 200
    given = STREAMS["google"](body) if stream else json.dumps(body).encode()
    assert answered.content.replace(b"\r", b"") == given.replace(b"\r", b"")
    row = gateway.row()
    assert (row.status, row.input_tokens, row.output_tokens) == ("ok", 10, 5)
    assert row.details["finish_reason"] == "MALFORMED_FUNCTION_CALL"
    assert len(upstream.seen) == 1
    again = HTTP.post(f"{gateway.url}/v1beta/models/r:{operation}", json=GEMINI_ASK)
    assert again.content == answered.content
    assert len(upstream.seen) == 2, "it was not kept"
