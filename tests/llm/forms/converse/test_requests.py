"""The Converse form: what is written for whom, what is refused, and how answers are read."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from nexus.llm.errors import InvalidRequest, Unsupported, WrongType
from nexus.llm.forms.chat import requests as chat_requests
from nexus.llm.forms.converse.answers import EventReader, read_completion, read_usage
from nexus.llm.forms.converse.families import families, family_of, plain_name
from nexus.llm.forms.converse.requests import ANSWER, tool_id, write_count, write_request
from nexus.llm.types import (
    ChatRequest,
    Chunk,
    Foreign,
    Media,
    Message,
    Reasoning,
    Refusal,
    ResponseFormat,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
OLD = "anthropic.claude-3-7-sonnet-20250219-v1:0"
NOVA = "us.amazon.nova-lite-v1:0"
HELLO = Message(role="user", parts=(Text(text="hello"),))
CALL = Message(role="assistant", parts=(ToolCall(id="t1", name="look", arguments='{"a": 1}'),))
RESULT = ToolResult(id="t1", content=(Text(text="found"),))
TOOL = Tool(name="look", parameters={"type": "object", "properties": {}})
PDF = Media(kind="document", media_type="application/pdf", data="JVBERi0=", name="my report_v1.2 (final).pdf")
PNG = Media(kind="image", media_type="image/png", data="iVBORw0KGgo=")


def written(model: str = SONNET, *messages: Message, **more: Any) -> dict[str, Any]:
    asked = ChatRequest(model=model, messages=messages or (HELLO,), **more)
    return write_request(asked, model, family_of(model))


def said(*parts: Any, role: Any = "user") -> Message:
    return Message(role=role, parts=parts)


def content(*messages: Message, model: str = SONNET, **more: Any) -> list[tuple[str, list[dict[str, Any]]]]:
    return [(turn["role"], turn["content"]) for turn in written(model, *messages, **more)["messages"]]


def test_the_simplest_request() -> None:
    assert written() == {"messages": [{"role": "user", "content": [{"text": "hello"}]}]}


def test_common_parameters() -> None:
    body = written(NOVA, max_tokens=5, temperature=0.5, top_p=0.25, stop=("a", "b"), user="me", presence_penalty=0.0)
    assert body["inferenceConfig"] == {"maxTokens": 5, "temperature": 0.5, "topP": 0.25, "stopSequences": ["a", "b"]}
    assert written(temperature=1.5, top_p=1.0)["inferenceConfig"] == {"temperature": 1}
    assert written(NOVA, temperature=0.5, top_p=1.0)["inferenceConfig"] == {"temperature": 0.5, "topP": 1.0}
    assert written(stop=("a",))["additionalModelResponseFieldPaths"] == ["/stop_sequence"]


@pytest.mark.parametrize(
    ("field", "refused", "taken"), [("temperature", 0.5, 1.0), ("top_p", 0.5, 0.95), ("top_k", 3, None)]
)
def test_a_claude_that_thinks_takes_no_other_sampling(field: str, refused: float, taken: float | None) -> None:
    thinks = Reasoning(budget_tokens=2000)
    with pytest.raises(Unsupported) as caught:
        written(OLD, reasoning=thinks, **{field: refused})
    assert caught.value.field == field
    body = written(OLD, reasoning=thinks, **{field: taken})
    assert list(body["additionalModelRequestFields"]) == ["thinking"]
    assert list(body.get("inferenceConfig", {}).values()) == [taken] * (taken is not None)


@pytest.mark.parametrize(
    ("model", "asked", "fields"),
    [
        (SONNET, {"top_k": 5}, {"top_k": 5}),
        (NOVA, {"top_k": 5}, {"inferenceConfig": {"topK": 5}}),
        ("cohere.command-r-v1:0", {"top_k": 5, "seed": 3, "frequency_penalty": 0.5},
         {"k": 5, "seed": 3, "frequency_penalty": 0.5}),
        ("mistral.mistral-7b-instruct-v0:2", {"top_k": 5}, {"top_k": 5}),
        (OLD, {"reasoning": Reasoning(budget_tokens=2000)}, {"thinking": {"type": "enabled", "budget_tokens": 2000}}),
        (OLD, {"reasoning": Reasoning(effort="none")}, None),
        (NOVA, {"reasoning": Reasoning(budget_tokens=2000, effort="low")}, None),
        ("us.amazon.nova-2-lite-v1:0", {"reasoning": Reasoning(effort="medium")},
         {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "medium"}}),
        ("openai.gpt-oss-120b-1:0", {"reasoning": Reasoning(effort="minimal")}, {"reasoning_effort": "low"}),
        ("openai.gpt-oss-120b-1:0", {"reasoning": Reasoning(budget_tokens=20_000)}, {"reasoning_effort": "high"}),
        ("openai.gpt-oss-120b-1:0", {"reasoning": Reasoning(effort="none")}, None),
        ("qwen.qwen3-32b-v1:0", {"reasoning": Reasoning(effort="medium")}, {"reasoning_config": "high"}),
        ("us.anthropic.claude-opus-4-6-v1", {"reasoning": Reasoning(effort="high")},
         {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
        (NOVA, {"top_k": 5, "extra": {"additionalModelRequestFields": {"inferenceConfig": {"x": 1}, "y": 2}}},
         {"inferenceConfig": {"topK": 5, "x": 1}, "y": 2}),
    ],
)  # fmt: skip
def test_the_models_own_fields(model: str, asked: dict[str, Any], fields: dict[str, Any] | None) -> None:
    assert written(model, **asked).get("additionalModelRequestFields") == fields


@pytest.mark.parametrize(
    ("model", "asked", "field"),
    [
        (NOVA, {"seed": 1}, "seed"),
        (SONNET, {"presence_penalty": 0.5}, "presence_penalty"),
        ("meta.llama3-8b-instruct-v1:0", {"top_k": 1}, "top_k"),
        ("meta.llama3-8b-instruct-v1:0", {"reasoning": Reasoning(effort="low")}, "reasoning"),
        (SONNET, {"extra": {"logit_bias": {"1": 2}}, "dialect": "openai.chat"}, "logit_bias"),
        (SONNET, {"extra": {"guardrailConfig": "g"}}, "guardrailConfig"),
        (SONNET, {"extra": {"additionalModelResponseFieldPaths": {}}}, "additionalModelResponseFieldPaths"),
        (SONNET, {"tools": (Tool(name="web_search", value={"type": "web_search"}),)}, "tools.0"),
        (SONNET, {"tools": (TOOL, Tool(name="a.b"))}, "tools.1"),
        (NOVA, {"tools": (TOOL,), "tool_choice": ToolChoice(parallel=False)}, "parallel_tool_calls"),
        (NOVA, {"tools": (TOOL,), "tool_choice": ToolChoice(mode="none"), "messages": (HELLO, CALL, said(RESULT))},
         "tool_choice"),
        (SONNET, {"messages": (said(Media(kind="image", url="https://x/y.png")),)}, "messages.0.content.0"),
        (SONNET, {"messages": (HELLO, said(Text(text="x"), Media(kind="image", media_type="image/tiff", data="x")))},
         "messages.1.content.1"),
        (SONNET, {"messages": (said(Media(kind="document", media_type="application/zip", data="x")),)},
         "messages.0.content.0"),
        (SONNET, {"messages": (said(Media(kind="document", file_id="file-1")),)}, "messages.0.content.0"),
        (SONNET, {"messages": (said(Media(kind="image", media_type="image/png")),)}, "messages.0.content.0"),
        (SONNET, {"messages": (said(PNG, role="system"), HELLO)}, "messages.0.content.0"),
        (SONNET, {"messages": (said(Foreign(dialect="openai.chat", value={"type": "x"})),)}, "messages.0.content.0"),
        (SONNET, {"messages": (HELLO, said(ToolCall(id="a", name="b", arguments="[1]"), role="assistant"))},
         "messages.1.content.0"),
        (SONNET, {"messages": (HELLO, said(ToolCall(id="a", name="b", arguments="{"), role="assistant"))},
         "messages.1.content.0"),
        (SONNET, {"messages": (said(ToolCall(id="a", name="b", arguments="x", kind="custom"), role="assistant"),)},
         "messages.0.content.0"),
        (SONNET, {"messages": (HELLO, CALL, said(ToolResult(id="t1", content=(Media(kind="audio", data="x"),))))},
         "messages.2.content.0"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused_by_name(model: str, asked: dict[str, Any], field: str) -> None:
    request = ChatRequest(model=model, **({"messages": (HELLO,)} | asked))
    with pytest.raises((InvalidRequest, Unsupported, WrongType)) as caught:
        write_request(request, model, family_of(model))
    assert caught.value.field == field
    assert caught.value.status == 400
    assert field.partition(".")[0] in caught.value.message


def test_the_field_is_named_as_the_client_names_it() -> None:
    request = ChatRequest(model="x", messages=(HELLO,), reasoning=Reasoning(effort="low"))
    with pytest.raises(Unsupported) as caught:
        write_request(request, "meta.llama3", family_of("meta.llama3"), fields={"reasoning": "reasoning_effort"})
    assert caught.value.field == "reasoning_effort"


def test_system_messages_stand_apart_with_their_cache_points() -> None:
    body = written(
        SONNET,
        said(Text(text="a", cache="5m"), role="system"),
        HELLO,
        said(Text(text="b", cache="1h"), role="developer"),
        said(Text(text="  "), role="system"),
    )
    assert body["system"] == [
        {"text": "a"},
        {"cachePoint": {"type": "default"}},
        {"text": "b"},
        {"cachePoint": {"type": "default", "ttl": "1h"}},
    ]
    assert body["messages"] == [{"role": "user", "content": [{"text": "hello"}]}]


def test_cache_points_never_follow_documents_and_stand_only_where_they_are_taken() -> None:
    marked = said(Text(text="a"), Media(kind="document", media_type="text/plain", data="eA==", name="n", cache="5m"))
    blocks = content(marked)[0][1]
    assert [next(iter(block)) for block in blocks] == ["text", "document", "text", "cachePoint"]
    assert blocks[2] == {"text": "\n"}
    nova = content(marked, model=NOVA)[0][1]
    assert [next(iter(block)) for block in nova] == ["text", "cachePoint", "document"]
    assert "cachePoint" not in json.dumps(content(marked, model="meta.llama3-8b-instruct-v1:0"))
    alone = said(Media(kind="document", media_type="text/plain", data="eA==", cache="5m"), Text(text="x"))
    assert [next(iter(block)) for block in content(alone, model=NOVA)[0][1]] == ["document", "text"]
    tools = (Tool(name="look", cache="1h"),)
    assert written(tools=tools)["toolConfig"]["tools"][1] == {"cachePoint": {"type": "default", "ttl": "1h"}}
    assert len(written(NOVA, tools=tools)["toolConfig"]["tools"]) == 1


def test_turns_alternate_and_blank_words_are_left_out() -> None:
    assert content(HELLO, said(Text(text=" \n")), said(Text(text="more"))) == [
        ("user", [{"text": "hello"}, {"text": "more"}])
    ]
    assert content(said(Text(text="first"), role="assistant"), HELLO, model=NOVA)[0] == ("user", [{"text": "."}])
    assert content(said(Text(text="first"), role="assistant"), HELLO)[0][0] == "assistant"
    assert content(said(Text(text="only a system"), role="system")) == [("user", [{"text": "."}])]
    assert content(HELLO, said(Text(text=""), role="assistant"), HELLO) == [("user", [{"text": "hello"}] * 2)]
    assert content(HELLO, said(Refusal(text="no"), role="assistant"))[1] == ("assistant", [{"text": "no"}])


def test_documents_have_fit_names_and_words_beside_them() -> None:
    blocks = content(said(PDF), said(PDF), said(Media(kind="document", media_type="text/csv", data="eA==")))[0][1]
    names = [block["document"]["name"] for block in blocks if "document" in block]
    assert names == ["my report-v1-2 (final)", "my report-v1-2 (final) (2)", "Document 1"]
    assert [block["document"]["format"] for block in blocks if "document" in block] == ["pdf", "pdf", "csv"]
    assert blocks[-1] == {"text": "."}
    assert len(content(said(PDF, Text(text="read")))[0][1]) == 2


S3 = {"s3Location": {"uri": "s3://b/c"}}


@pytest.mark.parametrize(
    ("kind", "given", "form", "source"),
    [
        ("image", {"media_type": "image/png", "data": "iVBO"}, "png", {"bytes": "iVBO"}),
        ("image", {"media_type": "image/jpg", "data": "/9j/"}, "jpeg", {"bytes": "/9j/"}),
        ("image", {"data": "R0lGODdh"}, "gif", {"bytes": "R0lGODdh"}),
        ("image", {"media_type": "image/*", "data": "UklGRh"}, "webp", {"bytes": "UklGRh"}),
        ("image", {"media_type": "image/png", "url": "s3://b/c"}, "png", S3),
        ("image", {"url": "s3://b/a/c.JPEG?bucketOwner=123456789012"}, "jpeg",
         {"s3Location": {"uri": "s3://b/a/c.JPEG", "bucketOwner": "123456789012"}}),
        ("video", {"media_type": "video/mp4", "data": "AA=="}, "mp4", {"bytes": "AA=="}),
        ("video", {"url": "s3://b/c.3gp"}, "three_gp", {"s3Location": {"uri": "s3://b/c.3gp"}}),
        ("audio", {"media_type": "audio/x-wav", "data": "AA=="}, "wav", {"bytes": "AA=="}),
        ("document", {"media_type": "text/plain; charset=utf-8", "file_id": "s3://b/c"}, "txt", S3),
        ("document", {"file_id": "s3://b/c.docx"}, "docx", {"s3Location": {"uri": "s3://b/c.docx"}}),
        ("document", {"media_type": "application/octet-stream", "data": "AA==", "name": "x.md"}, "md",
         {"bytes": "AA=="}),
    ],
)  # fmt: skip
def test_media(kind: Any, given: dict[str, Any], form: str, source: dict[str, Any]) -> None:
    block = content(said(Text(text="x"), Media(kind=kind, **given)))[0][1][1][kind]
    assert (block["format"], block["source"]) == (form, source)


def test_thoughts_come_back_to_claude_sealed_and_to_no_other() -> None:
    thoughts = said(
        Thinking(text="hm", signature="sig"),
        Thinking(text="unsealed"),
        Thinking(redacted="EvABCkgI"),
        Text(text="so"),
        role="assistant",
    )
    blocks = content(HELLO, thoughts)[1][1]
    sealed = base64.b64encode(b"EvABCkgI").decode()
    assert blocks == [
        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "sig"}}},
        {"reasoningContent": {"redactedContent": sealed}},
        {"text": "so"},
    ]
    assert content(HELLO, thoughts, model=NOVA)[1][1] == [{"text": "so"}]
    back = read_completion(
        {"output": {"message": {"content": blocks}}, "stopReason": "end_turn"}, name="", model=""
    ).choices[0]
    assert back.message.parts == (Thinking(text="hm", signature="sig"), Thinking(redacted="EvABCkgI"), Text(text="so"))


def test_results_of_tools() -> None:
    failed = ToolResult(id="t2", content=(), is_error=True)
    blocks = content(HELLO, CALL, said(RESULT, role="tool"), said(failed, role="tool"))[2][1]
    assert blocks == [
        {"toolResult": {"toolUseId": "t1", "content": [{"text": "found"}]}},
        {"toolResult": {"toolUseId": "t2", "content": [{"text": "(no output)"}], "status": "error"}},
    ]
    writer = content(HELLO, CALL, said(failed), model="writer.palmyra-x5-v1:0")
    assert "status" not in writer[2][1][0]["toolResult"]
    shown = content(HELLO, CALL, said(ToolResult(id="t1", content=(PNG, PDF))))[2][1][0]["toolResult"]["content"]
    assert [next(iter(item)) for item in shown] == ["image", "document"]


def test_what_may_not_stand_beside_a_result_has_a_turn_of_its_own() -> None:
    turns = content(HELLO, CALL, said(RESULT), said(Text(text="and this?"), PDF))
    assert [role for role, _ in turns] == ["user", "assistant", "user", "assistant", "user"]
    assert turns[3][1] == [{"text": "."}]
    assert [next(iter(block)) for block in turns[4][1]] == ["text", "document"]
    assert len(content(HELLO, CALL, said(RESULT), said(Text(text="and?")))) == 3
    assert len(content(HELLO, CALL, said(RESULT), said(Text(text="and?")), model="meta.llama3-8b-instruct-v1:0")) == 5


@pytest.mark.parametrize(
    ("choice", "model", "config", "fields"),
    [
        (None, SONNET, {}, None),
        (ToolChoice(), SONNET, {}, None),
        (ToolChoice(mode="required"), SONNET, {"any": {}}, None),
        (ToolChoice(mode="tool", name="look"), NOVA, {"tool": {"name": "look"}}, None),
        (ToolChoice(parallel=True), NOVA, {}, None),
        (ToolChoice(parallel=False), SONNET, {},
         {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}),
        (ToolChoice(mode="tool", name="look", parallel=False), SONNET, {},
         {"tool_choice": {"type": "tool", "name": "look", "disable_parallel_tool_use": True}}),
        (ToolChoice(mode="required", parallel=False), SONNET, {},
         {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}}),
    ],
)  # fmt: skip
def test_choices_of_tools(choice: ToolChoice | None, model: str, config: dict[str, Any], fields: Any) -> None:
    body = written(model, tools=(TOOL,), tool_choice=choice)
    assert body["toolConfig"].get("toolChoice", {}) == config
    assert body.get("additionalModelRequestFields") == fields


def test_no_tools_and_tools_of_the_past() -> None:
    assert "toolConfig" not in written(NOVA, tools=(TOOL,), tool_choice=ToolChoice(mode="none"))
    body = written(SONNET, HELLO, CALL, said(RESULT), tools=(TOOL,), tool_choice=ToolChoice(mode="none"))
    assert body["additionalModelRequestFields"] == {"tool_choice": {"type": "none"}}
    assert body["toolConfig"]["tools"][0]["toolSpec"]["name"] == "look"
    assert [tool["toolSpec"]["name"] for tool in written(NOVA, HELLO, CALL, said(RESULT))["toolConfig"]["tools"]] == [
        "look"
    ]


def test_specifications_of_tools() -> None:
    given = (Tool(name="a", description=" ", strict=True), Tool(name="", value={"systemTool": {"name": "nova_code"}}))
    closed = {"type": "object", "properties": {}, "additionalProperties": False}
    assert written(SONNET, tools=given)["toolConfig"]["tools"] == [
        {"toolSpec": {"name": "a", "inputSchema": {"json": closed}, "strict": True}},
        {"systemTool": {"name": "nova_code"}},
    ]
    assert "strict" not in written(NOVA, tools=given)["toolConfig"]["tools"][0]["toolSpec"]


def test_ids_are_fit_and_the_same_for_call_and_result() -> None:
    assert tool_id("functions.get_temperature:0") == "functions.get_temperature:0"
    odd = "call_1-sealed-" + "x" * 400
    call = said(ToolCall(id=odd, name="look", arguments=""), role="assistant")
    turns = content(HELLO, call, said(ToolResult(id=odd, content=(Text(text="x"),))))
    used = turns[1][1][0]["toolUse"]
    assert used["toolUseId"] == turns[2][1][0]["toolResult"]["toolUseId"]
    assert len(used["toolUseId"]) <= 64
    assert used["input"] == {}


SCHEMA = {"type": "object", "properties": {"a": {"type": "object", "properties": {}}, "type": {"type": "string"}}}
FORM = ResponseFormat(kind="json_schema", name="n", description="d", schema=SCHEMA)


def test_a_schema_is_native_where_the_model_has_it() -> None:
    body = written(SONNET, response_format=FORM, tools=(TOOL,))
    told = body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert (told["name"], told["description"]) == ("n", "d")
    schema = json.loads(told["schema"])
    assert schema["additionalProperties"] is False
    assert schema["properties"]["a"]["additionalProperties"] is False
    assert schema["properties"]["type"] == {"type": "string"}
    assert "toolChoice" not in body["toolConfig"]


@pytest.mark.parametrize(
    ("more", "choice", "names"),
    [
        ({}, {"tool": {"name": ANSWER}}, [ANSWER]),
        ({"tools": (TOOL,)}, {"any": {}}, ["look", ANSWER]),
        ({"tools": (TOOL,), "tool_choice": ToolChoice(mode="none")}, {"tool": {"name": ANSWER}}, [ANSWER]),
        ({"tools": (TOOL,), "tool_choice": ToolChoice(mode="required")}, {"any": {}}, ["look"]),
        ({"tools": (TOOL,), "tool_choice": ToolChoice(mode="tool", name="look")}, {"tool": {"name": "look"}}, ["look"]),
    ],
)
def test_else_a_forced_tool_stands_in(more: dict[str, Any], choice: dict[str, Any], names: list[str]) -> None:
    body = written(NOVA, response_format=FORM, **more)
    assert "outputConfig" not in body
    config = body["toolConfig"]
    assert config["toolChoice"] == choice
    assert [tool["toolSpec"]["name"] for tool in config["tools"]] == names


def test_a_count_takes_what_counts() -> None:
    body = written(SONNET, said(Text(text="s"), role="system"), HELLO, tools=(TOOL,), max_tokens=3)
    assert set(write_count(body)["input"]["converse"]) == {"messages", "system", "toolConfig"}


def test_an_openai_clients_own_words_reach_it() -> None:
    guard = {"guardrailIdentifier": "g", "guardrailVersion": "1"}
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "guardrailConfig": guard,
        "serviceTier": {"type": "flex"},
        "store": True,
    }
    request = chat_requests.read_request(body)
    assert write_request(request, NOVA, family_of(NOVA)) == {
        "messages": [{"role": "user", "content": [{"text": "hi"}]}],
        "guardrailConfig": guard,
        "serviceTier": {"type": "flex"},
    }


def test_families() -> None:
    assert len(families()) >= 14
    profile = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/eu.anthropic.claude-opus-4-6-v1"
    assert plain_name(profile) == "anthropic.claude-opus-4-6-v1"
    assert family_of(profile).reasoning == "claude"
    unknown = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
    assert family_of(unknown).reasoning == "none"
    assert family_of(unknown, "anthropic").reasoning == "claude"
    assert family_of("us-gov.anthropic.claude-3-haiku-20240307-v1:0").reasoning == "claude"


# Answers.


def completion(*blocks: dict[str, Any], stop: str = "end_turn", **more: Any) -> Any:
    body = {"output": {"message": {"role": "assistant", "content": list(blocks)}}, "stopReason": stop} | more
    return read_completion(body, name="id", model="m").choices[0]


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"), ("tool_use", "tool_calls"),
        ("model_context_window_exceeded", "length"), ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"), ("malformed_model_output", "failed"), ("malformed_tool_use", "failed"),
        ("something_new", "other"),
    ],
)  # fmt: skip
def test_stop_reasons(native: str, reason: str) -> None:
    choice = completion({"text": "x"}, stop=native, additionalModelResponseFields={"stop_sequence": "END"})
    assert (choice.finish_reason, choice.native_finish_reason) == (reason, native)
    assert choice.extra == {"stop_sequence": "END"}
    chunk = EventReader().read("messageStop", {"stopReason": native})[0]
    assert (chunk.finish_reason, chunk.native_finish_reason) == (reason, native)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"inputTokens": 3, "outputTokens": 4}, (3, 4, 0, 0, 0)),
        ({"inputTokens": 3, "outputTokens": 4, "cacheReadInputTokens": 10, "cacheWriteInputTokens": 20,
          "cacheDetails": [{"ttl": "1h", "inputTokens": 15}, {"ttl": "5m", "inputTokens": 5}]}, (33, 4, 10, 20, 15)),
        ({"inputTokens": 3, "outputTokens": 4, "cacheReadInputTokenCount": 10}, (13, 4, 10, 0, 0)),
        ({"inputTokens": -3, "outputTokens": "many"}, None),
        ({}, None),
        (None, None),
    ],
)  # fmt: skip
def test_usage(usage: Any, expected: tuple[int, ...] | None) -> None:
    found = read_usage(usage)
    told = found and (
        found.input_tokens,
        found.output_tokens,
        found.cache_read_tokens,
        found.cache_write_tokens,
        found.cache_write_1h_tokens,
    )
    assert told == expected


def test_blocks_of_every_kind() -> None:
    server = {"toolUse": {"toolUseId": "s", "name": "nova_code_interpreter", "input": {}, "type": "server_tool_use"}}
    cited = {"citationsContent": {"content": [{"text": "It "}, {"text": "is."}], "citations": [{"title": "t"}]}}
    parts = completion(
        {"text": ""},
        {"text": "a"},
        server,
        cited,
        {"image": {"format": "png", "source": {"bytes": "AA=="}}},
        {"toolUse": {"toolUseId": "t", "name": "look", "input": {"a": [1]}}},
        {"reasoningContent": {"reasoningText": {"text": "hm"}}},
        stop="tool_use",
    ).message.parts
    assert parts == (
        Text(text="a"),
        Foreign(dialect="aws.converse", value=server),
        Text(text="It is."),
        Foreign(dialect="aws.converse", value=cited),
        Media(kind="image", media_type="image/png", data="AA=="),
        ToolCall(id="t", name="look", arguments='{"a":[1]}'),
        Thinking(text="hm"),
    )
    assert content(HELLO, said(*parts, role="assistant"))[1][1][1] == server


def test_an_answer_by_tool_is_the_text() -> None:
    answer = {"toolUse": {"toolUseId": "t", "name": ANSWER, "input": {"a": 1}}}
    choice = completion({"text": "Here it is:"}, answer, stop="tool_use")
    assert choice.message.parts == (Text(text='{"a":1}'),)
    assert (choice.finish_reason, choice.native_finish_reason) == ("stop", "end_turn")
    both = completion(answer, {"toolUse": {"toolUseId": "u", "name": "look", "input": {}}}, stop="tool_use")
    assert both.finish_reason == "tool_calls"


def played(*events: tuple[str, dict[str, Any]], structured: bool = False) -> list[Chunk]:
    reader = EventReader(structured=structured)
    return [chunk for kind, data in events for chunk in reader.read(kind, data)]


def start(index: int, name: str, **more: Any) -> tuple[str, dict[str, Any]]:
    use = {"toolUseId": f"id{index}", "name": name} | more
    return "contentBlockStart", {"contentBlockIndex": index, "start": {"toolUse": use}}


def delta(index: int, **what: Any) -> tuple[str, dict[str, Any]]:
    return "contentBlockDelta", {"contentBlockIndex": index, "delta": what}


def stop(index: int) -> tuple[str, dict[str, Any]]:
    return "contentBlockStop", {"contentBlockIndex": index}


def test_a_stream_of_parallel_calls() -> None:
    chunks = played(
        ("messageStart", {"role": "assistant"}),
        delta(0, text=""),
        delta(0, text="so"),
        stop(0),
        start(1, "look"),
        delta(1, toolUse={"input": '{"a"'}),
        delta(1, toolUse={"input": ": 1}"}),
        stop(1),
        start(2, "wait"),
        delta(2, toolUse={"input": ""}),
        stop(2),
        ("messageStop", {"stopReason": "tool_use"}),
        ("metadata", {"usage": {"inputTokens": 1, "outputTokens": 2}}),
        ("newEvent", {}),
    )
    assert chunks[0].role == "assistant"
    assert [chunk.role for chunk in chunks[1:]] == [None] * (len(chunks) - 1)
    told = [(tool.position, tool.id, tool.name, tool.arguments) for chunk in chunks if (tool := chunk.tool)]
    assert told == [
        (0, "id1", "look", ""),
        (0, None, None, '{"a"'),
        (0, None, None, ": 1}"),
        (1, "id2", "wait", ""),
        (1, None, None, "{}"),
    ]
    assert chunks[-2].finish_reason == "tool_calls"
    assert chunks[-1].usage is not None


def test_thoughts_seals_pictures_and_the_providers_own_tools_in_a_stream() -> None:
    sealed = [base64.b64encode(piece).decode() for piece in (b"Ev", b"AB")]
    chunks = played(
        delta(0, reasoningContent={"text": "hm"}),
        delta(0, reasoningContent={"signature": "sig"}),
        stop(0),
        *(delta(1, reasoningContent={"redactedContent": piece}) for piece in sealed),
        stop(1),
        ("contentBlockStart", {"contentBlockIndex": 2, "start": {"image": {"format": "png"}}}),
        delta(2, image={"source": {"bytes": base64.b64encode(b"abcd").decode()}}),
        delta(2, image={"source": {"bytes": base64.b64encode(b"e").decode()}}),
        stop(2),
        start(3, "nova_code_interpreter", type="server_tool_use"),
        delta(3, toolUse={"input": '{"x": 1}'}),
        stop(3),
        ("contentBlockStart", {"contentBlockIndex": 4, "start": {"toolResult": {"toolUseId": "id3"}}}),
        delta(4, toolResult=[{"json": {"y": 2}}]),
        stop(4),
        delta(5, citation={"title": "t"}),
        ("messageStop", {"stopReason": "end_turn"}),
    )
    assert (chunks[0].thinking, chunks[1].signature) == ("hm", "sig")
    use = {"toolUseId": "id3", "name": "nova_code_interpreter", "type": "server_tool_use", "input": {"x": 1}}
    assert [chunk.part for chunk in chunks if chunk.part] == [
        Thinking(redacted="EvAB"),
        Media(kind="image", media_type="image/png", data=base64.b64encode(b"abcde").decode()),
        Foreign(dialect="aws.converse", value={"toolUse": use}),
        Foreign(dialect="aws.converse", value={"toolResult": {"toolUseId": "id3", "content": [{"json": {"y": 2}}]}}),
        Foreign(dialect="aws.converse", value={"citation": {"title": "t"}}),
    ]
    assert not [chunk for chunk in chunks if chunk.tool]


def test_a_streamed_answer_by_tool_is_the_text_alone() -> None:
    chunks = played(
        delta(0, text="Here it is:"),
        stop(0),
        start(1, ANSWER),
        delta(1, toolUse={"input": '{"a"'}),
        delta(1, toolUse={"input": ":1}"}),
        stop(1),
        ("messageStop", {"stopReason": "tool_use"}),
        structured=True,
    )
    assert "".join(chunk.text or "" for chunk in chunks) == '{"a":1}'
    assert (chunks[-1].finish_reason, chunks[-1].native_finish_reason) == ("stop", "end_turn")
    refused = played(
        delta(0, text="I can"), delta(0, text="not."), ("messageStop", {"stopReason": "end_turn"}), structured=True
    )
    assert "".join(chunk.text or "" for chunk in refused) == "I cannot."


def test_what_never_was_closed_is_closed_at_the_end() -> None:
    chunks = played(start(0, "look"), ("messageStop", {"stopReason": "tool_use"}))
    assert [chunk.tool.arguments for chunk in chunks if chunk.tool] == ["", "{}"]
