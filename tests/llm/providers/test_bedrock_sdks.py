"""The official clients of three other makers, unchanged, talk to models of Bedrock through Converse."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types as gemini
from tests.llm.conftest import Gateway

from nexus.testing.upstream import FakeUpstream

UP = {"name": "up", "kind": "bedrock", "region": "us-east-1", "api_key": "a-bedrock-key", "api": "converse"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
NOVA = "up/us.amazon.nova-lite-v1:0"
CLAUDE = "up/us.anthropic.claude-sonnet-4-5-20250929-v1:0"


@pytest.fixture
def gateway(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> Gateway:
    return make_gateway(providers=[UP | {"base_url": upstream.url}])


def by_openai(client: openai.OpenAI, model: str, *, stream: bool) -> dict[str, Any]:
    tools: Any = [{"type": "function", "function": {"name": "look", "parameters": SCHEMA}}]
    ask: Any = {"model": model, "messages": [{"role": "user", "content": "grüße ☃"}], "tools": tools}
    if not stream:
        answer = client.chat.completions.create(**ask)
        message, usage, finish = answer.choices[0].message, answer.usage, answer.choices[0].finish_reason
        text = message.content or ""
        calls = [[call.id, call.function.name, call.function.arguments] for call in message.tool_calls or ()]
    else:
        text, finish, usage, calls = "", None, None, []
        for chunk in client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
                for call in choice.delta.tool_calls or ():
                    if call.id:
                        calls.append([call.id, call.function.name, ""])
                    calls[call.index][2] += call.function.arguments or ""
    return {
        "text": text,
        "calls": [(name, tool, json.loads(arguments)) for name, tool, arguments in calls],
        "finish": finish,
        "read": usage.prompt_tokens,
        "cached": usage.prompt_tokens_details.cached_tokens,
        "written": usage.completion_tokens,
    }


def by_anthropic(client: anthropic.Anthropic, model: str, *, stream: bool) -> dict[str, Any]:
    ask: Any = {
        "model": model, "max_tokens": 99, "messages": [{"role": "user", "content": "grüße ☃"}],
        "tools": [{"name": "look", "input_schema": SCHEMA}],
    }  # fmt: skip
    if not stream:
        answer = client.messages.create(**ask)
    else:
        with client.messages.stream(**ask) as events:
            answer = events.get_final_message()
    names = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length", "refusal": "content_filter"}
    usage = answer.usage
    cached, stored = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    return {
        "text": "".join(block.text for block in answer.content if block.type == "text"),
        "calls": [(block.id, block.name, block.input) for block in answer.content if block.type == "tool_use"],
        "finish": names.get(str(answer.stop_reason), answer.stop_reason),
        "read": usage.input_tokens + cached + stored,
        "cached": cached,
        "written": usage.output_tokens,
    }


def by_gemini(client: genai.Client, model: str, *, stream: bool) -> dict[str, Any]:
    look = gemini.FunctionDeclaration(name="look", parameters_json_schema=SCHEMA)
    config = gemini.GenerateContentConfig(
        tools=[gemini.Tool(function_declarations=[look])],
        automatic_function_calling=gemini.AutomaticFunctionCallingConfig(disable=True),
    )
    if stream:
        answers = list(client.models.generate_content_stream(model=model, contents="grüße ☃", config=config))
    else:
        answers = [client.models.generate_content(model=model, contents="grüße ☃", config=config)]
    parts = [p for a in answers for c in a.candidates or () if c.content for p in c.content.parts or ()]
    calls = [part.function_call for part in parts if part.function_call]
    finishes = [c.finish_reason for a in answers for c in a.candidates or () if c.finish_reason]
    usage = [a.usage_metadata for a in answers if a.usage_metadata][-1]
    names = {"STOP": "stop", "MAX_TOKENS": "length", "SAFETY": "content_filter"}
    finish = names.get(finishes[-1].name, finishes[-1].name)
    return {
        "text": "".join(part.text for part in parts if part.text and not part.thought),
        "calls": [(call.id, call.name, call.args) for call in calls],
        "finish": "tool_calls" if calls and finish == "stop" else finish,
        "read": usage.prompt_token_count,
        "cached": usage.cached_content_token_count or 0,
        "written": usage.candidates_token_count,
    }


FINISHES = {"parallel": "tool_calls", "length": "length", "filter": "content_filter"}


@pytest.mark.slow
def test_all_clients_hear_the_same(gateway: Gateway) -> None:
    clients: dict[str, Callable[..., dict[str, Any]]] = {
        "openai": partial(by_openai, openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="nx", max_retries=0)),
        "anthropic": partial(by_anthropic, anthropic.Anthropic(base_url=gateway.url, api_key="nx", max_retries=0)),
        "gemini": partial(by_gemini, genai.Client(api_key="nx", http_options=gemini.HttpOptions(base_url=gateway.url))),
    }
    for model in (NOVA, CLAUDE):
        for what in ("echo", "parallel", "thinking", "cached", "length", "filter"):
            heard = {
                f"{name} {'streamed' if stream else 'plain'}": ask(f"{model}+{what}", stream=stream)
                for name, ask in clients.items()
                for stream in (False, True)
            }
            first = heard["openai plain"]
            assert {name: answer for name, answer in heard.items() if answer != first} == {}, (what, first)
            assert first["finish"] == FINISHES.get(what, "stop")
            assert len(first["calls"]) == (2 if what == "parallel" else 0)
            assert bool(first["text"]) == (what != "parallel")
            assert first["read"] > first["cached"] > 0
