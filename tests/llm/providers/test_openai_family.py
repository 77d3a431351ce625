"""Recorded traffic of one OpenAI form in front of clients of the other, read by the official SDK's types."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from tests.llm.conftest import Gateway
from tests.llm.dialects.test_openai_responses_cassettes import recorded_responses
from tests.llm.test_cassettes import events, recordings
from tests.llm.test_translation import joined, parsed, words

from nexus.core.errors import NexusError
from nexus.llm.forms.chat import requests as chat_requests
from nexus.llm.forms.responses.requests import read_request, write_request
from nexus.llm.types import Message, Text, ToolCall, ToolResult
from nexus.testing.recordings import Exchange
from nexus.testing.replay import replay
from nexus.testing.upstream import FakeUpstream

# One client: making one reads every certificate of the machine.
HTTP = httpx.Client()
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def usable(exchange: Exchange, answer: str) -> dict[str, Any] | str:
    """The request of a recorded call that went well, or why it is left out."""
    try:
        asked = json.loads(exchange.request)
    except ValueError:
        return "the request was not recorded"
    if not isinstance(asked, dict) or not asked.get("model") or not exchange.body:
        return "no model or no answer on record"
    if exchange.status != 200:
        return "an error"
    if not exchange.streamed and answer not in json.loads(exchange.body):
        return "no chat answer on record"
    if exchange.streamed and any("error" in item and item["error"] for item in events(exchange.body.decode())
                                 if item != "[DONE]" and item.get("object") != "response"
                                 and not str(item.get("type", "")).startswith("response.")):  # fmt: skip
        return "an error in the stream"
    return asked


# Chat completions behind, Responses in front.


def asked_as_responses(asked: dict[str, Any]) -> dict[str, Any]:
    """The same question in the other form; a plain one where it has no words for it."""
    try:
        body = write_request(chat_requests.read_request(asked), "up/m", stream=bool(asked.get("stream")), thinks=False)
    except NexusError:
        body = {"model": "up/m", "input": "x", "stream": bool(asked.get("stream"))}
    return json.loads(msgspec.json.encode(body)) | {"store": True}


def meaning_of_chat(message: dict[str, Any]) -> tuple[Any, ...]:
    calls = [(call.get("function") or call.get("custom") or {}) for call in message.get("tool_calls") or ()]
    calls += [message["function_call"]] if isinstance(message.get("function_call"), dict) else []
    told = [(call["name"], parsed(arguments_of(call))) for call in calls]
    return words(message.get("content")), told, message.get("refusal") or ""


def arguments_of(call: dict[str, Any]) -> Any:
    return {"input": call["input"]} if "input" in call else call.get("arguments") or ""


def meaning_of_output(output: list[dict[str, Any]]) -> tuple[Any, ...]:
    parts = [part for item in output if item["type"] == "message" for part in item["content"]]
    text = "".join(part["text"] for part in parts if part["type"] == "output_text")
    refusal = "".join(part["refusal"] for part in parts if part["type"] == "refusal")
    calls = [(item["name"], parsed(item["arguments"])) for item in output if item["type"] == "function_call"]
    return text, calls, refusal


@pytest.mark.slow
def test_recorded_chats_reach_clients_of_responses(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, shared: Path
) -> None:
    provider = {"name": "up", "kind": "openai", "base_url": upstream.url, "api_key": "sk-x", "responses": False}
    gateway = make_gateway(providers=[provider])
    cut, counts, wrong = random.Random(5), Counter[str](), []
    for name, exchange in recordings(shared):
        asked = usable(exchange, "choices")
        if isinstance(asked, str):
            counts[f"left out: {asked}"] += 1
            continue
        gateway.llm.router._standing.clear()
        upstream.answering = replay([exchange], cut=cut)
        response = HTTP.post(f"{gateway.url}/v1/responses", json=asked_as_responses(asked), timeout=20)
        try:
            if "web_search_options" in asked:
                # A tool there, and one that only its maker's own servers have.
                assert (response.status_code, response.json()["error"]["param"]) == (400, "tools.0.type")
                continue
            assert response.status_code == 200, response.text
            if exchange.streamed:
                counts["streamed"] += 1
                messages, finishes, usage = joined(events(exchange.body.decode()))
                recorded, finish = messages.get(0, {}), finishes.get(0)
                final = check_events(events(response.text))
            else:
                counts["plain"] += 1
                body = json.loads(exchange.body)
                recorded, finish = body["choices"][0]["message"], body["choices"][0].get("finish_reason")
                usage, final = body.get("usage"), response.json()
            # What is repeated of the request is not ours.
            Response.model_validate(final | {"reasoning": None, "tool_choice": "auto", "text": None})
            assert meaning_of_output(final["output"]) == meaning_of_chat(recorded)
            ended = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(finish or "")
            assert (final["incomplete_details"] or {}).get("reason") == ended
            if usage and usage.get("prompt_tokens"):
                told = final["usage"]
                assert (told["input_tokens"], told["output_tokens"]) == (
                    usage["prompt_tokens"],
                    usage.get("completion_tokens") or 0,
                )
        except (AssertionError, KeyError, ValueError, TypeError) as error:
            wrong.append(f"{name}: {type(error).__name__} {str(error)[:400]}")
    print(dict(counts))
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong])
    assert counts["plain"] >= 150
    assert counts["streamed"] >= 40


def check_events(seen: list[dict[str, Any]]) -> dict[str, Any]:
    """Check a stream against the SDK's types and against itself; return the response that it ends with."""
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    for event in seen:
        EVENT.validate_python(event)
    assert [event["type"] for event in seen[:2]] == ["response.created", "response.in_progress"]
    items: dict[int, Any] = {}
    said: Counter[str] = Counter()
    for event in seen:
        kind, place = event["type"], event.get("output_index")
        if kind == "response.output_item.added":
            assert place == len(items)
            items[place] = None
        elif kind == "response.output_item.done":
            items[place] = event["item"]
        elif kind.endswith(".delta"):
            said[f"{place} {event.get('content_index', '')}"] += len(event["delta"])
    final: dict[str, Any] = seen[-1]["response"]
    assert [item["id"] for item in final["output"]] == [items[place]["id"] for place in sorted(items)]
    for place, item in enumerate(final["output"]):
        for index, part in enumerate(item.get("content") or ()):
            assert said[f"{place} {index}"] == len(part.get("text", part.get("refusal")))
        if item["type"] == "function_call":
            assert said[f"{place} "] == len(item["arguments"])
    return final


# Responses behind, chat completions in front.


@pytest.mark.slow
def test_recorded_responses_reach_clients_of_chat(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, shared: Path
) -> None:
    kind = "_".join(("openai", "responses"))
    provider = {"name": "up", "kind": kind, "base_url": upstream.url, "api_key": "sk-x"}
    gateway = make_gateway(providers=[provider])
    cut, counts, wrong = random.Random(6), Counter[str](), []
    for name, exchange in recorded_responses(shared):
        asked = usable(exchange, "output")
        if isinstance(asked, str):
            counts[f"left out: {asked}"] += 1
            continue
        gateway.llm.router._standing.clear()
        upstream.answering = replay([exchange], cut=cut)
        question = asked_as_chat(asked) | ({"stream_options": {"include_usage": True}} if asked.get("stream") else {})
        response = HTTP.post(f"{gateway.url}/v1/chat/completions", json=question, timeout=20)
        try:
            assert response.status_code == 200, response.text
            if exchange.streamed:
                recorded = [item for item in events(exchange.body.decode()) if item != "[DONE]"][-1]["response"]
                seen = events(response.text)
                assert seen[-1] == "[DONE]"
                for item in seen[:-1]:
                    ChatCompletionChunk.model_validate(item)
                messages, finishes, usage = joined(seen)
                message, finish = messages[0], finishes.get(0)
                counts["streamed"] += 1
            else:
                recorded, body = json.loads(exchange.body), response.json()
                if recorded["status"] != "queued":
                    ChatCompletion.model_validate(body)
                choice, usage = body["choices"][0], body.get("usage")
                message, finish = choice["message"], choice["finish_reason"]
                counts["plain"] += 1
            output = recorded["output"]
            assert meaning_of_chat(message) == meaning_of_output(output)
            calls = any(item["type"] in ("function_call", "custom_tool_call") for item in output)
            assert finish == ("length" if recorded["incomplete_details"] else "tool_calls" if calls else "stop")
            if (recorded.get("usage") or {}).get("input_tokens"):
                assert usage["prompt_tokens"] == recorded["usage"]["input_tokens"]
                assert usage["completion_tokens"] == recorded["usage"]["output_tokens"]
                details = recorded["usage"]["output_tokens_details"]
                assert usage["completion_tokens_details"]["reasoning_tokens"] == details["reasoning_tokens"]
        except (AssertionError, KeyError, ValueError, TypeError) as error:
            wrong.append(f"{name}: {type(error).__name__} {str(error)[:400]}")
    print(dict(counts))
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong])
    assert counts["plain"] >= 40
    assert counts["streamed"] >= 10


def asked_as_chat(asked: dict[str, Any]) -> dict[str, Any]:
    """The same question in the other form; a plain one where it has no words for it."""
    stream = bool(asked.get("stream"))
    try:
        body = chat_requests.write_request(read_request(asked), "up/m", stream=stream)
    except NexusError:
        body = {"model": "up/m", "messages": [{"role": "user", "content": "x"}], "stream": stream}
    return dict(json.loads(msgspec.json.encode(body)))


def told(messages: tuple[Message, ...]) -> list[tuple[str, str]]:
    """What is said in a request, apart from how it is cut into messages."""
    out: list[tuple[str, str]] = []
    for message in messages:
        for part in message.parts:
            if isinstance(part, Text) and part.text:
                out.append((message.role, part.text))
            elif isinstance(part, ToolCall):
                out.append((part.id, part.name + part.arguments))
            elif isinstance(part, ToolResult):
                out.append((part.id, "".join(item.text for item in part.content if isinstance(item, Text))))
    return out


def test_recorded_requests_say_the_same_in_the_other_form(shared: Path) -> None:
    counts: Counter[str] = Counter()
    for _, exchange in recordings(shared):
        asked = usable(exchange, "choices")
        if isinstance(asked, str):
            continue
        request = chat_requests.read_request(asked)
        try:
            body = json.loads(msgspec.json.encode(write_request(request, "m", stream=False, thinks=False)))
            again = read_request(body)
        except NexusError as error:
            counts[f"no words for {error.field}"] += 1
            continue
        assert told(again.messages) == told(request.messages)
        assert [tool.name for tool in again.tools] == [tool.name for tool in request.tools]
        assert (again.max_tokens, again.temperature, again.top_p) == (
            request.max_tokens,
            request.temperature,
            request.top_p,
        )
        counts["chat to responses"] += 1
    for _, exchange in recorded_responses(shared):
        asked = usable(exchange, "output")
        if isinstance(asked, str):
            continue
        try:
            request = read_request(asked)
            body = json.loads(msgspec.json.encode(chat_requests.write_request(request, "m", stream=False)))
        except NexusError as error:
            counts[f"no words for {error.field}"] += 1
            continue
        again = chat_requests.read_request(body)
        same = [("system" if role == "developer" else role, said) for role, said in told(request.messages)]
        assert told(again.messages) == same
        assert [tool.name for tool in again.tools] == [tool.name for tool in request.tools]
        counts["responses to chat"] += 1
    print(dict(counts))
    assert counts["chat to responses"] >= 180
    assert counts["responses to chat"] >= 25
