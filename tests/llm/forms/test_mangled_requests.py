"""However a request is mangled, it is refused with a field's name or translated: to no provider is it an accident."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.llm.speakers import installed_kinds

from nexus.core.errors import NexusError
from nexus.core.plugins import PluginFolder
from nexus.core.secrets import Secret
from nexus.llm.account import Endpoint
from nexus.llm.dialect import Dialect
from nexus.llm.dialects.anthropic_messages import plug as messages
from nexus.llm.dialects.gemini import plug as gemini
from nexus.llm.dialects.openai_chat import plug as chat
from nexus.llm.provider import Provider

PROVIDERS: PluginFolder[Provider] = PluginFolder("nexus.llm.providers", Provider, noun="kind")  # type: ignore[type-abstract]
AT = Endpoint(base_url="https://host.example/v1", secret=Secret("s"), options={"region": "us-east-1"})
JUNK: list[Any] = [
    None, True, 0, -1, 1.5, "x", "", [], {}, [None], [[]], {"type": "text"}, {"type": "x"}, ["x"], {"a": {"b": []}},
    10**30, "☃",
]  # fmt: skip
PNG = {"type": "base64", "media_type": "image/png", "data": "QUJD"}
MESSAGES: dict[str, Any] = {
    "model": "m",
    "max_tokens": 100,
    "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image", "source": PNG},
                {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "x"}]}},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}, "title": "t"},
                {"type": "search_result", "title": "x", "source": "y", "content": [{"type": "text", "text": "x"}]},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "c2VhbA=="},
                {"type": "redacted_thinking", "data": "c2VjcmV0"},
                {"type": "text", "text": "a call", "citations": []},
                {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
                {"type": "server_tool_use", "id": "s", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "content": [{"type": "text", "text": "x"}, {"type": "tool_reference", "tool_name": "x"}],
                    "is_error": True,
                },
                {"type": "text", "text": "go on"},
            ],
        },
    ],
    "tools": [{"name": "f", "description": "", "input_schema": {"type": "object", "properties": {}}, "strict": True}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "stop_sequences": ["END"],
    "metadata": {"user_id": "u1"},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "low"},
    "service_tier": "auto",
}
CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "x"},
        {
            "role": "user",
            "name": "a",
            "content": [
                {"type": "text", "text": "x"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,QUJD", "filename": "x"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "x"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    "temperature": 1,
    "stop": ["x"],
    "user": "u",
    "reasoning_effort": "low",
    "max_tokens": 5,
    "n": 1,
    "seed": 1,
    "logprobs": False,
    "parallel_tool_calls": True,
    "metadata": {},
}


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for name, item in inner for place in places(item, (*here, name)))]


def mangled(body: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """The request with up to three places taken out, renamed, or filled with something else."""
    body = copy.deepcopy(body)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        *way, last = chance.choice(places(body)[1:])
        around: Any = body
        for name in way:
            around = around[name]
        change = chance.random()
        if change < 0.25:
            del around[last]
        elif change < 0.4 and isinstance(around, dict):
            around[f"{last}x"] = around.pop(last)
        else:
            around[last] = copy.deepcopy(chance.choice(JUNK))
        if not body:
            break
    return body


def status_of(act: Callable[[], object]) -> int:
    """The status of the error that this raises, or 200. What is no error of ours is an accident, and goes on."""
    try:
        act()
    except NexusError as error:
        return error.status
    return 200


GEMINI: dict[str, Any] = {
    "systemInstruction": {"parts": [{"text": "x"}]},
    "contents": [
        {
            "role": "user",
            "parts": [
                {"text": "x"},
                {"inlineData": {"mimeType": "image/png", "data": "QUJD"}, "mediaResolution": {"level": "x"}},
            ],
        },
        {
            "role": "model",
            "parts": [
                {"text": "hm", "thought": True, "thoughtSignature": "c2VhbA=="},
                {"functionCall": {"id": "c", "name": "f", "args": {"a": 1}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {
                    "functionResponse": {
                        "id": "c",
                        "name": "f",
                        "response": {"output": "x"},
                        "parts": [{"inlineData": {"mimeType": "image/png", "data": "QUJD"}}],
                    }
                }
            ],
        },
    ],
    "tools": [
        {
            "functionDeclarations": [
                {
                    "name": "f",
                    "description": "d",
                    "parameters": {"type": "OBJECT", "properties": {"a": {"enum": ["x"]}}},
                }
            ]
        }
    ],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}, "retrievalConfig": {}},
    "safetySettings": [{"category": "x", "threshold": "OFF"}],
    "generationConfig": {
        "temperature": 0.5,
        "stopSequences": ["END"],
        "responseMimeType": "application/json",
        "responseSchema": {"type": "OBJECT", "nullable": True},
        "responseModalities": ["TEXT"],
        "thinkingConfig": {"thinkingBudget": 1024, "includeThoughts": True},
        "maxOutputTokens": 100,
    },
}
ASKED = [
    (messages, MESSAGES, messages.path),
    (chat, CHAT, chat.path),
    (gemini, GEMINI, f"{gemini.path}/m:generateContent"),
]


@pytest.mark.parametrize(("dialect", "whole", "path"), ASKED, ids=["messages", "chat", "gemini"])
def test_a_mangled_request_is_never_an_accident(dialect: Dialect, whole: dict[str, Any], path: str) -> None:
    chance = random.Random(41)
    others = [PROVIDERS.get(kind) for kind in installed_kinds() if PROVIDERS.get(kind).dialect != dialect.name]
    counts: Counter[str] = Counter()
    for _ in range(1200):
        body = json.dumps(mangled(whole, chance)).encode()
        door = status_of(lambda body=body: dialect.parse(body, path=path))  # type: ignore[misc]
        counts[f"at the door {door}"] += 1
        if door != 200:
            continue
        call = dialect.parse(body, path=path)
        for provider in others:
            written = status_of(lambda provider=provider, call=call: provider.chat(AT, "a-model", call))  # type: ignore[misc]
            counts[f"in translation {written}"] += 1
    print(dict(counts))
    assert set(counts) == {"at the door 200", "at the door 400", "in translation 200", "in translation 400"}
    assert counts["in translation 200"] > 300


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": 3}}]}]}, "image_url.url"),
    ({"messages": [{"role": "assistant", "tool_calls": [3]}]}, "messages.0.tool_calls.0"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": "f"}]}]}, "messages.0.tool_calls.0.function"),
    ({"messages": [{"role": "tool", "content": "x", "tool_call_id": 3}]}, "messages.0.tool_call_id"),
    ({"tools": [{"type": "function", "function": {"name": []}}]}, "tools.0.function.name"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": 3}}]}, "tools.0.function.parameters"),
    ({"tool_choice": 3}, "tool_choice"),
    ({"response_format": {"type": "json_schema", "json_schema": "x"}}, "response_format.json_schema"),
    ({"user": 3}, "user"),
    ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
]


@pytest.mark.parametrize(("change", "field"), WRONG)
def test_what_translation_relies_on_is_named(change: dict[str, Any], field: str) -> None:
    call = chat.parse(json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]} | change).encode())
    with pytest.raises(NexusError) as refused:
        call.parse()
    assert refused.value.status == 400
    assert (refused.value.field or "").endswith(field)
