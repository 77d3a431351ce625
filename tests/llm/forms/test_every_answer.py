"""Every kind of answer that providers' SDKs know: what is in it reaches clients of all other forms, whole or streamed.

Each table has a row for every word, block and field of the SDK's types; one that a new version brings has none, and
fails until somebody has decided.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any, get_args

import botocore.session
import pytest
from anthropic.types.beta import BetaMessage, BetaRawContentBlockDelta, BetaStopReason, BetaUsage
from google.genai import types
from pydantic.fields import FieldInfo
from tests.llm.every_answer import DIALECTS, OWN_FORM, PROVIDERS, STREAMS, answered, asked, events_of, readers
from tests.llm.every_field import short, union
from tests.llm.forms.test_mangled_requests import mangled

from nexus.core.errors import NexusError
from nexus.llm.errors import AnswerFailed, UpstreamRateLimited, UpstreamRejected, UpstreamTruncated, UpstreamUnavailable
from nexus.llm.flow import Reading
from nexus.llm.wire.eventstream import encode

BEDROCK = botocore.session.get_session().get_service_model("bedrock-runtime")
# What the clients of each form are told at the end: chat completions, Responses, Messages, Gemini.
STOP = ("stop", "completed", "end_turn", "STOP")
LENGTH = ("length", "max_output_tokens", "max_tokens", "MAX_TOKENS")
TOOLS = ("tool_calls", "completed", "tool_use", "STOP")
FILTER = ("content_filter", "content_filter", "refusal", "SAFETY")
# What is no reason of the other forms' is the plainest one there is; Google has a word for it.
OTHER = ("stop", "completed", "end_turn", "OTHER")
FORMS = ("openai_chat", "openai_responses", "anthropic_messages", "gemini")
MESSAGES_STOPS = {
    "end_turn": STOP, "stop_sequence": STOP, "max_tokens": LENGTH, "model_context_window_exceeded": LENGTH,
    "tool_use": TOOLS, "refusal": FILTER, "pause_turn": STOP, "compaction": STOP, "novel": OTHER,
}  # fmt: skip
GEMINI_STOPS = {
    "STOP": STOP, "MAX_TOKENS": LENGTH, "CONTINUATION": LENGTH,
    **dict.fromkeys(
        ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT",
         "IMAGE_RECITATION", "MODEL_ARMOR", "LANGUAGE", "ESCALATION", "PUP_LIMITED_DISABLED"), FILTER),
    "NOVEL": OTHER,
}  # fmt: skip
# What is told as an end of an answer and is none.
GEMINI_FAILURES = (
    "OTHER", "IMAGE_OTHER", "NO_IMAGE", "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS",
    "MISSING_THOUGHT_SIGNATURE", "MALFORMED_RESPONSE",
)  # fmt: skip
CONVERSE_FAILURES = ("malformed_model_output", "malformed_tool_use")
CONVERSE_STOPS = {
    "end_turn": STOP, "stop_sequence": ("stop", "completed", "stop_sequence", "STOP"), "max_tokens": LENGTH,
    "model_context_window_exceeded": ("length", "max_output_tokens", "model_context_window_exceeded", "MAX_TOKENS"),
    "tool_use": TOOLS, "guardrail_intervened": FILTER, "content_filtered": FILTER, "novel": OTHER,
}  # fmt: skip
TEXT, PART, WORDS = {"type": "text", "text": "Hello"}, {"text": "Hello"}, {"text": "Hello"}


def messages(*content: Any, stop: str | None = "end_turn", **more: Any) -> dict[str, Any]:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_sequence": None}
    usage = {"input_tokens": 10, "output_tokens": 5}
    return head | {"content": list(content), "stop_reason": stop, "usage": usage} | more


def gemini(*parts: Any, finish: str | None = "STOP", **more: Any) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0} | more
    candidate |= {"finishReason": finish} if finish else {}
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "g", "responseId": "r"}


def converse(*content: Any, stop: str = "end_turn", **more: Any) -> dict[str, Any]:
    said = {"message": {"role": "assistant", "content": list(content)}}
    usage = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}
    return {"output": said, "stopReason": stop, "usage": usage, "metrics": {"latencyMs": 1}} | more


def heard(kind: str, body: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """What the clients of each other form understand, which is the same however it comes."""
    told = {}
    for dialect in readers(kind):
        ways = [(False, 0), (True, 0), (True, 7)]
        found = [answered(kind, body, dialect, stream=stream, cut=cut) for stream, cut in ways]
        plain = [(one.text, one.thinking, one.tools, one.finish, one.cites, one.tokens) for one in found]
        assert plain[0] == plain[1] == plain[2], (dialect, plain)
        told[dialect] = plain[0]
    return told


# Why an answer ended.

ENDS: list[tuple[str, str, tuple[str, ...]]] = [
    *(("anthropic", word, ends) for word, ends in MESSAGES_STOPS.items()),
    *(("google", word, ends) for word, ends in GEMINI_STOPS.items()),
    *(("bedrock", word, ends) for word, ends in CONVERSE_STOPS.items()),
]


@pytest.mark.parametrize(("kind", "word", "ends"), ENDS)
def test_every_reason_to_end(kind: str, word: str, ends: tuple[str, ...]) -> None:
    body = {"anthropic": messages(TEXT, stop=word), "bedrock": converse(WORDS, stop=word)}.get(
        kind, gemini(PART, finish=word)
    )
    for dialect, told in heard(kind, body).items():
        assert told == ("Hello", "", [], ends[FORMS.index(dialect)], [], (10, 0, 5)), dialect


def test_no_reason_to_end_is_forgotten() -> None:
    assert set(MESSAGES_STOPS) - {"novel"} == set(get_args(BetaStopReason))
    known = {one.value for one in types.FinishReason} - {"FINISH_REASON_UNSPECIFIED"}
    assert set(GEMINI_STOPS) - {"NOVEL"} | set(GEMINI_FAILURES) == known
    assert set(CONVERSE_STOPS) - {"novel"} | set(CONVERSE_FAILURES) == set(BEDROCK.shape_for("StopReason").enum)


FAILED: list[tuple[str, str]] = [
    *(("google", word) for word in GEMINI_FAILURES),
    *(("bedrock", word) for word in CONVERSE_FAILURES),
]


@pytest.mark.parametrize("said", [True, False], ids=["after words", "without a word"])
@pytest.mark.parametrize(("kind", "word"), FAILED)
def test_a_failed_answer_has_no_end(kind: str, word: str, said: bool) -> None:
    parts: list[Any] = [PART] if said else []
    body = gemini(*parts, finish=word) if kind == "google" else converse(*parts, stop=word)
    for dialect in readers(kind):
        for stream, cut in ((False, 0), (True, 0), (True, 7)):
            with pytest.raises(AnswerFailed, match=word):
                answered(kind, body, dialect, stream=stream, cut=cut)


@pytest.mark.parametrize(("kind", "word"), FAILED)
def test_a_failed_answer_tells_its_usage_first(kind: str, word: str) -> None:
    body = gemini(PART, finish=word) if kind == "google" else converse(WORDS, stop=word)
    call = asked("openai_chat", stream=True)
    sink = Reading(PROVIDERS.get(kind).decoder(call))
    chunks = sink.feed(STREAMS[kind](body)) + sink.end()
    assert "".join(chunk.text or "" for chunk in chunks) == "Hello"
    assert {chunk.finish_reason for chunk in chunks} == {None}
    assert isinstance(sink.tally.failure, AnswerFailed)
    assert not sink.tally.done
    assert sink.tally.usage is not None
    assert (sink.tally.usage.input_tokens, sink.tally.usage.output_tokens) == (10, 5)


def test_an_answer_that_came_to_nothing_has_failed() -> None:
    nothing = {"candidates": [], "usageMetadata": {"promptTokenCount": 10}, "responseId": "r"}
    for dialect in readers("google"):
        with pytest.raises(AnswerFailed):
            answered("google", nothing, dialect, stream=False)


@pytest.mark.parametrize("word", ["error", "abort", "insufficient_system_resource", "network_error"])
def test_failures_that_servers_of_openai_s_form_tell_as_ends(word: str) -> None:
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
    body = head | {"choices": [{"index": 0, "message": {"content": "Hel"}, "finish_reason": word}]}
    events = [
        head | {"choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": end}]} for end in (None, word)
    ]
    streamed = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    for dialect in ("anthropic_messages", "gemini"):
        for given in (body, streamed, streamed + b"data: [DONE]\n\n"):
            with pytest.raises(AnswerFailed, match=word):
                events_of("openai", given, dialect)


@pytest.mark.parametrize(("kind", "word"), [("google", "NOVEL"), ("bedrock", "novel"), ("anthropic", "novel")])
def test_an_end_that_nobody_knows_is_told_by_its_own_name(kind: str, word: str) -> None:
    bodies = {"google": gemini(PART, finish=word), "bedrock": converse(WORDS, stop=word)}
    body = bodies.get(kind) or messages(TEXT, stop=word)
    for stream in (False, True):
        told = answered(kind, body, "openai_chat", stream=stream).raw
        ends = [choice for event in told for choice in event["choices"] if choice["finish_reason"]]
        assert [(end["finish_reason"], end["native_finish_reason"]) for end in ends] == [("stop", word)]


@pytest.mark.parametrize("reason", [one.value for one in types.BlockedReason])
def test_every_reason_to_block_a_question(reason: str) -> None:
    body = {"promptFeedback": {"blockReason": reason}, "usageMetadata": {"promptTokenCount": 10}, "responseId": "r"}
    for dialect, told in heard("google", body).items():
        assert told == ("", "", [], FILTER[FORMS.index(dialect)], [], (10, 0, 0)), dialect


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("anthropic", messages(TEXT, stop=None)),
        ("google", gemini(PART, finish=None)),
        ("google", gemini(PART, finish="FINISH_REASON_UNSPECIFIED")),
    ],
)
def test_a_whole_answer_without_a_reason_has_ended_and_a_stream_without_one_has_not(
    kind: str, body: dict[str, Any]
) -> None:
    for dialect in readers(kind):
        assert answered(kind, body, dialect, stream=False).finish == OTHER[FORMS.index(dialect)]
        if kind == "google":
            with pytest.raises(UpstreamTruncated):
                answered(kind, body, dialect, stream=True)


@pytest.mark.parametrize("kind", ["anthropic", "google", "bedrock"])
def test_calls_of_tools_are_why_an_answer_ended_whatever_it_says(kind: str) -> None:
    body = {
        "anthropic": messages({"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}),
        "google": gemini({"functionCall": {"name": "f", "args": {"a": 1}}}),
        "bedrock": converse({"toolUse": {"toolUseId": "t", "name": "f", "input": {"a": 1}}}),
    }[kind]
    for dialect, told in heard(kind, body).items():
        if (kind, dialect) != ("anthropic", "openai_chat"):
            assert told[2:4] == ([("f", {"a": 1})], TOOLS[FORMS.index(dialect)]), dialect


# What an answer holds, beside "Hello": text, thoughts, calls, citations; nothing of what is its provider's own.

OWN: tuple[Any, ...] = ("Hello", "", [], [])
CALLED: tuple[Any, ...] = ("Hello", "", [("f", {"a": 1})], [])
THOUGHT: tuple[Any, ...] = ("Hello", "hmm", [], [])
BLOCKS: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "TextBlock": (TEXT | {"text": "Oh. "}, ("Oh. Hello", "", [], [])),
    "ThinkingBlock": ({"type": "thinking", "thinking": "hmm", "signature": "c2VhbA=="}, THOUGHT),
    "RedactedThinkingBlock": ({"type": "redacted_thinking", "data": "c2VjcmV0"}, OWN),
    "ToolUseBlock": ({"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}, CALLED),
    "ServerToolUseBlock": ({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": 1}}, OWN),
    "ContainerUploadBlock": ({"type": "container_upload", "file_id": "f"}, OWN),
    "MCPToolUseBlock": ({"type": "mcp_tool_use", "id": "s", "name": "n", "input": {}, "server_name": "m"}, OWN),
    "CompactionBlock": ({"type": "compaction", "content": "so far"}, OWN),
    "FallbackBlock": ({"type": "fallback", "from": {"model": "x"}, "to": {"model": "y"}}, OWN),
    "MCPToolListingBlock": ({"type": "mcp_tool_listing", "mcp_server_name": "m", "tools": []}, OWN),
    "NovelBlock": ({"type": "novel", "x": [1]}, OWN),
} | {
    name: ({"type": kind, "tool_use_id": "s", "content": []}, OWN)
    for name, kind in {
        "WebSearchToolResultBlock": "web_search_tool_result", "WebFetchToolResultBlock": "web_fetch_tool_result",
        "CodeExecutionToolResultBlock": "code_execution_tool_result", "MCPToolResultBlock": "mcp_tool_result",
        "BashCodeExecutionToolResultBlock": "bash_code_execution_tool_result",
        "TextEditorCodeExecutionToolResultBlock": "text_editor_code_execution_tool_result",
        "ToolSearchToolResultBlock": "tool_search_tool_result", "AdvisorToolResultBlock": "advisor_tool_result",
    }.items()
}  # fmt: skip
DELTAS = {
    "TextDelta",
    "InputJSONDelta",
    "CitationsDelta",
    "ThinkingDelta",
    "SignatureDelta",
    "CompactionContentBlockDelta",
}
PNG = {"mimeType": "image/png", "data": "iVBORw0KGgo="}
PARTS: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "text": ({"text": "Oh. "}, ("Oh. Hello", "", [], [])),
    "thought": ({"text": "hmm", "thought": True}, THOUGHT),
    "thoughtSignature": ({"text": "hmm", "thought": True, "thoughtSignature": "c2VhbA=="}, THOUGHT),
    "functionCall": ({"functionCall": {"name": "f", "args": {"a": 1}}}, CALLED),
    "inlineData": ({"inlineData": PNG}, OWN),
    "novel": ({"novel": 1}, OWN),
    "empty": ({}, OWN),
} | {
    name: ({name: {"x": "y"}}, OWN)
    for name in (
        "mediaResolution", "codeExecutionResult", "executableCode", "fileData", "functionResponse", "videoMetadata",
        "toolCall", "toolResponse", "partMetadata", "audioTranscription", "mediaProcessing", "speechMetadata",
        "documentMetadata", "spreadsheetMetadata", "audioMetadata",
    )
}  # fmt: skip
WEB = {"title": "T", "location": {"web": {"url": "https://a", "domain": "a"}}}
PAGE = {"title": "T", "location": {"documentPage": {"documentIndex": 0, "start": 0, "end": 1}}}
CONTENTS: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "text": ({"text": "Oh. "}, ("Oh. Hello", "", [], [])),
    "image": ({"image": {"format": "png", "source": {"bytes": PNG["data"]}}}, OWN),
    "toolUse": ({"toolUse": {"toolUseId": "t", "name": "f", "input": {"a": 1}}}, CALLED),
    "toolResult": ({"toolResult": {"toolUseId": "t", "content": [{"text": "x"}], "status": "success"}}, OWN),
    "reasoningContent": ({"reasoningContent": {"reasoningText": {"text": "hmm", "signature": "c2VhbA=="}}}, THOUGHT),
    "redacted": ({"reasoningContent": {"redactedContent": "c2VjcmV0"}}, OWN),
    "citationsContent": (
        {"citationsContent": {"content": [{"text": "Oh. "}], "citations": [WEB, PAGE, {}]}},
        ("Oh. Hello", "", [], ["https://a"]),
    ),
    "server": ({"toolUse": {"toolUseId": "t", "name": "n", "input": {}, "type": "server_tool_use"}}, OWN),
    "document": ({"document": {"format": "pdf", "name": "d", "source": {"bytes": "JVBERi0="}}}, OWN),
    "audio": ({"audio": {"format": "wav", "source": {"bytes": "UklG"}}}, OWN),
    "video": ({"video": {"format": "mp4", "source": {"bytes": "UklG"}}}, OWN),
    "novel": ({"novel": {"x": 1}}, OWN),
} | {
    name: ({name: {"x": "y"}}, OWN)
    for name in ("guardContent", "cachePoint", "searchResult", "toolAddition", "toolRemoval")
}


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_of_anthropic_s(name: str) -> None:
    block, understood = BLOCKS[name]
    for told in heard(
        "anthropic", messages(block, TEXT, stop="tool_use" if name == "ToolUseBlock" else "end_turn")
    ).values():
        assert (*told[:3], told[4]) == understood


@pytest.mark.parametrize("name", PARTS)
def test_every_part_of_google_s(name: str) -> None:
    part, understood = PARTS[name]
    for told in heard("google", gemini(part, PART)).values():
        assert (*told[:3], told[4]) == understood


@pytest.mark.parametrize("name", CONTENTS)
def test_every_content_of_bedrock_s(name: str) -> None:
    content, understood = CONTENTS[name]
    for told in heard("bedrock", converse(content, WORDS)).values():
        assert (*told[:3], told[4]) == understood


def test_no_block_is_forgotten() -> None:
    def names(hint: Any) -> set[str]:
        return {short(member.__name__) for member in union(hint)}

    assert set(BLOCKS) - {"NovelBlock"} == names(BetaMessage.model_fields["content"].annotation)
    assert names(BetaRawContentBlockDelta) == DELTAS
    parts = {field.alias or name for name, field in types.Part.model_fields.items()}
    assert set(PARTS) - {"novel", "empty"} == parts
    assert set(CONTENTS) - {"redacted", "server", "novel"} == set(BEDROCK.shape_for("ContentBlock").members)
    starts, deltas = BEDROCK.shape_for("ContentBlockStart").members, BEDROCK.shape_for("ContentBlockDelta").members
    assert set(starts) == {"toolUse", "toolResult", "image"}
    assert set(deltas) == {"text", "toolUse", "toolResult", "reasoningContent", "citation", "image"}
    assert set(BEDROCK.shape_for("CitationLocation").members) == {
        "web", "documentChar", "documentPage", "documentChunk", "searchResultLocation",
    }  # fmt: skip


# What stands around the content: whether others are told, and else why not.

MESSAGES_FIELDS: dict[str, tuple[Any, str]] = {
    "id": ("msg_2", "left: names are not compared here"),
    "model": ("other", "said"),
    "stop_reason": ("max_tokens", "said"),
    "content": ([TEXT | {"text": "other"}], "said"),
    "usage": ({"input_tokens": 1, "output_tokens": 1}, "said"),
    "stop_sequence": ("END", "left: a stop is a stop"),
    "type": ("message", "left: always the same"),
    "role": ("assistant", "left: always the same"),
    "container": ({"id": "c"}, "left: its maker's own"),
    "context_management": ({"applied_edits": []}, "left: its maker's own"),
    "diagnostics": ({}, "left: its maker's own"),
    "input_transformations": ([], "left: its maker's own"),
    "stop_details": ({"type": "refusal", "explanation": "No."}, "left: others have no words for why"),
}
MESSAGES_USAGE: dict[str, tuple[Any, str]] = {
    "input_tokens": (7, "said"),
    "output_tokens": (7, "said"),
    "cache_creation_input_tokens": (7, "said"),
    "cache_read_input_tokens": (7, "said"),
    "output_tokens_details": ({"thinking_tokens": 2}, "said"),
    "cache_creation": ({"ephemeral_1h_input_tokens": 4}, "left: others do not tell for how long"),
    "server_tool_use": ({"web_search_requests": 1, "web_fetch_requests": 1}, "left: others do not count them"),
    "service_tier": ("priority", "said"),
    "speed": ("fast", "said"),
    "inference_geo": ("us", "left: others have no word for it"),
    "iterations": ([{"type": "compaction", "input_tokens": 7, "output_tokens": 1}], "said"),
    "fallback_credit": ({}, "left: its maker's own"),
}
CANDIDATE_FIELDS: dict[str, tuple[Any, str]] = {
    "content": ({"parts": [{"text": "other"}]}, "said"),
    "finishReason": ("MAX_TOKENS", "said"),
    "index": (0, "left: the first"),
    "citationMetadata": ({"citations": [{"startIndex": 0, "endIndex": 5, "uri": "https://a", "title": "T"}]}, "said"),
    "groundingMetadata": (
        {
            "groundingChunks": [{"web": {"uri": "https://a", "title": "T"}}],
            "groundingSupports": [{"segment": {"endIndex": 5}, "groundingChunkIndices": [0, 7]}],
        },
        "said",
    ),
    "logprobsResult": ({"chosenCandidates": [{"token": "Hello", "logProbability": -0.1}]}, "said"),
    "avgLogprobs": (-0.1, "left: the mean of what is told"),
    "tokenCount": (5, "left: the usage says it"),
    "finishMessage": ("x", "left: others have no words for why"),
    "safetyRatings": ([{"blocked": False}], "left: Google's own"),
    "urlContextMetadata": ({"urlMetadata": []}, "left: Google's own"),
    "continuationToken": ("eA==", "left: Google's own"),
}
GEMINI_FIELDS: dict[str, tuple[Any, str]] = {
    "candidates": ([{"content": {"parts": [{"text": "other"}]}, "finishReason": "STOP"}], "said"),
    "modelVersion": ("other", "said"),
    "responseId": ("other", "left: names are not compared here"),
    "usageMetadata": ({"promptTokenCount": 1}, "said"),
    "promptFeedback": ({"safetyRatings": []}, "left: nothing was blocked"),
    "createTime": ("2026-01-01T00:00:00Z", "left: Google's own"),
    "modelStatus": ({"message": "x"}, "left: Google's own"),
}
GEMINI_USAGE: dict[str, tuple[Any, str]] = {
    "promptTokenCount": (7, "said"),
    "candidatesTokenCount": (7, "said"),
    "cachedContentTokenCount": (7, "said"),
    "thoughtsTokenCount": (7, "said"),
    "toolUsePromptTokenCount": (7, "said"),
    "promptTokensDetails": ([{"modality": "AUDIO", "tokenCount": 2}], "said"),
    "candidatesTokensDetails": ([{"modality": "AUDIO", "tokenCount": 2}], "said"),
    "toolUsePromptTokensDetails": ([{"modality": "AUDIO", "tokenCount": 2}], "said"),
    "cacheTokensDetails": ([{"modality": "AUDIO", "tokenCount": 2}], "left: others count no cached sound"),
    "totalTokenCount": (99, "left: the sum of the others"),
    "trafficType": ("ON_DEMAND_PRIORITY", "said"),
}
CONVERSE_FIELDS: dict[str, tuple[Any, str]] = {
    "output": ({"message": {"content": [{"text": "other"}]}}, "said"),
    "stopReason": ("max_tokens", "said"),
    "usage": ({"inputTokens": 1, "outputTokens": 1}, "said"),
    "metrics": ({"latencyMs": 7}, "left: AWS's own"),
    "additionalModelResponseFields": ({"stop_sequence": "END"}, "said"),
    "trace": ({"guardrail": {}}, "left: AWS's own"),
    "performanceConfig": ({"latency": "optimized"}, "left: AWS's own"),
    "serviceTier": ({"type": "priority"}, "said"),
}
CONVERSE_USAGE: dict[str, tuple[Any, str]] = {
    "inputTokens": (7, "said"),
    "outputTokens": (7, "said"),
    "totalTokens": (99, "left: the sum of the others"),
    "cacheReadInputTokens": (7, "said"),
    "cacheWriteInputTokens": (7, "said"),
    "cacheDetails": ([{"ttl": "1h", "inputTokens": 20}], "said"),
}
AROUND: list[tuple[str, str, dict[str, tuple[Any, str]]]] = [
    ("anthropic", "", MESSAGES_FIELDS), ("anthropic", "usage", MESSAGES_USAGE), ("google", "", GEMINI_FIELDS),
    ("google", "candidates", CANDIDATE_FIELDS), ("google", "usageMetadata", GEMINI_USAGE),
    ("bedrock", "", CONVERSE_FIELDS), ("bedrock", "usage", CONVERSE_USAGE),
]  # fmt: skip
BASES = {
    "anthropic": messages(TEXT, usage={"input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": 30}),
    "google": gemini(PART),
    "bedrock": converse(WORDS, usage={"inputTokens": 10, "outputTokens": 5, "cacheWriteInputTokens": 30}),
}


@pytest.mark.parametrize(
    ("kind", "place", "name"), [(kind, place, name) for kind, place, rows in AROUND for name in rows]
)
def test_everything_around_the_content(kind: str, place: str, name: str) -> None:
    value, fate = next(rows for k, p, rows in AROUND if (k, p) == (kind, place))[name]
    before = BASES[kind]
    if place == "candidates":
        after = before | {"candidates": [before["candidates"][0] | {name: value}]}
    else:
        after = before | ({place: before[place] | {name: value}} if place else {name: value})
    for stream in (False, True):
        changed = [
            dialect
            for dialect in readers(kind)
            if plain(kind, before, dialect, stream=stream) != plain(kind, after, dialect, stream=stream)
        ]
        assert bool(changed) is (fate == "said"), (stream, changed)


ANEW = ("id", "created", "completed", "item_id", "responseId")


def plain(kind: str, body: dict[str, Any], dialect: str, *, stream: bool) -> str:
    """What a client is told, but for what is made anew each time."""
    told = answered(kind, body, dialect, stream=stream).raw
    return "\n".join(line for line in _lines(told) if not line.startswith(ANEW))


def _lines(told: Any, name: str = "") -> list[str]:
    if isinstance(told, dict):
        return [line for key, value in told.items() for line in _lines(value, key)]
    if isinstance(told, list):
        return [line for value in told for line in _lines(value, name)]
    return [f"{name} {told}"]


def test_nothing_around_the_content_is_forgotten() -> None:
    def names(fields: dict[str, FieldInfo]) -> set[str]:
        return {field.alias or name for name, field in fields.items()}

    assert set(MESSAGES_FIELDS) == names(BetaMessage.model_fields)
    assert set(MESSAGES_USAGE) == names(BetaUsage.model_fields)
    assert set(CANDIDATE_FIELDS) == names(types.Candidate.model_fields)
    sdk_only = {"sdkHttpResponse", "automaticFunctionCallingHistory", "parsed"}
    assert set(GEMINI_FIELDS) == names(types.GenerateContentResponse.model_fields) - sdk_only
    assert set(GEMINI_USAGE) == names(types.GenerateContentResponseUsageMetadata.model_fields)
    assert set(CONVERSE_FIELDS) == set(BEDROCK.shape_for("ConverseResponse").members)
    assert set(CONVERSE_USAGE) == set(BEDROCK.shape_for("TokenUsage").members)


def test_citations_stand_where_they_belong() -> None:
    parts = gemini(
        {"text": "Né "}, PART, citationMetadata={"citations": [{"startIndex": 4, "endIndex": 9, "uri": "u"}]}
    )
    for stream in (False, True):
        (body, *_) = answered("google", parts, "openai_chat", stream=False).raw
        cited = body["choices"][0]["message"]["annotations"][0]["url_citation"]
        assert (cited["start_index"], cited["end_index"]) == (3, 8)
        blocks = answered("google", parts, "anthropic_messages", stream=stream).blocks
        assert [cite.url for block in blocks for cite in block.citations or ()] == ["u"]


HELD: list[tuple[str, dict[str, Any]]] = [
    *(("anthropic", messages(block, TEXT)) for block, _ in BLOCKS.values()),
    *(("google", gemini(part, PART)) for part, _ in PARTS.values()),
    *(("bedrock", converse(content, WORDS)) for content, _ in CONTENTS.values()),
    *BASES.items(),
]


def test_a_client_of_the_same_form_gets_every_byte() -> None:
    for kind, body in HELD:
        if not (own := OWN_FORM[kind]):
            continue
        speaks, given = DIALECTS.get(own), STREAMS[kind](body)
        call = asked(own, stream=True)
        for cut in (7, len(given)):
            relay = speaks.answering(call).relay(call)
            out = b"".join(relay.feed(given[i : i + cut]) for i in range(0, len(given), cut)) + relay.end()
            assert out.replace(b"\r", b"") == given.replace(b"\r", b"")
            assert relay.tally.done
            assert relay.tally.finished == 1
        assert speaks.inspect(json.dumps(body).encode()).done


def test_a_mangled_answer_is_never_an_accident() -> None:
    chance = random.Random(43)
    counts: Counter[str] = Counter()

    def change(event: dict[str, Any]) -> dict[str, Any]:
        return mangled(event, chance) if event and chance.random() < 0.2 else event

    for _ in range(1500):
        kind, body = chance.choice(HELD)
        dialect, stream = chance.choice(readers(kind)), chance.random() < 0.5
        given = STREAMS[kind](body, change) if stream else mangled(body, chance)
        try:
            events_of(kind, given, dialect)
            counts["read"] += 1
        except NexusError as error:
            counts[type(error).__name__] += 1
    print(dict(counts))
    assert counts["read"] > 500
    assert counts["UpstreamMalformed"] > 100


# Errors in the midst of a stream, and what they are here.

FAILURES = {
    "internalServerException": UpstreamUnavailable,
    "modelStreamErrorException": UpstreamUnavailable,
    "serviceUnavailableException": UpstreamUnavailable,
    "throttlingException": UpstreamRateLimited,
    "validationException": UpstreamRejected,
}


@pytest.mark.parametrize("name", FAILURES)
def test_every_exception_in_a_stream_of_bedrock_s(name: str) -> None:
    begun = encode(
        {":message-type": "event", ":event-type": "contentBlockDelta"}, b'{"contentBlockIndex":0,"delta":{"text":"Hi"}}'
    )
    failed = encode({":message-type": "exception", ":exception-type": name}, b'{"message":"no"}')
    for dialect in readers("bedrock"):
        for stream in (begun + failed, failed):
            with pytest.raises(FAILURES[name]):
                events_of("bedrock", stream, dialect)


def test_no_exception_is_forgotten() -> None:
    members = BEDROCK.shape_for("ConverseStreamOutput").members
    events = {"messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"}
    assert set(members) - events == set(FAILURES)


@pytest.mark.parametrize(
    ("kind", "last"),
    [
        ("anthropic", b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n'),
        ("google", b'data: {"error": {"code": 503, "status": "UNAVAILABLE", "message": "x"}}\r\n\r\n'),
    ],
)
def test_an_error_in_a_stream_is_no_end(kind: str, last: bytes) -> None:
    whole = STREAMS[kind](BASES[kind])
    cut = whole[: whole.index(b"event: message_delta" if kind == "anthropic" else b'"finishReason"')]
    begun = cut[: cut.rindex(b"\n\n" if kind == "anthropic" else b"\r\n\r\n")] + b"\r\n\r\n"
    for dialect in readers(kind):
        with pytest.raises(UpstreamUnavailable):
            events_of(kind, begun + last, dialect)
        with pytest.raises(UpstreamTruncated):
            events_of(kind, begun, dialect)
