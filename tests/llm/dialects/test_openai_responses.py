"""The Responses dialect by the official SDK, in front of providers that know chat completions only."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel
from tests.llm.conftest import Gateway

from nexus.llm.errors import Unsupported
from nexus.llm.forms.responses.requests import write_request
from nexus.llm.types import ChatRequest, Message, Text
from nexus.llm.wire.sse import data_of
from nexus.testing.faults import CANARIES, FAULTS
from nexus.testing.script import streamed
from nexus.testing.upstream import FakeUpstream, Said, Script, Seen, saying

HTTP = httpx.Client()


@pytest.fixture
def translated(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> Gateway:
    """A gateway whose provider has no Responses endpoint."""
    provider = {"name": "up", "kind": "openai", "base_url": upstream.url, "api_key": "sk-x", "responses": False}
    return make_gateway(providers=[provider])


@pytest.fixture
def sdk(translated: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{translated.url}/v1", api_key="sk-client", max_retries=0)


def test_a_text_is_answered(sdk: openai.OpenAI, upstream: FakeUpstream, translated: Gateway) -> None:
    answer = sdk.responses.create(model="up/echo", input="Tell me a joke", instructions="Be brief", temperature=0.5)
    assert answer.output_text == "Tell me a joke"
    assert answer.status == "completed"
    assert answer.id.startswith("resp_")
    assert answer.instructions == "Be brief"
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.input_tokens_details.cached_tokens) == (12, 4)
    assert upstream.seen[0].path.endswith("/chat/completions")
    assert upstream.seen[0].json["messages"] == [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "Tell me a joke"},
    ]
    assert translated.row().input_tokens == 12


def test_a_stream_has_every_event_in_order(sdk: openai.OpenAI) -> None:
    seen = list(sdk.responses.create(model="up/echo", input="one two", stream=True))
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert [event.type for event in seen] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    last: Any = seen[-1]
    assert last.response.output_text == "one two"
    assert last.response.usage.output_tokens == 2


class Answer(BaseModel):
    number: int


def test_a_parsed_answer_is_parsed(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    upstream.answering = saying(Said('{"number": 42}'))
    answer = sdk.responses.parse(model="up/echo", input="What?", text_format=Answer)
    assert answer.output_parsed == Answer(number=42)
    form = upstream.seen[0].json["response_format"]
    assert (form["type"], form["json_schema"]["name"], form["json_schema"]["strict"]) == ("json_schema", "Answer", True)


def call_events(seen: Seen) -> Script:
    """Two calls of tools, in pieces, after a thought."""

    def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        return b"data: " + json.dumps(body).encode() + b"\n\n"

    def call(index: int, **function: Any) -> dict[str, Any]:
        given = {"id": f"call_{index}", "type": "function"} if "name" in function else {}
        return {"tool_calls": [{"index": index, "function": {"arguments": ""} | function} | given]}

    return streamed(
        [
            event({"role": "assistant", "content": None, "reasoning_content": "Let me "}),
            event({"reasoning_content": "see."}),
            event(call(0, name="weather")),
            event(call(0, arguments='{"city":')),
            event(call(0, arguments='"Ulm"}')),
            event(call(1, name="apply_patch")),
            event(call(1, arguments='{"input": "*** Begin')),
            event(call(1, arguments=' Patch\\n"}')),
            event({}, "tool_calls"),
            b"data: [DONE]\n\n",
        ]
    )


def test_tools_and_thoughts_are_streamed(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    upstream.answering = call_events
    tools: Any = [
        {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False},
        {"type": "custom", "name": "apply_patch", "description": "patch files",
         "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"}},
    ]  # fmt: skip
    with sdk.responses.stream(model="up/x", input="?", tools=tools) as opened:
        seen = [event.type for event in opened]
        final = opened.get_final_response()
    assert [item.type for item in final.output] == ["reasoning", "function_call", "custom_tool_call"]
    thought, call, patch = final.output
    assert thought.type == "reasoning"
    assert thought.summary[0].text == "Let me see."
    assert call.type == "function_call"
    assert (call.call_id, call.name, call.arguments) == ("call_0", "weather", '{"city":"Ulm"}')
    assert patch.type == "custom_tool_call"
    assert (patch.call_id, patch.name, patch.input) == ("call_1", "apply_patch", "*** Begin Patch\n")
    assert seen.count("response.function_call_arguments.delta") == 2
    assert "response.custom_tool_call_input.done" in seen
    sent = upstream.seen[0].json["tools"]
    assert [tool["function"]["name"] for tool in sent] == ["weather", "apply_patch"]
    assert "start: x" in sent[1]["function"]["description"]


INPUT = [{"role": "user", "content": "hi"}]
BAD: list[tuple[object, str | None, str]] = [
    ({"input": "x"}, "model", "missing_required_parameter"),
    ({"model": "", "input": "x"}, "model", "missing_required_parameter"),
    ({"model": 5, "input": "x"}, "model", "invalid_type"),
    ({"model": "up/m"}, "input", "missing_required_parameter"),
    ({"model": "up/m", "input": None}, "input", "missing_required_parameter"),
    ({"model": "up/m", "input": 5}, "input", "invalid_type"),
    ({"model": "up/m", "input": [5]}, "input.0", "invalid_type"),
    ({"model": "up/m", "input": [{}]}, "input.0.type", "missing_required_parameter"),
    ({"model": "up/m", "input": [{"role": "robot", "content": "x"}]}, "input.0.role", "invalid_value"),
    ({"model": "up/m", "input": [{"role": "user"}]}, "input.0.content", "missing_required_parameter"),
    ({"model": "up/m", "input": [{"role": "user", "content": 5}]}, "input.0.content", "invalid_type"),
    (
        {"model": "up/m", "input": [*INPUT, {"role": "user", "content": [{"text": "x"}]}]},
        "input.1.content.0.type",
        "missing_required_parameter",
    ),
    (
        {"model": "up/m", "input": [{"role": "user", "content": [{"type": "input_text"}]}]},
        "input.0.content.0.text",
        "missing_required_parameter",
    ),
    ({"model": "up/m", "input": [{"type": "function_call"}]}, "input.0.name", "missing_required_parameter"),
    (
        {"model": "up/m", "input": [{"type": "function_call", "name": "f", "call_id": "c", "arguments": {"a": 1}}]},
        "input.0.arguments",
        "invalid_value",
    ),
    (
        {"model": "up/m", "input": [{"type": "function_call_output", "call_id": "c"}]},
        "input.0.output",
        "missing_required_parameter",
    ),
    ({"model": "up/m", "input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0.type", "unsupported_parameter"),
    (
        {"model": "up/m", "input": [*INPUT, {"type": "shell_call_output", "call_id": "c", "output": []}]},
        "input.1.type",
        "unsupported_parameter",
    ),
    ({"model": "up/m", "input": "x", "temperature": 2.5}, "temperature", "invalid_value"),
    ({"model": "up/m", "input": "x", "temperature": "hot"}, "temperature", "invalid_type"),
    ({"model": "up/m", "input": "x", "top_p": -1}, "top_p", "invalid_value"),
    ({"model": "up/m", "input": "x", "max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
    ({"model": "up/m", "input": "x", "top_logprobs": 21}, "top_logprobs", "invalid_value"),
    ({"model": "up/m", "input": "x", "stream": "yes"}, "stream", "invalid_type"),
    ({"model": "up/m", "input": "x", "tools": [1]}, "tools.0", "invalid_type"),
    ({"model": "up/m", "input": "x", "tools": [{"name": "f"}]}, "tools.0.type", "missing_required_parameter"),
    ({"model": "up/m", "input": "x", "tools": [{"type": "function"}]}, "tools.0.name", "missing_required_parameter"),
    ({"model": "up/m", "input": "x", "tools": [{"type": "web_search"}]}, "tools.0.type", "unsupported_parameter"),
    ({"model": "up/m", "input": "x", "tool_choice": 5}, "tool_choice", "invalid_type"),
    ({"model": "up/m", "input": "x", "tool_choice": "sometimes"}, "tool_choice", "invalid_value"),
    ({"model": "up/m", "input": "x", "text": {"format": {"type": "json_schema"}}}, "text.format.schema",
     "missing_required_parameter"),
    ({"model": "up/m", "input": "x", "text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
    ({"model": "up/m", "input": "x", "text": 5}, "text", "invalid_type"),
    ({"model": "up/m", "input": "x", "truncation": "sometimes"}, "truncation", "invalid_type"),
    ({"model": "up/m", "input": "x", "metadata": {"a": 1}}, "metadata", "invalid_type"),
    ({"model": "up/m", "input": "x", "store": "no"}, "store", "invalid_type"),
    ({"model": "up/m", "input": "x", "conversation": "conv_1"}, "conversation", "unsupported_parameter"),
    ({"model": "up/m", "input": "x", "prompt": {"id": "p"}}, "prompt", "unsupported_parameter"),
    (
        {"model": "up/m", "input": "x", "conversation": "c", "previous_response_id": "r"},
        "previous_response_id",
        "invalid_value",
    ),
    ([], None, "malformed_body"),
    ("", None, "malformed_body"),
    ('{"model": "up/m", "input": "a\\u0000"}', None, "malformed_body"),
    (b'{"model": "up/m", "input": "\xff"}', None, "malformed_body"),
    ('{"model": "up/m", "input": ' + "[" * 100_000 + "]" * 100_000 + "}", None, "malformed_body"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "param", "code"), BAD, ids=[f"{i}-{case[1]}" for i, case in enumerate(BAD)])
def test_bad_input_names_the_field(
    translated: Gateway, upstream: FakeUpstream, body: object, param: str | None, code: str
) -> None:
    raw = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    told = HTTP.post(f"{translated.url}/v1/responses", content=raw)
    error = told.json()["error"]
    assert (told.status_code, error["param"], error["code"]) == (400, param, code), error
    assert error["type"] == "invalid_request_error"
    assert not upstream.seen


def test_what_the_model_cannot_do_is_named_as_this_form_calls_it(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    gateway = make_gateway(providers=[{"name": "up", "kind": "anthropic", "base_url": upstream.url, "api_key": "k"}])
    asked = {"model": "up/echo", "input": "x", "include": ["message.output_text.logprobs"]}
    told = HTTP.post(f"{gateway.url}/v1/responses", json=asked)
    assert (told.status_code, told.json()["error"]["param"]) == (400, "include"), told.text
    assert not upstream.seen


@pytest.mark.parametrize(
    ("more", "field"),
    [({"seed": 0}, "seed"), ({"top_k": 5}, "top_k"), ({"presence_penalty": 0.5}, "presence_penalty"),
     ({"frequency_penalty": -1.0}, "frequency_penalty"), ({"stop": ("a",)}, "stop"), ({"choices": 2}, "n")],
)  # fmt: skip
def test_what_this_form_cannot_say_is_refused(more: dict[str, Any], field: str) -> None:
    request = ChatRequest(model="m", messages=(Message(role="user", parts=(Text(text="x"),)),), **more)
    with pytest.raises(Unsupported) as refused:
        write_request(request, "m", stream=False, thinks=False)
    assert refused.value.field == field


@pytest.mark.slow
@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("native", [False, True])
def test_whatever_the_provider_does_the_client_is_told_the_truth(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, native: bool, streams: bool
) -> None:
    account = {"name": "up", "kind": "openai", "base_url": upstream.url, "api_key": "sk-canary-1", "responses": native}
    limits = {"connect": 5, "first_token": 0.5, "between_tokens": 0.5, "total": 1.5}
    strict = make_gateway(providers=[account], retries=0, timeouts=limits)
    patient = make_gateway(providers=[account], retries=0)
    wrong: list[str] = []
    for name in sorted(FAULTS):
        gateway = strict if name.startswith(("stall", "slow")) else patient
        gateway.rows.clear()
        gateway.llm.router._standing.clear()
        body = {"model": f"up/fault-{name}", "input": "one two", "stream": streams}
        told = HTTP.post(f"{gateway.url}/v1/responses", json=body, timeout=60)
        try:
            check_truth(name, told, gateway, native=native, streams=streams)
        except (AssertionError, KeyError, ValueError) as error:
            wrong.append(f"{name}: {told.status_code} {str(error)[:200]}")
    assert not wrong, "\n".join(wrong)


def check_truth(name: str, told: httpx.Response, gateway: Gateway, *, native: bool, streams: bool) -> None:
    assert not [word for word in CANARIES if word in told.text], told.text
    fault = FAULTS[name]
    row = gateway.row()
    seen = told_events(told.text) if streams and told.status_code == 200 else []
    if (seen[-1]["type"] == "response.completed") if seen else told.status_code == 200:
        final = seen[-1]["response"] if seen else told.json()
        assert text_of(final) == "one two"
        assert fault.outcome != "error" or (fault.streams and not streams) or fault.form == "frames"
        assert row.status == "ok"
        return
    assert fault.outcome != "whole", told.text[-300:]
    assert row.status == "error"
    error = seen[-1] if seen else told.json()["error"]
    assert error.get("message") or error["response"]["error"]
    if seen and not native:
        assert [event["sequence_number"] for event in seen[:-1]] == list(range(len(seen) - 1))


def told_events(text: str) -> list[dict[str, Any]]:
    """The events of a stream, whose data may stand on several lines."""
    data = [data_of(event) for event in text.encode().split(b"\n\n") if event.strip()]
    return [json.loads(item) for item in data if item and item.strip() != b"[DONE]"]


def text_of(response: dict[str, Any]) -> str:
    items = [item for item in response["output"] if item["type"] == "message"]
    return "".join(part["text"] for item in items for part in item["content"])
