"""Gemini's answers and our own form, both ways, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nexus.llm.forms.gemini.answers import (
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
from nexus.llm.forms.gemini.logprobs import read_logprobs, write_logprobs
from nexus.llm.types import (
    Chunk,
    Foreign,
    Media,
    Text,
    Thinking,
    ToolCall,
    ToolDelta,
    Usage,
)


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
        ({"usageMetadata": {"promptTokenCount": 1}}, "failed", None),
        ({"candidates": [], "usageMetadata": {}}, "failed", None),
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
        ("MALFORMED_FUNCTION_CALL", False, "failed"),
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
