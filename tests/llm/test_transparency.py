"""What a gateway that all know loses on the way (research: llm_gateway section 7), point by point."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.llm.conftest import Gateway
from tests.llm.test_cassettes import events
from tests.llm.test_translation import OtherDialect

from nexus.testing.script import Script, response, streamed
from nexus.testing.upstream import FakeUpstream, Said, saying

HTTP = httpx.Client()
ASK = [{"role": "user", "content": "hi"}]
HEAD = {"id": "chatcmpl-1", "created": 1_234_567_890, "model": "m"}


@pytest.fixture(params=["own", "other"])
def door(request: pytest.FixtureRequest, make_gateway: Callable[..., Gateway]) -> Callable[..., httpx.Response]:
    """Ask once in the provider's own dialect, once through our form."""
    gateway = make_gateway()
    if request.param == "other":
        account, _ = gateway.llm.registry.account("up")
        gateway.llm.registry._accounts["up"] = (account, OtherDialect())

    def ask(**body: Any) -> httpx.Response:
        told = HTTP.post(f"{gateway.url}/v1/chat/completions", json={"model": "up/m", "messages": ASK} | body)
        assert told.status_code == 200, told.text
        return told

    return ask


def plain(upstream: FakeUpstream, body: dict[str, Any]) -> None:
    upstream.answering = lambda seen: Script((response(200, json.dumps(HEAD | body).encode()),))


def chunks(upstream: FakeUpstream, *bodies: dict[str, Any]) -> None:
    told = [b"data: " + json.dumps(HEAD | {"object": "chat.completion.chunk"} | body).encode() + b"\n\n"
            for body in bodies]  # fmt: skip
    upstream.answering = lambda seen: streamed([*told, b"data: [DONE]\n\n"])


def said(message: dict[str, Any], finish: str = "stop", **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant"} | message, "finish_reason": finish} | more]}


def test_1_an_answer_may_lack_a_service_tier(door: Callable[..., httpx.Response], upstream: FakeUpstream) -> None:
    plain(upstream, said({"content": "ok"}) | {"x_groq": {"id": "req_1"}})
    assert door().json()["choices"][0]["message"]["content"] == "ok"


def test_2_a_refusal_stays_one(door: Callable[..., httpx.Response], upstream: FakeUpstream) -> None:
    plain(upstream, said({"content": None, "refusal": "I cannot"}))
    message = door().json()["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, "I cannot")
    upstream.answering = saying(Said("I cannot", finish="refusal"))
    deltas = [item["choices"][0]["delta"] for item in events(door(stream=True).text)[:-1]]
    assert "".join(delta.get("refusal") or "" for delta in deltas) == "I cannot"


def test_3_a_document_by_url_reaches_its_provider(gateway: Gateway, upstream: FakeUpstream) -> None:
    part = {"type": "document_url", "document_url": "https://example.org/a.pdf"}
    body = {"model": "up/m", "messages": [{"role": "user", "content": [part]}]}
    assert HTTP.post(f"{gateway.url}/v1/chat/completions", json=body).status_code == 200
    assert upstream.seen[0].json["messages"] == [{"role": "user", "content": [part]}]


def test_4_every_choice_of_a_stream_finishes(door: Callable[..., httpx.Response], upstream: FakeUpstream) -> None:
    finished = {
        choice["index"]: choice["finish_reason"]
        for item in events(door(stream=True, n=3).text)[:-1]
        for choice in item["choices"]
        if choice["finish_reason"]
    }
    assert finished == {0: "stop", 1: "stop", 2: "stop"}


@pytest.mark.parametrize(
    ("word", "finish"),
    [("TOOL_CALL", "tool_calls"), ("MAX_TOKENS", "length"), ("COMPLETE", "stop"), ("model_length", "length")],
)
def test_5_a_server_s_own_finish_is_understood(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, word: str, finish: str
) -> None:
    gateway = make_gateway()
    account, _ = gateway.llm.registry.account("up")
    gateway.llm.registry._accounts["up"] = (account, OtherDialect())
    plain(upstream, said({"content": "x"}, word))
    told = HTTP.post(f"{gateway.url}/v1/chat/completions", json={"model": "up/m", "messages": ASK})
    assert told.json()["choices"][0]["finish_reason"] == finish


@pytest.mark.parametrize(
    "details",
    [{"prompt_tokens_details": {"cached_tokens": 7}}, {"prompt_cache_hit_tokens": 7}, {"cached_tokens": 7}],
)
def test_6_cached_tokens_are_counted(gateway: Gateway, upstream: FakeUpstream, details: dict[str, Any]) -> None:
    plain(upstream, said({"content": "x"}) | {"usage": {"prompt_tokens": 9, "completion_tokens": 1} | details})
    HTTP.post(f"{gateway.url}/v1/chat/completions", json={"model": "up/m", "messages": ASK})
    assert gateway.row().cache_read_tokens == 7


def test_7_a_lone_system_message_stays_one(door: Callable[..., httpx.Response], upstream: FakeUpstream) -> None:
    door(model="up/o3", messages=[{"role": "system", "content": "be brief"}])
    assert upstream.seen[0].json["messages"] == [{"role": "system", "content": "be brief"}]


def test_10_effort_reaches_a_model_that_nobody_knows(
    door: Callable[..., httpx.Response], upstream: FakeUpstream
) -> None:
    door(model="up/brand-new", reasoning_effort="high")
    assert upstream.seen[0].json["reasoning_effort"] == "high"


def test_11_fields_of_their_own_are_kept(gateway: Gateway, upstream: FakeUpstream) -> None:
    more = {"service_tier": "flex", "x_groq": {"id": "r"}, "provider": "DeepInfra", "citations": ["a"]}
    body = said({"content": "x", "reasoning_details": [{"type": "reasoning.text"}], "annotations": []},
                native_finish_reason="end_turn", container={"id": "c"}) | more  # fmt: skip
    plain(upstream, body)
    told = HTTP.post(f"{gateway.url}/v1/chat/completions", json={"model": "up/m", "messages": ASK})
    assert told.json() == HEAD | body
    chunk = {
        "choices": [{"index": 0, "delta": {"content": "x"}, "native_finish_reason": "end", "finish_reason": "stop"}]
    }
    chunks(upstream, chunk | more)
    streamed = HTTP.post(f"{gateway.url}/v1/chat/completions", json={"model": "up/m", "messages": ASK, "stream": True})
    assert events(streamed.text)[0] == HEAD | {"object": "chat.completion.chunk"} | chunk | more


def test_12_the_usage_chunk_has_no_choice_and_created_is_kept(
    door: Callable[..., httpx.Response], upstream: FakeUpstream
) -> None:
    chunks(
        upstream,
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}},
    )
    seen = events(door(stream=True, stream_options={"include_usage": True}).text)
    assert (seen[-2]["choices"], seen[-2]["usage"]["prompt_tokens"]) == ([], 3)
    assert {item["created"] for item in seen[:-1]} == {HEAD["created"]}
    assert all(item["choices"] for item in events(door(stream=True).text)[:-1])


# What goes through our form on purpose.


@pytest.fixture
def translated(make_gateway: Callable[..., Gateway]) -> Callable[..., httpx.Response]:
    gateway = make_gateway()
    account, _ = gateway.llm.registry.account("up")
    gateway.llm.registry._accounts["up"] = (account, OtherDialect())
    return lambda **body: HTTP.post(
        f"{gateway.url}/v1/chat/completions", json={"model": "up/m", "messages": ASK} | body
    )


FREE = {"type": "custom", "custom": {"name": "patch", "description": "d",
        "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: x"}}}}  # fmt: skip


def call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_free_form_tool_is_one_function_and_comes_back_free(
    translated: Callable[..., httpx.Response], upstream: FakeUpstream
) -> None:
    plain(upstream, said({"content": None, "tool_calls": [call("patch", '{"input": "a\\nb"}')]}, "tool_calls"))
    history = [*ASK, {"role": "assistant", "tool_calls": [{"id": "c0", "type": "custom",
               "custom": {"name": "patch", "input": "old"}}]},
               {"role": "tool", "tool_call_id": "c0", "content": "done"}]  # fmt: skip
    told = translated(tools=[FREE], messages=history).json()["choices"][0]["message"]["tool_calls"]
    assert told == [{"id": "c1", "type": "custom", "custom": {"name": "patch", "input": "a\nb"}}]
    sent = upstream.seen[0].json
    assert "start: x" in sent["tools"][0]["function"]["description"]
    assert sent["messages"][1]["tool_calls"][0]["function"] == {"name": "patch", "arguments": '{"input":"old"}'}
    first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "patch", "arguments": ""}}
    pieces = [{"index": 0, "function": {"arguments": piece}} for piece in ('{"in', 'put": "a\\n', 'b"}')]
    chunks(upstream, *({"choices": [{"index": 0, "delta": {"tool_calls": [piece]}, "finish_reason": None}]}
                       for piece in (first, *pieces)),
           {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})  # fmt: skip
    calls = [one for item in events(translated(tools=[FREE], stream=True).text)[:-1]
             for one in item["choices"][0]["delta"].get("tool_calls") or ()]  # fmt: skip
    assert "".join(one.get("custom", {}).get("input", "") for one in calls) == "a\nb"
    assert (calls[0]["type"], calls[0]["custom"]["name"]) == ("custom", "patch")
    assert not any("function" in one for one in calls)


def test_functions_of_the_older_form_come_back_in_it(
    translated: Callable[..., httpx.Response], upstream: FakeUpstream
) -> None:
    plain(upstream, said({"content": None, "tool_calls": [call("f", '{"a":1}')]}, "tool_calls"))
    older: dict[str, Any] = {"functions": [{"name": "f", "parameters": {}}], "function_call": {"name": "f"}}
    history = [*ASK, {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
               {"role": "function", "name": "f", "content": "42"}]  # fmt: skip
    choice = translated(messages=history, **older).json()["choices"][0]
    assert choice["message"]["function_call"] == {"name": "f", "arguments": '{"a":1}'}
    assert choice["finish_reason"] == "function_call"
    assert "tool_calls" not in choice["message"]
    sent = upstream.seen[0].json
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    made, told = sent["messages"][1:]
    assert made["tool_calls"][0]["id"] == told["tool_call_id"]
    first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
    rest = {"index": 0, "function": {"arguments": '{"a":1}'}}
    chunks(upstream, *({"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]} for piece in (first, rest)),
           {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})  # fmt: skip
    told_ = [item["choices"][0] for item in events(translated(stream=True, **older).text)[:-1]]
    pieces = [piece["delta"]["function_call"] for piece in told_ if "function_call" in piece["delta"]]
    assert (pieces[0]["name"], "".join(piece["arguments"] for piece in pieces)) == ("f", '{"a":1}')
    assert told_[-1]["finish_reason"] == "function_call"


def test_logprobs_audio_and_annotations_survive(
    translated: Callable[..., httpx.Response], upstream: FakeUpstream
) -> None:
    logprobs = {"content": [{"token": "x", "logprob": -1.0, "bytes": [120], "top_logprobs": []}], "refusal": None}
    note = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 1, "title": "t", "url": "u"}}
    audio = {"id": "a", "data": "QUJD", "expires_at": 5, "transcript": "x"}
    plain(upstream, said({"content": "x", "annotations": [note], "audio": audio}, logprobs=logprobs)
          | {"service_tier": "flex", "system_fingerprint": "fp"})  # fmt: skip
    body = translated(logprobs=True, top_logprobs=2).json()
    choice = body["choices"][0]
    assert (choice["logprobs"], choice["message"]["annotations"]) == (logprobs, [note])
    assert choice["message"]["audio"] == audio
    assert (body["service_tier"], body["system_fingerprint"]) == ("flex", "fp")
    sent = upstream.seen[0].json
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 2)


@pytest.mark.parametrize(
    ("model", "options", "field"),
    [
        ("gpt-4o", {}, "max_tokens"),
        ("o3-mini", {}, "max_completion_tokens"),
        ("gpt-5.1", {}, "max_completion_tokens"),
        ("openai/gpt-5", {}, "max_completion_tokens"),
        ("llama-3", {"max_completion_tokens": True}, "max_completion_tokens"),
        ("gpt-5", {"max_completion_tokens": False}, "max_tokens"),
    ],
)
def test_the_limit_of_output_has_the_name_that_the_model_knows(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, model: str, options: dict[str, Any], field: str
) -> None:
    account = {"name": "up", "kind": "openai", "base_url": upstream.url, "responses": False} | options
    gateway = make_gateway(providers=[account])
    body = {"model": f"up/{model}", "input": [{"role": "developer", "content": "be brief"}], "max_output_tokens": 9}
    assert HTTP.post(f"{gateway.url}/v1/responses", json=body).status_code == 200
    sent = upstream.seen[0].json
    assert {name: value for name, value in sent.items() if name.startswith("max_")} == {field: 9}
    assert sent["messages"][0]["role"] == "system"


def test_what_a_server_calls_otherwise_is_renamed(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    account = {"name": "up", "kind": "mistral", "base_url": upstream.url, "api_key": "k"}
    gateway = make_gateway(providers=[account])
    body = {"model": "up/m", "input": "hi", "user": "ann", "temperature": 0.5}
    assert HTTP.post(f"{gateway.url}/v1/responses", json=body).status_code == 200
    sent = upstream.seen[0].json
    assert "user" not in sent
    assert sent["temperature"] == 0.5


def test_ids_of_calls_are_such_as_mistral_takes(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    gateway = make_gateway(providers=[{"name": "up", "kind": "mistral", "base_url": upstream.url, "api_key": "k"}])
    calls = [{"type": "tool_use", "id": f"toolu_{n}", "name": "f", "input": {}} for n in (1, 2)]
    results = [{"type": "tool_result", "tool_use_id": f"toolu_{n}", "content": "x"} for n in (1, 2)]
    messages = [*ASK, {"role": "assistant", "content": calls}, {"role": "user", "content": results}]
    body = {"model": "up/m", "max_tokens": 9, "messages": messages}
    assert HTTP.post(f"{gateway.url}/v1/messages", json=body).status_code == 200
    made, *told = upstream.seen[0].json["messages"][1:]
    ids = [call["id"] for call in made["tool_calls"]]
    assert ids == [result["tool_call_id"] for result in told]
    assert all(len(one) == 9 and one.isalnum() for one in ids)
    assert len(set(ids)) == 2


@pytest.mark.parametrize(
    ("kind", "field"), [("deepseek", "reasoning_content"), ("openrouter", "reasoning"), ("groq", None)]
)
def test_earlier_reasoning_goes_back_where_it_is_wanted(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, kind: str, field: str | None
) -> None:
    account = {"name": "up", "kind": kind, "base_url": upstream.url, "api_key": "k", "responses": False}
    gateway = make_gateway(providers=[account])
    items = [
        {"role": "user", "content": "hi"},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
    ]
    assert HTTP.post(f"{gateway.url}/v1/responses", json={"model": "up/m", "input": items}).status_code == 200
    made = upstream.seen[0].json["messages"][1]
    assert {name for name in made if name.startswith("reasoning")} == ({field} if field else set())


def test_pictures_of_tools_follow_all_their_results(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    gateway = make_gateway(providers=[{"name": "up", "kind": "openai", "base_url": upstream.url, "responses": False}])
    picture = {"type": "input_image", "image_url": "data:image/png;base64,QUJD"}
    calls = [{"type": "function_call", "call_id": f"c{n}", "name": "look", "arguments": "{}"} for n in (1, 2)]
    results = [{"type": "function_call_output", "call_id": f"c{n}", "output": [picture]} for n in (1, 2)]
    body = {"model": "up/m", "input": [{"role": "user", "content": "look"}, *calls, *results]}
    assert HTTP.post(f"{gateway.url}/v1/responses", json=body).status_code == 200
    roles = [message["role"] for message in upstream.seen[0].json["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "user"]
    assert len(upstream.seen[0].json["messages"][-1]["content"]) == 2
