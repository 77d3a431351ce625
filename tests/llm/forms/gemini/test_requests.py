"""Gemini's requests and our own form, both ways, as pure functions."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from nexus.llm.errors import InvalidRequest, Unsupported
from nexus.llm.forms.gemini.names import plain
from nexus.llm.forms.gemini.requests import read_request, write_request
from nexus.llm.types import (
    ChatRequest,
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
    ToolResult,
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


@pytest.mark.parametrize("parts", [[{"text": ""}], [{"text": ""}, {"text": ""}]])
def test_a_turn_of_the_user_without_words_is_one(parts: list[dict[str, Any]]) -> None:
    nothing = {"role": "model", "parts": [{"text": ""}]}
    request = understood(contents=[*HELLO, nothing, {"parts": parts}])
    assert [(message.role, message.text) for message in request.messages] == [("user", "hi"), ("user", "")]
    assert request.places is not None
    assert request.places()[-1] == ["contents.2.parts.0"]
