"""Anthropic clients and Claude on Bedrock: what was recorded of InvokeModel passes byte for byte, frames unwrapped."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest
from botocore.eventstream import EventStreamBuffer
from tests.llm.conftest import Gateway
from tests.llm.faulty import RETRIES, Case, Pair, every_fault, play_and_check
from tests.llm.providers.test_bedrock_cassettes import check_signature, recordings
from tests.llm.speakers import SPEAKERS, account

from nexus.testing.frames import frame
from nexus.testing.recordings import Exchange
from nexus.testing.replay import as_script
from nexus.testing.script import streamed
from nexus.testing.upstream import FakeUpstream

HTTP = httpx.Client()
KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
UP = {"name": "up", "kind": "bedrock", "region": "us-east-1", "access_key_id": "AKIDEXAMPLE", "secret_access_key": KEY}
CLAUDE = "up/us.anthropic.claude-sonnet-4-5-20250929-v1:0"
ASK = {"model": CLAUDE, "max_tokens": 9, "messages": [{"role": "user", "content": "alpha beta"}]}


@pytest.fixture
def gateway(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> Gateway:
    return make_gateway(providers=[UP | {"base_url": upstream.url}])


def post(gateway: Gateway, body: dict[str, Any], path: str = "/v1/messages", **headers: str) -> httpx.Response:
    told = {"anthropic-version": "2023-06-01"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return HTTP.post(gateway.url + path, json=body, headers=told, timeout=20)


def recorded_events(body: bytes) -> list[Any]:
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    return [json.loads(base64.b64decode(json.loads(message.payload)["bytes"])) for message in buffer]


def events(text: str) -> list[Any]:
    found = [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: ")]
    names = [line[7:] for line in text.split("\n") if line.startswith("event: ")]
    assert names == [event["type"] for event in found]
    return found


@pytest.mark.slow
def test_recorded_messages_pass_unchanged(gateway: Gateway, upstream: FakeUpstream, shared: Path) -> None:
    cut = random.Random(20_261_126)
    counts: Counter[str] = Counter()
    for name, exchange in recordings(shared):
        action = exchange.path.rpartition("/")[2]
        if action in ("converse", "converse-stream"):
            continue
        asked = json.loads(exchange.request or b"null") or {}
        if action == "count-tokens" and "invokeModel" in asked["input"]:
            asked = json.loads(base64.b64decode(asked["input"]["invokeModel"]["body"]))
        elif "anthropic_version" not in asked:
            counts["left out: not in Anthropic's form"] += 1
            continue
        gateway.rows.clear()
        upstream.seen.clear()
        upstream.answering = lambda _, exchange=exchange: as_script(exchange, cut=cut)
        model = exchange.path.split("/")[2].replace("%3A", ":")
        body = {key: value for key, value in asked.items() if key != "anthropic_version"} | {"model": f"up/{model}"}
        if action == "count-tokens":
            check_count(post(gateway, body, "/v1/messages/count_tokens"), asked, exchange, upstream)
        else:
            if streams := action == "invoke-with-response-stream":
                body["stream"] = True
            response = post(gateway, body)
            assert response.status_code == 200, (name, response.text)
            assert upstream.seen[0].json == asked, name
            assert upstream.seen[0].path.endswith(exchange.path)
            if streams:
                assert events(response.text) == recorded_events(exchange.body), name
            else:
                assert response.content == exchange.body, name
            row = gateway.row()
            assert row.status == "ok"
            assert row.input_tokens
        check_signature(upstream.seen[0])
        counts[f"{action} {exchange.status}"] += 1
    print(dict(counts))
    assert counts["invoke-with-response-stream 200"] >= 4
    assert counts["invoke 200"] >= 1
    assert counts["count-tokens 200"] >= 1


def check_count(response: httpx.Response, asked: Any, exchange: Exchange, upstream: FakeUpstream) -> None:
    sent = json.loads(base64.b64decode(upstream.seen[0].json["input"]["invokeModel"]["body"]))
    assert sent == asked
    if exchange.status == 200:
        assert response.json() == {"input_tokens": json.loads(exchange.body)["inputTokens"]}
    else:
        assert response.status_code == exchange.status
        assert response.json()["type"] == "error"
        assert response.json()["error"]["type"] == "invalid_request_error"


def test_the_official_client(gateway: Gateway, upstream: FakeUpstream) -> None:
    client = anthropic.Anthropic(base_url=gateway.url, api_key="nx", max_retries=0)
    message = client.messages.create(**ASK)
    assert message.content[0].text == "alpha beta"  # type: ignore[union-attr]
    with client.messages.stream(**ASK) as stream:
        assert stream.get_final_text() == "alpha beta"
    assert client.messages.count_tokens(model=CLAUDE, messages=ASK["messages"]).input_tokens == 12
    for seen in upstream.seen[:2]:
        assert seen.json == {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": ASK["messages"]}


def test_only_betas_that_bedrock_knows_pass(gateway: Gateway, upstream: FakeUpstream) -> None:
    post(gateway, ASK, anthropic_beta="claude-code-20250219, context-1m-2025-08-07,interleaved-thinking-2025-05-14")
    assert upstream.seen[0].json["anthropic_beta"] == ["context-1m-2025-08-07", "interleaved-thinking-2025-05-14"]
    assert "anthropic-beta" not in upstream.seen[0].headers
    post(gateway, ASK, anthropic_beta="claude-code-20250219")
    assert "anthropic_beta" not in upstream.seen[1].json


def test_converse_may_be_preferred_and_other_models_have_nothing_else(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    gateway = make_gateway(providers=[UP | {"base_url": upstream.url, "api": "converse"}])
    assert post(gateway, ASK).json()["content"] == [{"type": "text", "text": "alpha beta"}]
    assert upstream.seen[0].path.endswith("/converse")
    gateway = make_gateway(providers=[UP | {"base_url": upstream.url}])
    post(gateway, ASK | {"model": "up/us.amazon.nova-lite-v1:0"})
    assert upstream.seen[1].path.endswith("/converse")


@pytest.mark.parametrize(
    ("kind", "message", "status", "told"),
    [
        ("throttlingException", "Too many requests", 429, "rate_limit_error"),
        ("validationException", "max_tokens: too many", 400, "invalid_request_error"),
        ("validationException", "prompt is too long: 9 tokens > 8 maximum", 400, "invalid_request_error"),
        ("modelStreamErrorException", "at arn:aws:bedrock:us-east-1:123456789012:x", 529, "overloaded_error"),
        ("serviceUnavailableException", "later", 529, "overloaded_error"),
        ("modelTimeoutException", "slow", 504, "timeout_error"),
    ],
)
def test_exceptions_before_and_within_a_stream(
    gateway: Gateway, upstream: FakeUpstream, kind: str, message: str, status: int, told: str
) -> None:
    failed = frame(
        json.dumps({"message": message}).encode(),
        message_type="exception", exception_type=kind, content_type="application/json",
    )  # fmt: skip
    upstream.answering = lambda _: streamed([failed], kind="application/vnd.amazon.eventstream")
    response = post(gateway, ASK | {"stream": True})
    assert response.status_code == status, response.text
    assert "123456789012" not in response.text
    chunks = [
        {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 3, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "some"}},
    ]
    frames = [
        frame(
            json.dumps({"bytes": base64.b64encode(json.dumps(chunk).encode()).decode()}).encode(),
            message_type="event", event_type="chunk", content_type="application/json",
        )
        for chunk in chunks
    ]  # fmt: skip
    upstream.answering = lambda _: streamed([*frames, failed], kind="application/vnd.amazon.eventstream", gap=0.03)
    gateway.llm.router._standing.clear()
    text = post(gateway, ASK | {"stream": True}).text
    assert events(text)[-1]["type"] == "error"
    assert events(text)[-2] == chunks[-1]
    assert "123456789012" not in text


@pytest.mark.parametrize(
    ("status", "kind", "message", "expected"),
    [
        (400, "ValidationException", "messages: roles must alternate", 400),
        (400, "ValidationException", "Input is too long for requested model.", 400),
        (403, "AccessDeniedException", "User: arn:aws:iam::123456789012:user/x is not authorized", 502),
        (404, "ResourceNotFoundException", "Could not resolve the foundation model", 404),
        (429, "ThrottlingException", "Too many tokens", 429),
        (503, "ServiceUnavailableException", "later", 529),
    ],
)
def test_errors_are_told_in_the_clients_form(
    gateway: Gateway, upstream: FakeUpstream, status: int, kind: str, message: str, expected: int
) -> None:
    from nexus.testing.script import Script
    from nexus.testing.script import response as answer

    line = f"x-amzn-errortype: {kind}:http://internal.amazon.com/coral/"
    upstream.answering = lambda _: Script((answer(status, json.dumps({"message": message}).encode(), line),))
    told = post(gateway, ASK)
    assert told.status_code == expected
    body = told.json()
    assert body["type"] == "error"
    assert body["error"]["message"]
    assert "123456789012" not in told.text
    if expected == 400:
        assert body["error"] == {"type": "invalid_request_error", "message": message} or message in told.text


class ClaudeCase(Case):
    """A fault played to a Claude model, so that it happens on the way of InvokeModel."""

    @property
    def model(self) -> str:
        return f"anthropic.claude-sonnet-4-5+{super().model}"


@pytest.mark.slow
def test_every_fault_on_the_way(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    pair = Pair.made(make_gateway, providers=[account("bedrock", upstream)], retries=RETRIES)
    play_and_check(pair, upstream, SPEAKERS["anthropic_messages"], every_fault("bedrock", case=ClaudeCase))
    assert all("/invoke" in seen.path for seen in upstream.seen)
