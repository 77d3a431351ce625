"""What Codex sends: a turn with its tools, stored nowhere; then the next one with all items again.

The requests have the form of openai/codex, codex-rs/core/src/client.rs (streamed, `store: false`, items in full).
"""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from tests.llm.conftest import Gateway
from tests.llm.dialects.test_openai_responses import call_events, told_events, translated  # noqa: F401  a fixture
from tests.llm.providers.test_openai_family import check_events

from nexus.testing.upstream import FakeUpstream, Said, saying

HTTP = httpx.Client()
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "name": "shell", "description": "Runs a shell command.", "strict": False,
     "parameters": {"type": "object", "properties": {"command": {"type": "array", "items": {"type": "string"}}},
                    "required": ["command"], "additionalProperties": False}},
    {"type": "function", "name": "weather", "strict": False, "parameters": {"type": "object", "properties": {}}},
    {"type": "custom", "name": "apply_patch", "description": "Edits files.",
     "format": {"type": "grammar", "syntax": "lark", "definition": "start: begin_patch hunk+ end_patch"}},
    {"type": "web_search", "external_web_access": False},
    {"type": "namespace", "name": "mcp__docs", "description": "Docs",
     "tools": [{"type": "function", "name": "search", "parameters": {"type": "object", "properties": {}}}]},
]  # fmt: skip


def turn(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "model": "up/m",
        "instructions": "You are a coding agent.",
        "input": items,
        "tools": TOOLS,
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0199-thread",
        "text": {"verbosity": "low"},
        "client_metadata": {"x": "y"},
    }


@pytest.mark.usefixtures("translated")
def test_a_session_works_with_a_provider_of_chats(
    upstream: FakeUpstream,
    translated: Gateway,  # noqa: F811  the fixture
) -> None:
    developer = {"type": "message", "role": "developer",
                 "content": [{"type": "input_text", "text": "<permissions>"}]}  # fmt: skip
    user = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What is the weather?"}]}
    upstream.answering = call_events
    told = HTTP.post(f"{translated.url}/v1/responses", json=turn([developer, user]))
    assert told.status_code == 200, told.text
    first = check_events(told_events(told.text))
    thought, call, patch = first["output"]
    assert (thought["type"], call["type"], patch["type"]) == ("reasoning", "function_call", "custom_tool_call")
    assert [tool["type"] for tool in first["tools"]] == ["function", "function", "custom", "namespace"]
    sent = upstream.seen[-1].json
    assert [message["role"] for message in sent["messages"]] == ["system", "system", "user"]
    assert [tool["function"]["name"] for tool in sent["tools"]] == [
        "shell",
        "weather",
        "apply_patch",
        "mcp__docs__search",
    ]
    assert (sent["parallel_tool_calls"], sent["reasoning_effort"]) == (False, "medium")
    assert not {"store", "include", "prompt_cache_key", "client_metadata"} & sent.keys()

    results = [
        {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"},
        {"type": "custom_tool_call_output", "call_id": patch["call_id"], "output": "Success."},
    ]
    upstream.answering = saying(Said("It is sunny."))
    told = HTTP.post(f"{translated.url}/v1/responses", json=turn([developer, user, thought, call, patch, *results]))
    assert told.status_code == 200, told.text
    assert check_events(told_events(told.text))["output"][0]["content"][0]["text"] == "It is sunny."
    made, *told_ = upstream.seen[-1].json["messages"][3:]
    assert [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in made["tool_calls"]] == [
        ("weather", {"city": "Ulm"}),
        ("apply_patch", {"input": "*** Begin Patch\n"}),
    ]
    assert [(m["role"], m["content"]) for m in told_] == [("tool", "sunny"), ("tool", "Success.")]


def test_a_tool_of_a_namespace_comes_back_with_it(
    upstream: FakeUpstream,
    translated: Gateway,  # noqa: F811  the fixture
) -> None:
    from nexus.testing.said import ToolUse

    upstream.answering = saying(Said("", tools=(ToolUse("c1", "mcp__docs__search", {"q": "x"}),), finish="tools"))
    user = {"role": "user", "content": "search"}
    told = HTTP.post(f"{translated.url}/v1/responses", json=turn([user]))
    (call,) = check_events(told_events(told.text))["output"]
    assert (call["namespace"], call["name"]) == ("mcp__docs", "search")
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "found"}
    HTTP.post(f"{translated.url}/v1/responses", json=turn([user, call, result]))
    assert upstream.seen[-1].json["messages"][2]["tool_calls"][0]["function"]["name"] == "mcp__docs__search"
