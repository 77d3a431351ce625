"""Cache marks of every form in the words of the others."""

from __future__ import annotations

from typing import Any

import pytest
from tests.llm.forms.test_unsaid import at, sent, sent_items

from nexus.llm.forms.cache_marks import kept_for, read_mark, write_mark, write_own_mark


@pytest.mark.parametrize(
    ("marked", "mark", "elsewhere"),
    [
        ({}, None, {}),
        ({"cache_control": None}, None, {}),
        ({"cache_control": {"type": "ephemeral"}}, "5m", {"cache_control": {"type": "ephemeral"}}),
        (
            {"cache_control": {"type": "ephemeral", "ttl": "1h"}},
            "1h",
            {"cache_control": {"type": "ephemeral", "ttl": "1h"}},
        ),
        (
            {"prompt_cache_breakpoint": {"mode": "explicit"}},
            "30m",
            {"cache_control": {"type": "ephemeral", "ttl": "1h"}},
        ),
        (
            {"prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}},
            "12h",
            {"cache_control": {"type": "ephemeral", "ttl": "1h"}},
        ),
    ],
)
def test_a_mark_is_read_and_written(marked: dict[str, Any], mark: str | None, elsewhere: dict[str, Any]) -> None:
    assert read_mark(marked) == mark
    assert write_mark(mark) == elsewhere
    assert write_own_mark(mark) == {name: value for name, value in marked.items() if value}
    assert mark is None or kept_for(mark) in ("5m", "1h")


BREAK = {"prompt_cache_breakpoint": {"mode": "explicit"}}
MARKED = [{"role": "user", "content": [{"type": "text", "text": "hi"} | BREAK]}]


@pytest.mark.parametrize(
    ("provider", "model", "place", "expected"),
    [
        ("anthropic", "", "messages.0.content.0.cache_control", {"type": "ephemeral", "ttl": "1h"}),
        ("bedrock", "", "messages.0.content.1.cachePoint", {"type": "default", "ttl": "1h"}),
        ("openai_responses", "gpt-5.6", "input.0.content.0.prompt_cache_breakpoint", {"mode": "explicit"}),
        ("openai_responses", "gpt-5.2", "input.0.content.0", {"type": "input_text", "text": "hi"}),
    ],
)
def test_a_breakpoint_is_a_mark_where_there_are_such(provider: str, model: str, place: str, expected: Any) -> None:
    assert at(sent(provider, model, messages=MARKED), place) == expected


@pytest.mark.parametrize(("model", "marks"), [("gpt-6-sol", 2), ("llama-3", 0)])
def test_breakpoints_of_items_reach_the_chats_of_models_that_know_them(model: str, marks: int) -> None:
    output = [{"type": "input_text", "text": "42"} | BREAK]
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"} | BREAK]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": output},
    ]
    told = sent_items("openai", items, model)["messages"]
    parts = [part for said in told if isinstance(said["content"], list) for part in said["content"]]
    assert [part.get("prompt_cache_breakpoint") for part in parts] == [{"mode": "explicit"}] * marks
