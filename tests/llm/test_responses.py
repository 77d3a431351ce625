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
