"""What real models behind Bedrock refuse, as their own errors say it, and what they are told instead."""

from __future__ import annotations

from typing import Any

import pytest
from tests.llm.forms.converse.test_requests import FORM, HELLO, TOOL, content, delta, played, said, start, stop, written

from nexus.llm.forms.converse.answers import read_completion
from nexus.llm.forms.converse.families import family_of
from nexus.llm.forms.converse.requests import ANSWER, answers_by_tool, tool_id
from nexus.llm.types import ChatRequest, Reasoning, ResponseFormat, Text, Tool, ToolCall, ToolChoice, ToolResult

SONNET_5 = "us.anthropic.claude-sonnet-5"
OPUS_5_5 = "global.anthropic.claude-opus-5-5"
LLAMA = "us.meta.llama4-maverick-17b-instruct-v1:0"
NOVA_2 = "us.amazon.nova-2-lite-v1:0"


@pytest.mark.parametrize("model", [SONNET_5, "us.anthropic.claude-opus-4-8", "us.anthropic.claude-fable-5-1"])
def test_newer_claudes_take_no_schema_here(model: str) -> None:
    """`output_config.format: Extra inputs are not permitted`, and the same of `tools.0.custom.strict`."""
    tool = Tool(name="look", parameters={}, strict=True)
    body = written(model, response_format=FORM, tools=(tool,))
    assert "outputConfig" not in body
    assert "strict" not in body["toolConfig"]["tools"][0]["toolSpec"]


def test_a_forced_tool_may_stand_in_while_a_model_thinks_as_it_likes() -> None:
    body = written(SONNET_5, response_format=FORM, reasoning=Reasoning(effort="high"))
    assert body["toolConfig"]["toolChoice"] == {"tool": {"name": ANSWER}}
    assert body["additionalModelRequestFields"]["thinking"] == {"type": "adaptive"}
    assert "system" not in body


@pytest.mark.parametrize("model", [OPUS_5_5, "us.anthropic.claude-fable-5-1", "anthropic.claude-sonnet-5-5", LLAMA])
def test_json_is_asked_for_in_words_where_no_tool_can_be_forced(model: str) -> None:
    """`tool_choice: type "tool" and "any" are not supported for this model`."""
    for more in ({}, {"tools": (TOOL,)}):
        body = written(model, response_format=FORM, **more)
        assert "toolChoice" not in body.get("toolConfig", {})
        assert '"properties":{"a"' in body["system"][-1]["text"]
    request = ChatRequest(model=model, messages=(HELLO,), response_format=FORM)
    assert not answers_by_tool(request, model, family_of(model))
    plain = written(model, response_format=ResponseFormat(kind="json_object"))
    assert "a single JSON object" in plain["system"][-1]["text"]
    assert "system" not in written(model, response_format=ResponseFormat(kind="text"))
    assert "system" not in written(model, response_format=FORM, tools=(TOOL,), tool_choice=ToolChoice(mode="required"))


@pytest.mark.parametrize(
    ("model", "asked", "fields"),
    [
        ("us.openai.gpt-5.6-sol", {"effort": "high"}, {"reasoning": {"effort": "high"}}),
        ("openai.gpt-5.6-luna", {"effort": "max"}, {"reasoning": {"effort": "xhigh"}}),
        ("openai.gpt-oss-20b-1:0", {"effort": "high"}, {"reasoning_effort": "high"}),
        (OPUS_5_5, {"effort": "none"}, {"output_config": {"effort": "low"}}),
    ],
)
def test_efforts_have_the_name_that_the_model_knows(model: str, asked: dict[str, Any], fields: dict[str, Any]) -> None:
    """`Unknown parameter: 'reasoning_effort'` of GPT-5, where gpt-oss knows no other."""
    assert written(model, reasoning=Reasoning(**asked))["additionalModelRequestFields"] == fields


@pytest.mark.parametrize(
    ("more", "level"),
    [({}, "high"), ({"max_tokens": 50}, "medium"), ({"temperature": 0.5}, "medium"), ({"top_k": 3}, "medium")],
)
def test_the_highest_effort_is_for_those_who_leave_the_rest_to_the_model(more: dict[str, Any], level: str) -> None:
    """`maxTokens` must be unset when reasoningConfig type is 'enabled' and maxReasoningEffort is 'high'."""
    body = written(NOVA_2, reasoning=Reasoning(effort="high"), **more)
    assert body["additionalModelRequestFields"]["reasoningConfig"]["maxReasoningEffort"] == level
    assert (body.get("inferenceConfig") or {}).get("maxTokens") == more.get("max_tokens")


def test_ids_of_calls_are_as_short_as_the_model_wants_them() -> None:
    """`Tool call id was a but must be a-z, A-Z, 0-9, with a length of 9`."""
    ids = ("toolu_01A", "toolu_01B", "aB3dE5gH9")
    calls = said(*(ToolCall(id=one, name="look", arguments="{}") for one in ids), role="assistant")
    results = said(*(ToolResult(id=one, content=(Text(text="x"),)) for one in ids))
    turns = content(HELLO, calls, results, model="us.mistral.pixtral-large-2502-v1:0")
    used = [block["toolUse"]["toolUseId"] for block in turns[1][1]]
    assert used == [block["toolResult"]["toolUseId"] for block in turns[2][1]]
    assert used[2] == ids[2]
    assert len(set(used)) == 3
    assert all(len(one) == 9 and one.isalnum() for one in used)
    assert tool_id(ids[0]) == ids[0]


def test_a_mark_that_ran_into_a_tool_s_name_is_no_part_of_it() -> None:
    named = [
        {"toolUse": {"toolUseId": "t", "name": f"{name}<|channel|>commentary", "input": {"a": 1}}}
        for name in ("look", ANSWER)
    ]
    heads = [{"output": {"message": {"content": [block]}}, "stopReason": "tool_use"} for block in named]
    called, answered = (read_completion(head, name="n", model="m").choices[0] for head in heads)
    assert called.message.parts == (ToolCall(id="t", name="look", arguments='{"a":1}'),)
    assert (answered.message.text, answered.finish_reason) == ('{"a":1}', "stop")
    end = ("messageStop", {"stopReason": "tool_use"})
    streamed = played(start(0, "look<|channel|>json"), delta(0, toolUse={"input": "{}"}), stop(0), end)
    assert streamed[0].tool is not None
    assert streamed[0].tool.name == "look"
    told = played(start(0, f"{ANSWER}<|channel|>json"), delta(0, toolUse={"input": "{}"}), stop(0), end)
    assert "".join(chunk.text or "" for chunk in told) == "{}"
