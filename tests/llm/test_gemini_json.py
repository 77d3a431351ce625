"""Gemini's JSON and our own form, both ways, as pure functions: requests, parts, answers, streams, names."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus.core.errors import InvalidInput, NexusError
from nexus.llm.client import HttpAnswer
from nexus.llm.dialects.gemini import plug as gemini
from nexus.llm.errors import InvalidRequest, Unsupported
from nexus.llm.gemini_answers import (
    AnswerReader,
    AnswerWriter,
    finish_name,
    read_completion,
    read_finish,
    read_usage,
    write_completion,
    write_finish,
    write_usage,
)
from nexus.llm.gemini_json import read_request, write_request
from nexus.llm.gemini_logprobs import read_logprobs, write_logprobs
from nexus.llm.gemini_names import camel, json_schema, plain
from nexus.llm.gemini_parts import read_signature, write_signature
from nexus.llm.gemini_stream import PieceSplitter
from nexus.llm.providers.google import plug as google
from nexus.llm.types import (
    ChatRequest,
    Chunk,
    Foreign,
    Media,
    Message,
    Reasoning,
    ResponseFormat,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolDelta,
    ToolResult,
    Usage,
)

HELLO = [{"role": "user", "parts": [{"text": "hi"}]}]
ASK = (Message(role="user", parts=(Text(text="hi"),)),)
DUMMY = base64.b64encode(b"context_engineering_is_the_way_to_go").decode()


def asked(model: str = "gemini-2.5-flash", **fields: Any) -> dict[str, Any]:
    """Write a request of ours."""
    return write_request(ChatRequest(**({"dialect": "other", "model": "x", "messages": ASK} | fields)), model)


def understood(**fields: Any) -> ChatRequest:
    """Read a request of Gemini's."""
    return read_request(plain({"contents": HELLO} | fields), "m")


# Names.


@pytest.mark.parametrize(
    ("given", "expected"),
    [("text", "text"), ("max_output_tokens", "maxOutputTokens"), ("_response_json_schema", "responseJsonSchema")],
)
def test_names_become_camel_case(given: str, expected: str) -> None:
    assert camel(given) == expected


def test_what_is_the_users_keeps_its_spelling() -> None:
    told = {"function_call": {"args": {"my_key": None}, "name": None}, "parts": {"text": "x"}, "labels": {"a_b": "c"}}
    assert plain(told) == {
        "functionCall": {"args": {"my_key": None}},
        "parts": [{"text": "x"}],
        "labels": {"a_b": "c"},
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "STRING"}, {"type": "string"}),
        (
            {"type": 6, "properties": {"a_b": {"type": 1}}},
            {"type": "object", "properties": {"a_b": {"type": "string"}}},
        ),
        ({"type": "INTEGER", "nullable": True}, {"type": ["integer", "null"]}),
        (
            {"type": "STRING", "enum": ["a"], "format": "enum", "nullable": True},
            {"type": ["string", "null"], "enum": ["a", None]},
        ),
        ({"any_of": [{"type": "NUMBER"}], "nullable": True}, {"anyOf": [{"type": "number"}, {"type": "null"}]}),
        (
            {"type": "ARRAY", "items": {"type": "BOOLEAN"}, "min_items": "2"},
            {"type": "array", "items": {"type": "boolean"}, "minItems": 2},
        ),
        ({"ref": "#/defs/x", "defs": {"x": {"type": "NULL"}}}, {"$ref": "#/$defs/x", "$defs": {"x": {"type": "null"}}}),
        ({"type": "OBJECT", "propertyOrdering": ["a"], "example": 1}, {"type": "object", "examples": [1]}),
        ({"type": "object", "$schema": "s", "additionalProperties": False, "const": 1}, None),
        ({"type": ["string", "null"]}, None),
        (None, None),
    ],
)
def test_googles_schemas_become_json_schema(given: Any, expected: Any) -> None:
    assert json_schema(given) == (given if expected is None else expected)


# Requests to Gemini.


def test_a_conversation_with_calls_and_results() -> None:
    image = Media(kind="image", media_type="image/png", data="QUJD")
    messages = (
        Message(role="system", parts=(Text(text="Be brief."),)),
        Message(role="user", parts=(Text(text="look"), image)),
        Message(
            role="assistant",
            parts=(
                Thinking(text="hm", signature="c2VhbA=="),
                Text(text="", signature="c2VhbA=="),
                ToolCall(id="a", name="f", arguments='{"x":1}', signature="c2VhbA=="),
                ToolCall(id="b", name="g", arguments=""),
                ToolCall(id="c", name="h", arguments="not json"),
                Foreign(dialect="other", value={}),
            ),
        ),
        Message(role="tool", parts=(ToolResult(id="b", content=(Text(text="[1]"), image)),)),
        Message(role="tool", parts=(ToolResult(id="a", content=(Text(text='{"y":2}'),)),)),
        Message(role="tool", parts=(ToolResult(id="c", content=(Text(text="broke"),), is_error=True),)),
        Message(role="developer", parts=(Text(text="Now!"),)),
        Message(role="user", parts=(Text(text="go on"),)),
    )
    body = asked(messages=messages)
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "Now!"}]}
    inline = {"inlineData": {"mimeType": "image/png", "data": "QUJD"}}
    first, calls, results = body["contents"]
    assert first == {"role": "user", "parts": [{"text": "look"}, inline]}
    assert calls["role"] == "model"
    assert calls["parts"] == [
        {"text": "hm", "thought": True},
        {"text": "", "thoughtSignature": "c2VhbA=="},
        {"functionCall": {"name": "f", "args": {"x": 1}, "id": "a"}, "thoughtSignature": "c2VhbA=="},
        {"functionCall": {"name": "g", "args": {}, "id": "b"}},
        {"functionCall": {"name": "h", "args": {"arguments": "not json"}, "id": "c"}},
    ]
    assert results["parts"] == [
        {"functionResponse": {"name": "g", "response": {"output": [1]}, "id": "b"}},
        {"functionResponse": {"name": "f", "response": {"y": 2}, "id": "a"}},
        {"functionResponse": {"name": "h", "response": {"error": "broke"}, "id": "c"}},
        inline,
        {"text": "go on"},
    ]
    newer = asked("gemini-3-pro", messages=messages)["contents"][2]["parts"]
    assert newer[0]["functionResponse"]["parts"] == [inline], "newer models see inside of a result"
    assert inline not in newer


def test_newer_models_get_a_seal_for_what_others_called() -> None:
    calls = (ToolCall(id="a", name="f", arguments="{}"), ToolCall(id="b", name="f", arguments="{}"))
    turn = (*ASK, Message(role="assistant", parts=calls))
    assert [part.get("thoughtSignature") for part in asked("gemini-3-pro", messages=turn)["contents"][1]["parts"]] == [
        DUMMY,
        None,
    ]
    assert "thoughtSignature" not in json.dumps(asked("gemini-2.5-pro", messages=turn))


def test_a_lone_system_prompt_is_asked() -> None:
    body = asked(messages=(Message(role="system", parts=(Text(text="x"),)),))
    assert body == {"contents": [{"role": "user", "parts": [{"text": "x"}]}]}


def test_parameters_to_gemini() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
    body = asked(
        tools=(Tool(name="f", description="d", parameters=schema | {"$schema": "s"}), Tool(name="g", parameters={})),
        tool_choice=ToolChoice(mode="tool", name="f"),
        max_tokens=5,
        temperature=0.0,
        top_p=0.5,
        top_k=3,
        stop=("a",),
        seed=1,
        choices=2,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logprobs=3,
        response_format=ResponseFormat(kind="json_schema", name="s", schema=schema),
        extra={"vendor": 1},
    )
    assert body["tools"] == [
        {"functionDeclarations": [{"name": "f", "description": "d", "parametersJsonSchema": schema}, {"name": "g"}]}
    ]
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}}
    assert body["generationConfig"] == {
        "temperature": 0.0,
        "topP": 0.5,
        "topK": 3,
        "seed": 1,
        "maxOutputTokens": 5,
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
        "stopSequences": ["a"],
        "candidateCount": 2,
        "responseLogprobs": True,
        "logprobs": 3,
        "responseMimeType": "application/json",
        "responseJsonSchema": schema,
    }
    assert "vendor" not in body


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (ToolChoice(mode="auto", parallel=True), {"mode": "AUTO"}),
        (ToolChoice(mode="none"), {"mode": "NONE"}),
        (ToolChoice(mode="required"), {"mode": "ANY"}),
    ],
)
def test_tool_choices_to_gemini(choice: ToolChoice, expected: Any) -> None:
    body = asked(tools=(Tool(name="f"),), tool_choice=choice)
    assert body["toolConfig"]["functionCallingConfig"] == expected
    assert "toolConfig" not in asked(tool_choice=choice), "a choice among no tools is none"


@pytest.mark.parametrize(
    ("reasoning", "model", "expected"),
    [
        (Reasoning(effort="none"), "gemini-2.5-flash", {"thinkingBudget": 0}),
        (Reasoning(effort="low"), "gemini-2.5-flash", {"thinkingBudget": 1024, "includeThoughts": True}),
        (Reasoning(effort="high"), "gemini-2.5-pro", {"thinkingBudget": 24576, "includeThoughts": True}),
        (Reasoning(effort="none"), "gemini-3-flash", {"thinkingLevel": "MINIMAL"}),
        (Reasoning(effort="medium"), "gemini-3.1-pro", {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
        (
            Reasoning(effort="max"),
            "publishers/google/models/gemini-3-pro",
            {"thinkingLevel": "HIGH", "includeThoughts": True},
        ),
        (Reasoning(budget_tokens=700), "gemini-3-pro", {"thinkingBudget": 700, "includeThoughts": True}),
        (Reasoning(summary="auto"), "gemini-2.5-pro", {"includeThoughts": True}),
    ],
)
def test_thinking_to_gemini(reasoning: Reasoning, model: str, expected: Any) -> None:
    assert asked(model, reasoning=reasoning)["generationConfig"]["thinkingConfig"] == expected


@pytest.mark.parametrize(
    ("media", "expected"),
    [
        (
            Media(kind="audio", media_type="audio/mp3", data="QUJD"),
            {"inlineData": {"mimeType": "audio/mp3", "data": "QUJD"}},
        ),
        (Media(kind="document", data="QUJD"), {"inlineData": {"mimeType": "application/pdf", "data": "QUJD"}}),
        (
            Media(kind="image", url="https://x.org/a.png?b"),
            {"fileData": {"mimeType": "image/png", "fileUri": "https://x.org/a.png?b"}},
        ),
        (
            Media(kind="image", url="https://x.org/a"),
            {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://x.org/a"}},
        ),
        (
            Media(kind="video", url="gs://b/a.mov"),
            {"fileData": {"mimeType": "video/quicktime", "fileUri": "gs://b/a.mov"}},
        ),
        (
            Media(kind="document", file_id="files/abc"),
            {"fileData": {"mimeType": "application/pdf", "fileUri": "files/abc"}},
        ),
    ],
)
def test_media_to_gemini(media: Media, expected: Any) -> None:
    assert asked(messages=(Message(role="user", parts=(media,)),))["contents"][0]["parts"] == [expected]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"messages": (Message(role="user", parts=(Media(kind="image", file_id="file-1"),)),)}, "messages.0.content.0"),
        (
            {
                "messages": (
                    Message(
                        role="user",
                        parts=(Text(text="x"), Foreign(dialect="o", value={})),
                    ),
                )
            },
            "messages.0.content.1",
        ),
        ({"messages": (Message(role="tool", parts=(ToolResult(id="z"),)),)}, "messages.0"),
        ({"tools": (Tool(name="web", value={"type": "web"}),)}, "tools.0"),
        ({"tools": (Tool(name="f"),), "tool_choice": ToolChoice(parallel=False)}, "parallel_tool_calls"),
        ({"reasoning": Reasoning(effort="extreme")}, "reasoning_effort"),
        ({"extra": {"logit_bias": {"5": 1}}, "dialect": "openai.chat"}, "logit_bias"),
    ],
)
def test_what_gemini_cannot_say_is_named(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked(**fields)
    assert caught.value.field == field


# Requests from Gemini.


def test_calls_without_ids_find_their_results() -> None:
    call, result = (
        {"functionCall": {"name": "f", "args": {}}},
        {"functionResponse": {"name": "f", "response": {"a": 1}}},
    )
    other = {"functionCall": {"name": "g", "id": "own"}}
    contents = [
        *HELLO,
        {"role": "model", "parts": [call, other, call]},
        {
            "role": "user",
            "parts": [{"functionResponse": {"name": "g", "id": "own", "response": {"output": "ok"}}}, result, result],
        },
        {"role": "model", "parts": [call]},
        {"role": "function", "parts": [result, {"text": "and"}]},
    ]
    read = understood(contents=contents).messages
    calls = [part for message in read for part in message.parts if isinstance(part, ToolCall)]
    results = [part for message in read for part in message.parts if isinstance(part, ToolResult)]
    assert [part.id for part in calls] == ["call_0001", "own", "call_0003", "call_0004"]
    assert [part.id for part in results] == ["own", "call_0001", "call_0003", "call_0004"]
    assert [part.content for part in results][:2] == [(Text(text="ok"),), (Text(text='{"a":1}'),)]
    assert [message.role for message in read] == ["user", "assistant", "tool", "assistant", "tool", "user"]


def test_parameters_from_gemini() -> None:
    schema = {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}, "title": "My answer"}
    read = understood(
        tools=[
            {
                "functionDeclarations": [
                    {"name": "f", "parameters": schema},
                    {"name": "g", "parametersJsonSchema": {"type": "object"}},
                ]
            }
        ],
        toolConfig={"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f", "x"]}},
        safetySettings=[{"category": "X"}],
        generationConfig={
            "maxOutputTokens": 9,
            "topK": 40.0,
            "stopSequences": ["x"],
            "candidateCount": 2,
            "responseSchema": schema,
            "responseMimeType": "application/json",
            "responseLogprobs": True,
            "logprobs": 2,
            "mediaResolution": "LOW",
            "responseModalities": ["TEXT"],
            "thinkingConfig": {"thinkingBudget": 9000, "includeThoughts": True},
        },
    )
    assert [tool.name for tool in read.tools] == ["f"]
    assert read.tools[0].parameters == {"type": "object", "properties": {"a": {"type": "string"}}, "title": "My answer"}
    assert read.tool_choice == ToolChoice(mode="required")
    assert (read.max_tokens, read.top_k, read.stop, read.choices, read.logprobs) == (9, 40, ("x",), 2, 2)
    assert read.response_format is not None
    assert (read.response_format.kind, read.response_format.name) == ("json_schema", "My_answer")
    assert read.reasoning == Reasoning(effort="medium", budget_tokens=9000, summary="auto")
    assert read.extra == {"safetySettings": [{"category": "X"}], "generationConfig": {"mediaResolution": "LOW"}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"thinkingBudget": 0}, Reasoning(effort="none")),
        ({"thinkingBudget": -1}, None),
        ({"thinkingBudget": -1, "includeThoughts": True}, Reasoning(summary="auto")),
        ({"thinkingLevel": "HIGH"}, Reasoning(effort="high")),
        ({"thinkingBudget": 512}, Reasoning(effort="low", budget_tokens=512)),
        ({}, None),
    ],
)
def test_thinking_from_gemini(given: Any, expected: Any) -> None:
    assert understood(generationConfig={"thinkingConfig": given}).reasoning == expected


@pytest.mark.parametrize(
    ("mode", "names", "expected"),
    [
        ("AUTO", [], ToolChoice(mode="auto")),
        ("VALIDATED", [], ToolChoice(mode="auto")),
        ("NONE", [], ToolChoice(mode="none")),
        ("ANY", ["f"], ToolChoice(mode="tool", name="f")),
        (2, [], ToolChoice(mode="required")),
        ("MODE_UNSPECIFIED", [], None),
    ],
)
def test_tool_choices_from_gemini(mode: Any, names: list[str], expected: Any) -> None:
    config = {"functionCallingConfig": {"mode": mode} | ({"allowedFunctionNames": names} if names else {})}
    assert understood(toolConfig=config).tool_choice == expected


def test_what_only_gemini_can_say_is_named() -> None:
    for fields, field in (
        ({"tools": [{"urlContext": {"x": 1}}]}, "tools.0.urlContext"),
        ({"generationConfig": {"imageConfig": {"a": 1}}}, "generationConfig.imageConfig"),
        ({"contents": [{"parts": [{"toolCall": {"id": "x"}}]}]}, "contents.0.parts.0.toolCall"),
    ):
        with pytest.raises(Unsupported) as caught:
            understood(**fields)  # type: ignore[arg-type]
        assert caught.value.field == field


# Seals.


@pytest.mark.parametrize("seal", ["c2VhbA==", "+/+/", "gAAAAAB-not_base64!", "EqQB", "x", "ü"])
def test_seals_of_all_makers_survive_googles_clients(seal: str) -> None:
    written = write_signature(seal)["thoughtSignature"]
    data = base64.b64decode(written, validate=True)
    assert read_signature(base64.urlsafe_b64encode(data).decode()).seal == seal, "as the SDK sends it back"
    assert read_signature(written).seal == seal


def test_sealed_thoughts_survive_googles_clients() -> None:
    told = write_signature(None, "sealed thought")["thoughtSignature"]
    assert read_signature(told).redacted == "sealed thought"
    assert read_signature(None) == (None, None)


# Answers.


def test_an_answer_both_ways() -> None:
    body = {
        "candidates": [
            {
                "content": {
                    "role": "model",
                    "parts": [
                        {"text": "hm", "thought": True},
                        {"text": "hi", "thoughtSignature": "c2VhbA=="},
                        {"functionCall": {"name": "f", "args": {"a": "é"}}, "thoughtSignature": "c2VhbA=="},
                        {"functionCall": {"name": "f", "args": {}, "id": "own"}},
                        {"inlineData": {"mimeType": "image/png", "data": "QUJD"}},
                        {"executableCode": {"language": "PYTHON", "code": "1"}},
                    ],
                },
                "finishReason": "STOP",
                "index": 0,
            },
            {"finishReason": "SAFETY", "index": 1},
        ],
        "usageMetadata": {
            "promptTokenCount": 5,
            "toolUsePromptTokenCount": 7,
            "candidatesTokenCount": 3,
            "thoughtsTokenCount": 2,
            "cachedContentTokenCount": 4,
            "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 2}],
        },
        "modelVersion": "m",
        "responseId": "r",
    }
    read = read_completion(body)
    thinking, text, call, other, image, code = read.choices[0].message.parts
    assert (thinking, text) == (Thinking(text="hm"), Text(text="hi", signature="c2VhbA=="))
    assert isinstance(call, ToolCall)
    assert (call.name, json.loads(call.arguments), call.signature) == ("f", {"a": "é"}, "c2VhbA==")
    assert call.id == read_completion(body).choices[0].message.parts[2].id  # type: ignore[union-attr]
    assert isinstance(other, ToolCall)
    assert other.id == "own"
    assert isinstance(image, Media)
    assert isinstance(code, Foreign)
    assert [choice.finish_reason for choice in read.choices] == ["tool_calls", "content_filter"]
    assert read.usage == Usage(
        input_tokens=12, output_tokens=5, cache_read_tokens=4, reasoning_tokens=2, audio_input_tokens=2
    )
    again = write_completion(read)
    assert again["candidates"][0]["content"]["parts"][5] == {"executableCode": {"language": "PYTHON", "code": "1"}}
    assert read_completion(again).choices == read.choices
    assert read_completion(again).usage == read.usage


@pytest.mark.parametrize(
    ("body", "finish", "native"),
    [
        ({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, "content_filter", "PROHIBITED_CONTENT"),
        ({"usageMetadata": {"promptTokenCount": 1}}, "other", None),
        ({"candidates": [], "usageMetadata": {}}, "other", None),
    ],
)
def test_answers_without_candidates(body: dict[str, Any], finish: str, native: str | None) -> None:
    (choice,) = read_completion(body).choices
    assert (choice.finish_reason, choice.native_finish_reason, choice.message.parts) == (finish, native, ())
    with pytest.raises(KeyError):
        read_completion({"odd": 1})


@pytest.mark.parametrize(
    ("given", "calls", "expected"),
    [
        ("STOP", False, "stop"),
        ("STOP", True, "tool_calls"),
        (1, True, "tool_calls"),
        ("MAX_TOKENS", True, "length"),
        (2, False, "length"),
        ("SAFETY", False, "content_filter"),
        ("RECITATION", False, "content_filter"),
        ("SPII", False, "content_filter"),
        ("BLOCKLIST", False, "content_filter"),
        ("IMAGE_SAFETY", False, "content_filter"),
        ("PROHIBITED_CONTENT", False, "content_filter"),
        ("MALFORMED_FUNCTION_CALL", False, "other"),
        ("LANGUAGE", False, "content_filter"),
        ("ESCALATION", False, "content_filter"),
        ("CONTINUATION", False, "length"),
        ("NEW_WORD", False, "other"),
        ("FINISH_REASON_UNSPECIFIED", False, None),
        (None, False, None),
        (0, False, None),
    ],
)
def test_finish_reasons(given: Any, calls: bool, expected: Any) -> None:
    assert read_finish(finish_name(given), calls=calls) == expected


@pytest.mark.parametrize(
    ("reason", "native", "expected"),
    [
        ("stop", "end_turn", "STOP"),
        ("content_filter", "RECITATION", "RECITATION"),
        ("other", "x", "OTHER"),
        (None, None, None),
    ],
)
def test_finish_reasons_to_gemini(reason: Any, native: str | None, expected: str | None) -> None:
    assert write_finish(reason, native) == expected


@pytest.mark.parametrize("usage", [None, [], {}, {"promptTokenCount": -1}, {"promptTokenCount": "many"}, {"x": 1}])
def test_senseless_usage_is_none(usage: Any) -> None:
    assert read_usage(usage) is None


def test_usage_both_ways() -> None:
    usage = Usage(input_tokens=9, output_tokens=6, cache_read_tokens=2, reasoning_tokens=4, audio_input_tokens=3)
    assert read_usage(write_usage(usage)) == usage


def test_log_probabilities_both_ways() -> None:
    told = {
        "chosenCandidates": [{"token": "é", "logProbability": -0.5}, {"token": "b", "logProbability": -1.5}],
        "topCandidates": [{"candidates": [{"token": "x", "logProbability": -2.0}]}, {"candidates": []}],
    }
    read = read_logprobs(told)
    assert read["logprobs"]["content"][0] == {
        "token": "é",
        "logprob": -0.5,
        "bytes": [195, 169],
        "top_logprobs": [{"token": "x", "logprob": -2.0, "bytes": [120]}],
    }
    assert write_logprobs(read) == {"logprobsResult": told, "avgLogprobs": -1.0}
    assert write_logprobs({}) == read_logprobs(None) == {}


# Streams.


def test_pieces_of_calls_become_whole_calls() -> None:
    writer = AnswerWriter("m")
    chunks = [
        Chunk(role="assistant"),
        Chunk(thinking="hm"),
        Chunk(signature="c2VhbA=="),
        Chunk(text="a"),
        Chunk(tool=ToolDelta(position=0, id="x", name="f", arguments='{"a"')),
        Chunk(tool=ToolDelta(position=1, id="y", name="g", signature="c2VhbA==")),
        Chunk(tool=ToolDelta(position=0, arguments=":1}")),
        Chunk(tool=ToolDelta(position=1, id="z", name="h", arguments="{}")),
        Chunk(finish_reason="tool_calls"),
        Chunk(usage=Usage(input_tokens=1, output_tokens=2)),
    ]
    written = [body for chunk in chunks if (body := writer.write(chunk)) is not None] + [writer.end()]
    parts = [part for body in written for one in body["candidates"] for part in one["content"]["parts"]]
    assert parts == [
        {"text": "hm", "thought": True},
        {"text": "", "thought": True, "thoughtSignature": "c2VhbA=="},
        {"text": "a"},
        {"functionCall": {"id": "y", "name": "g", "args": {}}, "thoughtSignature": "c2VhbA=="},
        {"functionCall": {"id": "x", "name": "f", "args": {"a": 1}}},
        {"functionCall": {"id": "z", "name": "h", "args": {}}},
        {"text": ""},
    ]
    assert written[-1]["candidates"][0]["finishReason"] == "STOP"
    assert written[-1]["usageMetadata"]["totalTokenCount"] == 3


def test_a_stream_of_two_candidates() -> None:
    reader = AnswerReader()
    one = {"content": {"parts": [{"text": "a"}]}}
    chunks = reader.read({"candidates": [one, one | {"index": 1}]})
    chunks += reader.read({"candidates": [{"finishReason": "STOP"}]})
    assert not reader.finished
    chunks += reader.read({"candidates": [{"index": 1, "finishReason": "MAX_TOKENS"}]})
    assert reader.finished
    assert [(chunk.index, chunk.finish_reason) for chunk in chunks if chunk.finish_reason] == [
        (0, "stop"),
        (1, "length"),
    ]


def test_calls_whose_arguments_come_in_pieces() -> None:
    def told(call: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"candidates": [{"content": {"parts": [{"functionCall": call} | more]}}]}

    reader = AnswerReader()
    chunks = reader.read(told({"name": "f", "willContinue": True}, thoughtSignature="c2VhbA=="))
    pieces: list[dict[str, Any]] = [
        {"jsonPath": "$.city", "stringValue": "New ", "willContinue": True},
        {"jsonPath": "$.city", "stringValue": "York"},
        {"jsonPath": "$.days[1].at", "numberValue": 3},
        {"jsonPath": "$['odd key']", "boolValue": False},
        {"jsonPath": "$.twice", "stringValue": "a", "willContinue": True},
        {"jsonPath": "$.twice", "stringValue": "a"},
        {"jsonPath": "$.none", "nullValue": "NULL_VALUE"},
    ]
    for piece in pieces:
        chunks += reader.read(told({"partialArgs": [piece], "willContinue": True}))
    assert [chunk.tool for chunk in chunks if chunk.tool] == []
    chunks = reader.read(told({})) + reader.read(told({"name": "g", "args": {}}))
    chunks += reader.read(told({"name": "h", "willContinue": True}))
    chunks += reader.read({"candidates": [{"finishReason": "MAX_TOKENS"}]})
    calls = [chunk.tool for chunk in chunks if chunk.tool]
    assert [(call.position, call.name, call.signature) for call in calls] == [
        (0, "f", "c2VhbA=="),
        (1, "g", None),
        (2, "h", None),
    ]
    expected = {"city": "New York", "days": [None, {"at": 3}], "odd key": False, "none": None, "twice": "aa"}
    assert json.loads(calls[0].arguments) == expected
    for path in ("", "$", "$[0]", "$.city.x", "$.days[99999999]"):
        with pytest.raises(ValueError, match=r"path|place"):
            reader.read(
                told(
                    {"name": "f", "args": {"city": 1, "days": []}, "partialArgs": [{"jsonPath": path}]}
                    | {"willContinue": True}
                )
            )


ELEMENTS = st.lists(
    st.dictionaries(st.text(max_size=5), st.recursive(st.text(max_size=9), lambda inner: st.lists(inner, max_size=3))),
    min_size=1,
    max_size=5,
)


@pytest.mark.slow
@given(ELEMENTS, st.lists(st.integers(0, 300), max_size=12), st.booleans())
def test_arrays_and_events_may_be_cut_anywhere(elements: list[Any], cuts: list[int], as_array: bool) -> None:
    told = [msgspec.json.encode(element) for element in elements]
    whole = (
        b"[" + b"\n,\r\n".join(told) + b"\n]" if as_array else b"".join(b"data: " + one + b"\r\n\r\n" for one in told)
    )
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    splitter = PieceSplitter()
    pieces = [piece for a, b in pairwise(places) for piece in splitter.feed(whole[a:b])]
    pieces += splitter.end()
    assert [piece.data for piece in pieces] == told
    assert splitter.closed is as_array


NAMES = st.sampled_from(
    [
        "contents",
        "parts",
        "text",
        "role",
        "inlineData",
        "mimeType",
        "data",
        "fileData",
        "fileUri",
        "functionCall",
        "name",
        "args",
        "id",
        "functionResponse",
        "response",
        "thought",
        "thoughtSignature",
        "systemInstruction",
        "tools",
        "functionDeclarations",
        "parameters",
        "parametersJsonSchema",
        "properties",
        "items",
        "anyOf",
        "minItems",
        "type",
        "toolConfig",
        "functionCallingConfig",
        "mode",
        "allowedFunctionNames",
        "generationConfig",
        "responseSchema",
        "responseJsonSchema",
        "responseMimeType",
        "thinkingConfig",
        "thinkingBudget",
        "thinkingLevel",
        "stopSequences",
        "candidateCount",
        "responseModalities",
        "logprobs",
        "requests",
        "content",
        "taskType",
        "outputDimensionality",
        "x",
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "AUTO", "user", "QUJD"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.slow
@settings(max_examples=300)
@given(VALUES, st.dictionaries(NAMES, VALUES, max_size=4))
def test_no_request_whatever_breaks_the_door(value: Any, more: dict[str, Any]) -> None:
    part = {"text": "hi"} | more
    for body in (more, {"contents": value}, {"contents": [{"parts": [part]}]}, {"contents": HELLO} | more):
        sent = msgspec.json.encode(body)
        with suppress(InvalidInput):
            gemini.parse(sent, path="/v1beta/models/m:generateContent").parse()
        for operation in ("embedContent", "batchEmbedContents"):
            with suppress(InvalidInput):
                gemini.parse_embedding(sent, path=f"/v1beta/models/m:{operation}")


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(["candidates", "usageMetadata", "promptFeedback", "error", "x"]), VALUES))
def test_no_answer_whatever_breaks_the_reader(body: dict[str, Any]) -> None:
    sent = msgspec.json.encode(body)
    call = gemini.parse(b'{"contents":[{"parts":[{"text":"x"}]}]}', path="/v1beta/models/m:streamGenerateContent")
    with suppress(NexusError):
        google.completion(HttpAnswer(status=200, headers={}, body=sent))
    with suppress(NexusError):
        gemini.inspect(sent)
    for reader in (google.decoder(call), gemini.relay(call)):
        with suppress(NexusError):
            reader.feed(b"data: " + sent + b"\n\n")
            reader.end()
