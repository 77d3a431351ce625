"""Anthropic as an upstream: requests, counts, errors, and everything that can go wrong on the way."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest
from tests.llm.conftest import Gateway

from nexus.core.errors import NexusError, TooLarge
from nexus.core.secrets import Secret
from nexus.llm.account import Endpoint
from nexus.llm.dialects.anthropic_messages import plug as messages
from nexus.llm.errors import (
    ContextTooLong,
    Unsupported,
    UpstreamCredentials,
    UpstreamMalformed,
    UpstreamModelMissing,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from nexus.llm.providers.anthropic import plug
from nexus.llm.types import Call, ChatRequest, EmbeddingRequest, Message, Text, Tool
from nexus.llm.wire.client import HttpAnswer
from nexus.testing.script import Script, Seen, response, streamed
from nexus.testing.upstream import FakeUpstream, answer

HTTP = httpx.Client()
AT = Endpoint(base_url="https://api.anthropic.com", secret=Secret("sk-secret"))
HELLO = ChatRequest(model="m", messages=(Message(role="user", parts=(Text(text="alpha beta gamma delta"),)),))
ASK = {"messages": [{"role": "user", "content": "alpha beta gamma delta"}], "max_tokens": 100}


@pytest.fixture
def claude(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> Gateway:
    account = {"name": "up", "kind": "anthropic", "base_url": upstream.url, "api_key": "sk-upstream-secret-key"}
    return make_gateway(providers=[account], retries=0)


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://api.anthropic.com", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/v1", "https://api.anthropic.com/v1/messages"),
        ("https://gateway.example/anthropic", "https://gateway.example/anthropic/v1/messages"),
    ],
)
def test_the_address_may_end_before_the_version_or_after_it(base: str, url: str) -> None:
    assert plug.chat(Endpoint(base_url=base), "claude", Call.of(HELLO)).url == url


def test_the_key_and_the_version_go_where_the_host_wants_them() -> None:
    headers = dict(plug.chat(AT, "claude", Call.of(HELLO)).headers)
    assert (headers["x-api-key"], headers["anthropic-version"]) == ("sk-secret", "2023-06-01")
    bearer = Endpoint(base_url="https://x", secret=Secret("s"), options={"auth": "bearer", "headers": {"x-team": "1"}})
    headers = dict(plug.chat(bearer, "claude", Call.of(HELLO)).headers)
    assert headers["authorization"] == "Bearer s"
    assert headers["x-team"] == "1"
    assert "x-api-key" not in headers


def test_of_a_request_in_the_same_form_only_the_model_is_replaced() -> None:
    body = (
        b'{"model": "claude", "max_tokens":1.0e2, "messages": [{"role":"user", "content":"\\u00e9"}], "new": {"a" :1}}'
    )
    call = messages.parse(body.replace(b"1.0e2", b"100"), headers={b"anthropic-beta": b"x-1", b"cookie": b"c"})
    assert plug.chat(AT, "claude", call).body == call.body
    sent = plug.chat(AT, "claude-sonnet-5", call)
    assert json.loads(sent.body) == json.loads(call.body) | {"model": "claude-sonnet-5"}
    assert b'{"a" :1}' in sent.body
    assert b"\\u00e9" in sent.body
    assert dict(sent.headers)["anthropic-beta"] == "x-1"
    assert "cookie" not in dict(sent.headers)


def test_counts_take_what_counting_knows() -> None:
    request = ChatRequest(model="m", messages=HELLO.messages, tools=(Tool(name="f"),), max_tokens=5, temperature=0.5)
    sent = plug.count(AT, "claude", Call.of(request))
    assert sent.url.endswith("/v1/messages/count_tokens")
    assert set(json.loads(sent.body)) == {"model", "messages", "tools"}
    assert plug.counted(HttpAnswer(status=200, headers={}, body=b'{"input_tokens": 7}')) == 7
    for body in (b'{"input_tokens": -1}', b'{"input_tokens": true}', b"{}", b"[]", b"x"):
        with pytest.raises(UpstreamMalformed):
            plug.counted(HttpAnswer(status=200, headers={}, body=body))


def test_there_are_no_embeddings() -> None:
    with pytest.raises(Unsupported):
        plug.embed(AT, "claude", EmbeddingRequest(model="claude", input=("x",)))


ERRORS: list[tuple[int, str, str, type[NexusError], str | None]] = [
    (400, "invalid_request_error", "messages.0.content: Field required", UpstreamRejected, "messages.0.content"),
    (400, "invalid_request_error", "Something else is wrong", UpstreamRejected, None),
    (400, "invalid_request_error", "prompt is too long: 213462 tokens > 200000 maximum", ContextTooLong, "messages"),
    (
        400,
        "invalid_request_error",
        "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000",
        ContextTooLong,
        "messages",
    ),
    (400, "invalid_request_error", "Your credit balance is too low to access the API.", UpstreamCredentials, None),
    (401, "authentication_error", "invalid x-api-key", UpstreamCredentials, None),
    (402, "billing_error", "pay", UpstreamCredentials, None),
    (403, "permission_error", "no", UpstreamCredentials, None),
    (404, "not_found_error", "model: claude-x", UpstreamModelMissing, "model"),
    (404, "not_found_error", "File not found: file_1", UpstreamRejected, None),
    (404, "", "<html>", UpstreamModelMissing, "model"),
    (413, "request_too_large", "Request exceeds the maximum size", TooLarge, None),
    (413, "request_too_large", "Prompt is too long", ContextTooLong, "messages"),
    (422, "invalid_request_error", "x", UpstreamRejected, None),
    (429, "rate_limit_error", "slow", UpstreamRateLimited, None),
    (500, "api_error", "Internal server error", UpstreamUnavailable, None),
    (504, "timeout_error", "late", UpstreamTimeout, None),
    (529, "overloaded_error", "Overloaded", UpstreamUnavailable, None),
]


@pytest.mark.parametrize(("status", "kind", "message", "expected", "field"), ERRORS)
def test_errors_are_told_apart(
    status: int, kind: str, message: str, expected: type[NexusError], field: str | None
) -> None:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": message}}) if kind else message
    error = plug.error(HttpAnswer(status=status, headers={"retry-after": "7"}, body=body.encode()))
    assert type(error) is expected
    assert error.field == field
    assert error.retry_after == (7 if status in (429, 500, 504, 529) else None)
    if kind and expected not in (UpstreamRejected,):
        # The same error in the middle of a stream has no status but its type.
        decoder = plug.decoder(Call.of(HELLO))
        assert decoder.feed(f"event: error\ndata: {body}\n\n".encode()) == []
        assert type(decoder.tally.failure) is expected


def test_overload_before_the_first_word_reaches_the_other_deployment(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    greeting = (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","model":"c","usage":{}}}\n\n',
        b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n',
        b'event: ping\ndata: {"type":"ping"}\n\n',
        b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n',
    )

    def answering(seen: Seen) -> Script:
        return streamed(greeting, gap=0.02) if seen.model == "busy" else answer(seen)

    upstream.answering = answering
    account = {"name": "up", "kind": "anthropic", "base_url": upstream.url}
    route = {
        "name": "claude",
        "deployments": [{"provider": "up", "model": "busy"}, {"provider": "up", "model": "echo", "weight": 0}],
    }
    gateway = make_gateway(providers=[account], routes=[route], retries=0)
    for path in ("/v1/messages", "/v1/chat/completions"):
        upstream.seen.clear()
        told = HTTP.post(gateway.url + path, json=ASK | {"model": "claude", "stream": True}, timeout=20)
        assert told.status_code == 200
        assert "delta" in told.text
        assert "Overloaded" not in told.text
        assert [seen.model for seen in upstream.seen] == ["busy", "echo"]


def test_a_limit_says_when_to_come_back_and_overload_is_overload(claude: Gateway, upstream: FakeUpstream) -> None:
    limited = HTTP.post(f"{claude.url}/v1/messages", json=ASK | {"model": "up/fault-429_retry_after"}, timeout=20)
    assert limited.status_code == 429
    assert limited.json()["error"]["type"] == "rate_limit_error"
    assert limited.headers["retry-after"] == "7"
    busy = HTTP.post(f"{claude.url}/v1/messages", json=ASK | {"model": "up/fault-529"}, timeout=20)
    assert (busy.status_code, busy.json()["error"]["type"]) == (529, "overloaded_error")


def test_the_provider_s_own_words_reach_clients_of_the_same_form(claude: Gateway, upstream: FakeUpstream) -> None:
    body = b'{"type":"error","error":{"type":"invalid_request_error","message":"tools.0: bad","x":1},"request_id":"r"}'
    upstream.answering = lambda seen: Script((response(400, body),))
    told = HTTP.post(f"{claude.url}/v1/messages", json=ASK | {"model": "up/claude"}, timeout=20)
    assert (told.status_code, told.content) == (400, body)
    other = HTTP.post(f"{claude.url}/v1/chat/completions", json=ASK | {"model": "up/claude"}, timeout=20)
    assert other.status_code == 400
    assert other.json()["error"]["param"] == "tools.0"
