"""The Messages dialect as its users see it: the official SDK, raw HTTP, bad requests, any provider behind it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import anthropic
import httpx
import pytest
from tests.llm.conftest import Gateway

from nexus.core.errors import NexusError
from nexus.llm.dialects.anthropic_messages import plug
from nexus.llm.errors import UnknownModel, UpstreamMalformed, UpstreamUnavailable
from nexus.llm.types import Call, ChatRequest, ModelCard
from nexus.testing.said import Said
from nexus.testing.script import Script, Seen
from nexus.testing.upstream import FakeUpstream, answer, saying

HTTP = httpx.Client()
HELLO: list[Any] = [{"role": "user", "content": "alpha beta gamma delta"}]
WEATHER: list[Any] = [
    {
        "name": "get_weather",
        "description": "The weather of a city.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
]
KINDS = ["anthropic", "openai", "google"]


@pytest.fixture(params=KINDS)
def any_gateway(
    request: pytest.FixtureRequest, make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> Gateway:
    """The same model behind each kind of provider."""
    return behind(make_gateway, upstream, request.param)


def behind(make_gateway: Callable[..., Gateway], upstream: FakeUpstream, kind: str, **more: Any) -> Gateway:
    account = {"name": "up", "kind": kind, "base_url": upstream.url, "api_key": "sk-upstream-secret-key"}
    return make_gateway(providers=[account], **more)


def sdk(gateway: Gateway) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=gateway.url, api_key="nx_test", max_retries=0)


def test_sdk_asks_plainly(any_gateway: Gateway) -> None:
    done = sdk(any_gateway).messages.create(model="up/echo", max_tokens=50, messages=HELLO, system="be brief")
    assert [block.text for block in done.content if block.type == "text"] == ["alpha beta gamma delta"]
    assert (done.stop_reason, done.role, done.type) == ("end_turn", "assistant", "message")
    assert done.usage.output_tokens > 0
    row = any_gateway.row()
    read = done.usage.cache_read_input_tokens or 0
    assert row.input_tokens == done.usage.input_tokens + read + (done.usage.cache_creation_input_tokens or 0)
    assert (row.status, row.output_tokens, row.cache_read_tokens) == ("ok", done.usage.output_tokens, read)


def test_sdk_streams(any_gateway: Gateway) -> None:
    with sdk(any_gateway).messages.stream(model="up/echo", max_tokens=50, messages=HELLO) as stream:
        assert "".join(stream.text_stream) == "alpha beta gamma delta"
        done = stream.get_final_message()
    assert done.stop_reason == "end_turn"
    assert done.usage.output_tokens > 0
    assert done.usage.input_tokens > 0


async def test_async_sdk_streams(any_gateway: Gateway) -> None:
    async with anthropic.AsyncAnthropic(base_url=any_gateway.url, api_key="nx_test", max_retries=0) as client:
        raw = await client.messages.create(model="up/echo", max_tokens=50, messages=HELLO, stream=True)
        kinds = [event.type async for event in raw]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]


@pytest.mark.parametrize("stream", [False, True])
def test_sdk_calls_tools_and_returns_results(any_gateway: Gateway, upstream: FakeUpstream, stream: bool) -> None:
    client, messages = sdk(any_gateway), list(HELLO)
    asked: dict[str, Any] = {"model": "up/parallel", "max_tokens": 50, "tools": WEATHER, "tool_choice": {"type": "any"}}

    def ask() -> anthropic.types.Message:
        if not stream:
            return client.messages.create(messages=messages, **asked)
        with client.messages.stream(messages=messages, **asked) as events:
            return events.get_final_message()

    done = ask()
    calls = [block for block in done.content if block.type == "tool_use"]
    assert done.stop_reason == "tool_use"
    assert [call.name for call in calls] == ["get_weather", "get_weather"]
    assert all("city" in call.input for call in calls)
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"} for call in calls]
    messages += [{"role": "assistant", "content": [block.to_dict() for block in done.content]}]
    messages += [{"role": "user", "content": results}]
    again = ask()
    assert again.stop_reason == "end_turn"
    assert "sunny" in "".join(block.text for block in again.content if block.type == "text")


@pytest.mark.parametrize("stream", [False, True])
def test_sdk_sees_thinking(any_gateway: Gateway, stream: bool) -> None:
    asked: dict[str, Any] = {"model": "up/thinking", "max_tokens": 3000, "messages": HELLO}
    asked["thinking"] = {"type": "enabled", "budget_tokens": 1024}
    if stream:
        with sdk(any_gateway).messages.stream(**asked) as events:
            done = events.get_final_message()
    else:
        done = sdk(any_gateway).messages.create(**asked)
    assert [block.type for block in done.content] == ["thinking", "text"]
    assert done.content[0].type == "thinking"
    assert done.content[0].thinking.startswith("The caller wants something.")


def test_sdk_counts_tokens(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    own = behind(make_gateway, upstream, "anthropic")
    asked: dict[str, Any] = {"model": "up/echo", "messages": HELLO, "tools": WEATHER, "system": "be brief"}
    assert sdk(own).messages.count_tokens(**asked).input_tokens == 12
    assert upstream.seen[-1].route.endswith("/v1/messages/count_tokens")
    assert upstream.seen[-1].json == asked | {"model": "echo"}
    other = behind(make_gateway, upstream, "openai")
    raw = sdk(other).messages.with_raw_response.count_tokens(**asked)
    assert raw.headers["x-nexus-estimated"] == "true"
    assert 30 < raw.parse().input_tokens < 100


def test_sdk_lists_models(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    deployments = [{"provider": "up", "model": "echo"}]
    routes = [{"name": name, "deployments": deployments} for name in ("a", "b", "c", "vendor/d")]
    client = sdk(behind(make_gateway, upstream, "openai", routes=routes))
    assert [model.id for model in client.models.list(limit=2)] == ["a", "b", "c", "vendor/d"]
    page = client.models.list(limit=2, after_id="a")
    assert ([model.id for model in page.data], page.has_more, page.first_id) == (["b", "c"], True, "b")
    page = client.models.list(limit=2, before_id="c")
    assert ([model.id for model in page.data], page.has_more) == (["a", "b"], False)
    assert client.models.retrieve("vendor/d").id == "vendor/d"
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.models.retrieve("none")
    assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    with pytest.raises(anthropic.BadRequestError):
        client.models.list(limit=0)


def test_without_the_header_the_list_is_openai_s(gateway: Gateway) -> None:
    assert HTTP.get(f"{gateway.url}/v1/models").json()["object"] == "list"


def test_sdk_errors_are_its_own(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    client = sdk(behind(make_gateway, upstream, "openai", retries=0))
    expected: dict[str, tuple[type[anthropic.APIStatusError], str]] = {
        "400": (anthropic.BadRequestError, "invalid_request_error"),
        "404": (anthropic.NotFoundError, "not_found_error"),
        "413": (anthropic.RequestTooLargeError, "request_too_large"),
        "429": (anthropic.RateLimitError, "rate_limit_error"),
        "529": (anthropic.OverloadedError, "overloaded_error"),
        "401": (anthropic.InternalServerError, "api_error"),
        "context_too_long": (anthropic.BadRequestError, "invalid_request_error"),
    }
    for fault, (kind, name) in expected.items():
        for stream in (False, True):
            with pytest.raises(kind) as caught:
                list(client.messages.create(model=f"up/fault-{fault}", max_tokens=9, messages=HELLO, stream=stream))
            assert caught.value.body["error"]["type"] == name  # type: ignore[index]
            if fault == "context_too_long":
                assert "prompt is too long" in str(caught.value)
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="no-such", max_tokens=9, messages=HELLO)
    with (
        pytest.raises(anthropic.APIStatusError) as broken,
        client.messages.stream(model="up/fault-error_event", max_tokens=9, messages=HELLO) as events,
    ):
        list(events)
    assert "10.99.0.7" not in str(broken.value)


@pytest.mark.parametrize("kind", ["anthropic", "openai"])
def test_sdk_waits_through_a_stalled_start(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, kind: str
) -> None:
    def answering(seen: Seen) -> Script:
        script = answer(seen)
        return Script((script.pieces[0], 0.35, *script.pieces[1:]), close=script.close)

    upstream.answering = answering
    gateway = behind(make_gateway, upstream, kind, heartbeat=0.05)
    began = time.monotonic()
    with sdk(gateway).messages.stream(model="up/echo", max_tokens=50, messages=HELLO) as stream:
        assert stream.get_final_message().stop_reason == "end_turn"
    assert time.monotonic() - began >= 0.35
    body = {"model": "up/echo", "max_tokens": 5, "messages": HELLO, "stream": True}
    for _ in range(5):  # where this machine rests all the while, one sign is enough
        told = HTTP.post(f"{gateway.url}/v1/messages", json=body)
        if told.text.count("event: ping") >= 3:
            break
    assert told.text.count('event: ping\ndata: {"type": "ping"}\n\n') >= 3
    assert told.text.startswith("event: ping")


# Claude Code: what it sends, to a model of another maker.

CLAUDE_CODE: dict[str, Any] = {
    "model": "up/parallel",
    "max_tokens": 32_000,
    "stream": True,
    "system": [
        {"type": "text", "text": "You are Claude Code.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Work in the folder.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "<system-reminder>x</system-reminder>"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "I should look.", "signature": "c2VhbA=="},
                {"type": "tool_use", "id": "toolu_01", "name": "Read", "input": {"file_path": "/a.png"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_01",
                    "is_error": False,
                    "content": [
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}}
                    ],
                },
                {"type": "text", "text": "What is it?", "cache_control": {"type": "ephemeral"}},
            ],
        },
    ],
    "tools": [
        {
            "name": "Read",
            "description": "Reads a file.",
            "input_schema": {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "type": "object",
                "properties": {"file_path": {"type": "string"}},
                "required": ["file_path"],
                "additionalProperties": False,
            },
            "eager_input_streaming": True,
        }
    ],
    "metadata": {"user_id": "user_" + "a" * 64 + "_account__session_" + "b" * 36},
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "high"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
}


def test_claude_code_works_with_any_model(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    gateway = behind(make_gateway, upstream, "openai")
    headers = {
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14",
        "x-api-key": "nx_test",
        "x-app": "cli",
        "user-agent": "claude-cli/2.1.0 (external, cli)",
    }
    told = HTTP.post(f"{gateway.url}/v1/messages?beta=true", json=CLAUDE_CODE, headers=headers, timeout=20)
    assert told.status_code == 200, told.text
    assert told.text.endswith('event: message_stop\ndata: {"type":"message_stop"}\n\n')
    sent = upstream.seen[0].json
    assert not [name for name in upstream.seen[0].headers if name.startswith("anthropic")]
    assert [message["role"] for message in sent["messages"]] == [
        "system", "user", "assistant", "tool", "user", "user",
    ]  # fmt: skip
    assert "cache_control" not in json.dumps(sent)
    assert "context_management" not in sent
    assert sent["messages"][3]["tool_call_id"] == "toolu_01"
    assert sent["messages"][4]["content"][0]["image_url"]["url"] == "data:image/png;base64,QUJD"
    assert sent["messages"][5]["content"] == "What is it?"
    assert sent["tools"][0]["function"]["parameters"] == CLAUDE_CODE["tools"][0]["input_schema"]
    assert len(sent["user"]) <= 64


def test_claude_code_is_unchanged_at_its_own_maker(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    gateway = behind(make_gateway, upstream, "anthropic")
    told = HTTP.post(f"{gateway.url}/v1/messages?beta=true", json=CLAUDE_CODE, timeout=20)
    assert told.status_code == 200
    assert upstream.seen[0].json == CLAUDE_CODE | {"model": "parallel"}


def test_what_another_maker_s_model_cannot_do_is_refused_by_name(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    gateway = behind(make_gateway, upstream, "openai")
    search = {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}
    upload = {"messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}]}
    source = {"type": "text", "media_type": "text/plain", "data": "x"}
    cited = {"type": "document", "source": source, "citations": {"enabled": True}}
    cites = {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, cited]}], "system": "x"}
    for more, field in (
        (search, "tools"),
        (upload, "messages"),
        (cites, "messages.0.content.1.citations"),
        ({"container": "c"}, "container"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "context_management.edits.0"),
        ({"novel": True}, "novel"),
    ):
        body = {"model": "up/echo", "max_tokens": 5, "messages": HELLO} | more
        told = HTTP.post(f"{gateway.url}/v1/messages", json=body)
        assert told.status_code == 400
        assert field in told.json()["error"]["message"]
    assert upstream.seen == []


def test_a_refused_field_has_the_name_that_it_has_here(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    gateway = behind(make_gateway, upstream, "openai_responses")
    body = {"model": "up/echo", "max_tokens": 5, "messages": HELLO, "stop_sequences": ["x"]}
    told = HTTP.post(f"{gateway.url}/v1/messages", json=body)
    assert told.status_code == 400
    assert told.json()["error"]["message"].startswith("stop_sequences: ")


# Bad requests.


def with_content(*content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content)}]}


def result(content: Any) -> dict[str, Any]:
    return with_content({"type": "tool_result", "tool_use_id": "t", "content": content})


BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": ""}, "model"),
    ({"model": None}, "model"),
    ({"model": 3}, "model"),
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": "many"}, "max_tokens"),
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": ["x"]}, "messages.0"),
    ({"messages": [{"content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
    (with_content("x"), "messages.0.content.0"),
    (with_content({}), "messages.0.content.0.type"),
    (with_content({"type": 1}), "messages.0.content.0.type"),
    (with_content({"type": "text"}), "messages.0.content.0.text"),
    (with_content({"type": "text", "text": 1}), "messages.0.content.0.text"),
    (with_content({"type": "image"}), "messages.0.content.0.source"),
    (with_content({"type": "image", "source": "x"}), "messages.0.content.0.source"),
    (with_content({"type": "image", "source": {}}), "messages.0.content.0.source.type"),
    (with_content({"type": "image", "source": {"type": "base64"}}), "messages.0.content.0.source.data"),
    (with_content({"type": "image", "source": {"type": "base64", "data": "x"}}), "source.media_type"),
    (with_content({"type": "image", "source": {"type": "url", "url": 3}}), "messages.0.content.0.source.url"),
    (with_content({"type": "document", "source": {"type": "text"}}), "messages.0.content.0.source.data"),
    (with_content({"type": "document", "source": {"type": "content", "content": 3}}), "source.content"),
    (with_content({"type": "tool_use", "id": "t", "input": {}}), "messages.0.content.0.name"),
    (with_content({"type": "tool_use", "id": "t", "name": "f"}), "messages.0.content.0.input"),
    (with_content({"type": "tool_use", "id": "t", "name": "f", "input": "x"}), "messages.0.content.0.input"),
    (with_content({"type": "tool_result"}), "messages.0.content.0.tool_use_id"),
    (result(3), "messages.0.content.0.content"),
    (result([{"type": "text"}]), "messages.0.content.0.content.0.text"),
    (result([3]), "messages.0.content.0.content.0"),
    (with_content({"type": "thinking"}), "messages.0.content.0.thinking"),
    (with_content({"type": "thinking", "thinking": "x", "signature": 3}), "messages.0.content.0.signature"),
    (with_content({"type": "redacted_thinking"}), "messages.0.content.0.data"),
    (with_content({"type": "search_result", "content": None}), "messages.0.content.0.content"),
    ({"system": 3}, "system"),
    ({"system": [{"type": "text"}]}, "system.0.text"),
    ({"temperature": 1.5}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"top_k": 1.5}, "top_k"),
    ({"stop_sequences": "END"}, "stop_sequences"),
    ({"stop_sequences": [1]}, "stop_sequences.0"),
    ({"stream": "yes"}, "stream"),
    ({"tools": {}}, "tools"),
    ({"tools": [3]}, "tools.0"),
    ({"tools": [{"input_schema": {}}]}, "tools.0.name"),
    ({"tools": [{"name": "f"}]}, "tools.0.input_schema"),
    ({"tools": [{"name": "f", "input_schema": "x"}]}, "tools.0.input_schema"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"tool_choice": {}}, "tool_choice.type"),
    ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
    ({"thinking": True}, "thinking"),
    ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
    ({"output_config": {"format": "json"}}, "output_config.format"),
    ({"metadata": {"user_id": 3}}, "metadata.user_id"),
]


@pytest.mark.parametrize(("change", "field"), BAD, ids=[json.dumps(change)[:60] for change, _ in BAD])
def test_bad_requests_name_their_field(change: dict[str, Any], field: str) -> None:
    body = {"model": "m", "max_tokens": 5, "messages": HELLO} | change
    body = {name: value for name, value in body.items() if value is not None}
    with pytest.raises(NexusError) as refused:
        plug.parse(json.dumps(body).encode())
    assert refused.value.status == 400
    assert (refused.value.field or "").endswith(field)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"3", b"null", b'{"model": NaN}', b'{"model":"a\\u0000b"}', b'{"model":"\xff"}', b"[" * 100_000],
)
def test_what_is_no_request_is_refused_in_the_right_shape(gateway: Gateway, body: bytes) -> None:
    told = HTTP.post(f"{gateway.url}/v1/messages", content=body, headers={"content-type": "application/json"})
    assert told.status_code == 400
    assert told.json()["type"] == "error"
    assert told.json()["error"]["type"] == "invalid_request_error"
    assert set(told.json()) == {"type", "error", "request_id"}


def test_new_fields_blocks_and_tools_are_not_ours_to_judge(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    gateway = behind(make_gateway, upstream, "anthropic")
    body: dict[str, Any] = {
        "model": "up/echo",
        "max_tokens": 0,
        "messages": [
            {"role": "user", "content": [{"type": "hologram", "text": {"a": 1}, "id": 3, "input": [1], "source": 7}]},
            {"role": "system", "content": [{"type": "tool_addition", "tools": []}]},
            {"role": "user", "content": "hello"},
        ],
        "tools": [{"type": "oracle_20270101", "name": "oracle", "depth": 3}],
        "tool_choice": {"type": "perhaps"},
        "thinking": {"type": "between_tools"},
        "brand_new": {"kept": True},
    }
    told = HTTP.post(f"{gateway.url}/v1/messages", json=body)
    assert told.status_code == 200, told.text
    assert upstream.seen[0].json == body | {"model": "echo"}


def test_estimates_stand_in_for_missing_usage(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    gateway = behind(make_gateway, upstream, "openai")
    upstream.answering = saying(Said(text="word " * 40, usage=False))
    for stream in (False, True):
        with sdk(gateway).messages.stream(model="up/m", max_tokens=50, messages=HELLO) as events:
            usage = events.get_final_message().usage
        if not stream:
            usage = sdk(gateway).messages.create(model="up/m", max_tokens=50, messages=HELLO).usage
        assert (usage.input_tokens, usage.output_tokens) == (6, 50)
    assert all(row.estimated for row in gateway.rows)


# The contract, without HTTP.


def test_a_request_is_measured(gateway: Gateway) -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://x"}}
    call = plug.parse(
        json.dumps(
            {
                "model": "m",
                "max_tokens": 7,
                "system": "12345",
                "messages": [{"role": "user", "content": [{"type": "text", "text": "123"}, image]}],
                "tools": WEATHER,
                "output_config": {"format": {"type": "json_schema", "schema": {}}},
            }
        ).encode()
    )
    assert call.needs == {"images", "tools", "json_schema"}
    assert call.fields["images"] == "messages.0.content.1"
    assert (call.max_tokens, call.stream) == (7, False)
    assert 8 < call.characters < 250
    assert isinstance(call.parse(), ChatRequest)


@pytest.mark.parametrize("body", [b"x", b"[]", b"{}", b'{"content": 3}', b"null", b"\xff"])
def test_what_is_no_answer_is_malformed(body: bytes) -> None:
    with pytest.raises(UpstreamMalformed):
        plug.inspect(body)


def test_an_error_in_the_place_of_an_answer_is_an_error() -> None:
    with pytest.raises(UpstreamUnavailable):
        plug.inspect(b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}')


def test_models_are_those_that_chat() -> None:
    cards = [ModelCard(name="a", owner="o", task="chat"), ModelCard(name="e", owner="o", task="embedding")]
    assert [card["id"] for card in json.loads(plug.models(cards, "/v1/models"))["data"]] == ["a"]
    empty = json.loads(plug.models([], "/v1/models"))
    assert empty == {"data": [], "has_more": False, "first_id": None, "last_id": None}
    with pytest.raises(UnknownModel):
        plug.models(cards, "/v1/models/e")
    assert json.loads(
        plug.count(3, Call(dialect="", model="m", parse=lambda: ChatRequest(model="m", messages=())))
    ) == {"input_tokens": 3}
