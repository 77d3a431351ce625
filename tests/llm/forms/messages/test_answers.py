"""Answers of the Messages form into ours and out of it: usage, stop reasons, whole answers, events."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from nexus.llm.forms.messages.answers import (
    AnswerReader,
    merge_usage,
    read_answer,
    read_stop,
    read_usage,
    write_answer,
    write_stop,
    write_usage,
)
from nexus.llm.types import (
    Advice,
    Choice,
    Chunk,
    Completion,
    Foreign,
    Message,
    Refusal,
    Searched,
    Text,
    Thinking,
    ToolCall,
    ToolDelta,
    Usage,
)

USAGES: list[tuple[Any, Usage | None]] = [
    (None, None),
    ("many", None),
    ({}, None),
    ({"input_tokens": -1, "output_tokens": None}, None),
    ({"input_tokens": True, "output_tokens": 2}, Usage(output_tokens=2)),
    ({"input_tokens": 10, "output_tokens": 5}, Usage(input_tokens=10, output_tokens=5)),
    (
        {"input_tokens": 1, "cache_creation_input_tokens": 30, "cache_read_input_tokens": 500, "output_tokens": 5},
        Usage(input_tokens=531, output_tokens=5, cache_read_tokens=500, cache_write_tokens=30),
    ),
    (
        {
            "input_tokens": 1,
            "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
            "output_tokens": 5,
            "output_tokens_details": {"thinking_tokens": 3},
        },
        Usage(
            input_tokens=31, output_tokens=5, cache_write_tokens=30, cache_write_1h_tokens=20, reasoning_tokens=3
        ),
    ),
    (
        {
            "input_tokens": 1,
            "output_tokens": 5,
            "speed": "fast",
            "iterations": [
                {"type": "message", "input_tokens": 1, "output_tokens": 5},
                {"type": "compaction", "input_tokens": 100, "cache_read_input_tokens": 20, "output_tokens": 7},
                {"type": "advisor_message", "model": "claude-opus-5", "input_tokens": 10, "output_tokens": 2},
                {"type": "fallback_message", "model": "claude-opus-5", "input_tokens": 10, "output_tokens": 2},
                {"type": "compaction", "input_tokens": "many"},
                None,
            ],
        },
        Usage(
            input_tokens=121, output_tokens=12, cache_read_tokens=20, tier="fast",
            advice=(Advice(model="claude-opus-5", usage=Usage(input_tokens=10, output_tokens=2)),),
        ),
    ),
    (
        {"cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": "x"}, "output_tokens": 1},
        Usage(input_tokens=10, output_tokens=1, cache_write_tokens=10),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("wire", "usage"), USAGES)
def test_usage_is_read_with_its_tiers_and_never_believed_blindly(wire: Any, usage: Usage | None) -> None:
    assert read_usage(wire) == usage
    if usage is not None:
        assert read_usage(write_usage(usage)) == msgspec.structs.replace(usage, tier=None, advice=())


def test_the_last_figures_of_a_stream_count_and_what_they_leave_out_stays() -> None:
    known: dict[str, Any] = {}
    merge_usage(known, {"input_tokens": 10, "cache_read_input_tokens": 7, "output_tokens": 1})
    merge_usage(known, {"input_tokens": None, "output_tokens": 90})
    merge_usage(known, "nonsense")
    assert read_usage(known) == Usage(input_tokens=17, cache_read_tokens=7, output_tokens=90)


@pytest.mark.parametrize(
    ("wire", "form"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause"),
        ("compaction", "pause"),
        ("brand_new", "other"),
    ],
)
def test_stop_reasons(wire: str, form: Any) -> None:
    assert read_stop(wire) == form
    assert write_stop(form, wire) == (wire if wire != "brand_new" else "end_turn")


def test_stop_reasons_of_others() -> None:
    assert [write_stop(reason) for reason in ("stop", "length", "tool_calls", "content_filter", "pause", None)] == [
        "end_turn", "max_tokens", "tool_use", "refusal", "pause_turn", "end_turn",
    ]  # fmt: skip
    assert write_stop("stop", "stop", tools=True) == "tool_use"
    assert read_stop(None) is read_stop(3) is read_stop("") is None


CONTENT: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "hm", "signature": "c2VhbA=="},
    {"type": "redacted_thinking", "data": "c2VjcmV0"},
    {"type": "text", "text": "I look"},
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
    {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": "é"}},
]


def test_a_whole_answer_survives_the_way_there_and_back() -> None:
    body = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": CONTENT,
        "stop_reason": "tool_use", "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 4},
        "container": {"id": "c"},
    }  # fmt: skip
    completion = read_answer(body)
    assert completion.text == "I look"
    assert completion.extra == {"container": {"id": "c"}}
    assert isinstance(completion.choices[0].message.parts[3], Foreign)
    assert completion.usage is not None
    again = write_answer(completion, completion.usage)
    tiers = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    assert again == {k: v for k, v in body.items() if k != "container"} | {"usage": body["usage"] | tiers}


def test_answers_of_others_become_messages() -> None:
    parts = (
        Thinking(text="hm"),
        Text(text=""),
        Text(text="a"),
        ToolCall(id="call_1", name="f", arguments='{"x": 1}', signature="c2VhbA=="),
        ToolCall(id="", name="g", arguments=""),
        Foreign(dialect="other", value={}),
    )
    choice = Choice(index=0, message=Message(role="assistant", parts=parts), finish_reason="stop")
    body = write_answer(Completion(id="", model="m", created=1, choices=(choice,)), Usage(input_tokens=1))
    assert body["id"].startswith("msg_")
    assert [block["type"] for block in body["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert body["content"][0] == {"type": "thinking", "thinking": "hm", "signature": ""}
    assert body["content"][2]["id"] == "call_1-sealed-c2VhbA"
    assert body["content"][2]["input"] == {"x": 1}
    assert body["content"][3]["id"].startswith("toolu_")
    assert body["stop_reason"] == "tool_use"


def test_citations_of_the_web_become_notes_on_the_text() -> None:
    web = {"type": "web_search_result_location", "url": "https://a", "title": "A", "cited_text": "x"}
    page = {"type": "page_location", "document_index": 0, "document_title": "D", "cited_text": "y"}
    found = {"type": "search_result_location", "source": "https://b", "title": None, "cited_text": "z"}
    content = [{"type": "text", "text": "abc"}, {"type": "text", "text": "de", "citations": [web, page, found]}]
    expected = [
        {"type": "url_citation", "url_citation": {"url": url, "title": title, "start_index": 3, "end_index": 5}}
        for url, title in (("https://a", "A"), ("https://b", ""))
    ]
    whole = read_answer({"content": content, "stop_reason": "end_turn"})
    assert whole.choices[0].message.extra == {"annotations": expected}
    reader, chunks = AnswerReader(), []
    for index, block in enumerate(content):
        deltas = [{"type": "citations_delta", "citation": cited} for cited in block.get("citations", ())]
        for event in (
            {"type": "content_block_start", "content_block": {"type": "text", "text": ""}},
            *({"type": "content_block_delta", "delta": delta} for delta in deltas[:1]),
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": block["text"]}},
            *({"type": "content_block_delta", "delta": delta} for delta in deltas[1:]),
            {"type": "content_block_stop"},
        ):
            chunks += reader.read(event | {"index": index})
    assert [chunk.extra for chunk in chunks if chunk.extra] == [{"annotations": expected}]


def test_tiers_that_overlap_do_not_make_more_tokens() -> None:
    told = write_usage(Usage(input_tokens=10, cache_read_tokens=8, cache_write_tokens=8))
    assert (told["input_tokens"], told["cache_read_input_tokens"], told["cache_creation_input_tokens"]) == (0, 8, 2)


def test_a_refusal_in_words_is_a_refusal() -> None:
    message = Message(role="assistant", parts=(Refusal(text="I won't."),))
    choice = Choice(index=0, message=message, finish_reason="stop", native_finish_reason="stop")
    body = write_answer(Completion(id="1", model="m", created=1, choices=(choice,)), Usage())
    assert body["content"] == [{"type": "text", "text": "I won't."}]
    assert body["stop_reason"] == "refusal"
    assert body["stop_details"] == {"type": "refusal", "category": None, "explanation": "I won't."}


def test_why_a_provider_refused_is_told() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "Not that."}
    ended = {"stop_reason": "refusal", "stop_details": details}
    choice = read_answer({"content": []} | ended).choices[0]
    assert (choice.message.parts, choice.finish_reason) == ((Refusal(text="Not that."),), "content_filter")
    told = AnswerReader().read({"type": "message_delta", "delta": ended, "usage": {}})
    assert [(chunk.refusal, chunk.finish_reason) for chunk in told[1:]] == [
        ("Not that.", None), (None, "content_filter"),
    ]  # fmt: skip
    for other in (ended | {"stop_details": None}, ended | {"stop_reason": "end_turn"}):
        assert read_answer({"content": []} | other).choices[0].message.parts == ()


def events(content: list[dict[str, Any]], cut: random.Random) -> list[dict[str, Any]]:
    """The stream that says these blocks, its deltas cut at random."""
    usage = {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 1}
    out: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "msg_1", "model": "claude", "usage": usage}}
    ]
    for index, block in enumerate(content):
        start = dict(block)
        pieces: list[dict[str, Any]] = []
        for field, kind in (("text", "text_delta"), ("thinking", "thinking_delta"), ("input", "input_json_delta")):
            if field in block:
                whole = block[field] if field != "input" else '{"a": "é"}' if block["type"] == "tool_use" else "{}"
                start[field] = "" if field != "input" else {}
                place = cut.randrange(len(whole) + 1)
                name = "partial_json" if field == "input" else field
                pieces += [{"type": kind, name: whole[:place]}, {"type": kind, name: whole[place:]}]
        if "signature" in block:
            start["signature"] = ""
            pieces.append({"type": "signature_delta", "signature": block["signature"]})
        out.append({"type": "content_block_start", "index": index, "content_block": start})
        out += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in pieces]
        out += [{"type": "content_block_stop", "index": index}, {"type": "ping"}, {"type": "brand_new"}]
    delta = {"stop_reason": "tool_use", "stop_sequence": None}
    return [*out, {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 9}}, {"type": "message_stop"}]


def test_events_become_pieces() -> None:
    reader = AnswerReader()
    chunks = [chunk for event in events(CONTENT, random.Random(1)) for chunk in reader.read(event)]
    assert chunks[0] == Chunk(role="assistant", text="", id="msg_1", model="claude", created=chunks[0].created)
    assert "".join(chunk.text or "" for chunk in chunks) == "I look"
    assert "".join(chunk.thinking or "" for chunk in chunks) == "hm"
    assert [chunk.signature for chunk in chunks if chunk.signature] == ["c2VhbA=="]
    assert [type(chunk.part) for chunk in chunks if chunk.part] == [Thinking, Foreign, Foreign, Searched]
    tools = [chunk.tool for chunk in chunks if chunk.tool]
    assert (tools[0].position, tools[0].id, tools[0].name) == (0, "toolu_1", "f")
    assert "".join(tool.arguments for tool in tools) == '{"a": "é"}'
    assert (chunks[-1].finish_reason, chunks[-1].native_finish_reason) == ("tool_calls", "tool_use")
    assert chunks[-1].usage == Usage(input_tokens=15, cache_read_tokens=5, output_tokens=9)


@pytest.mark.parametrize("delta", [None, {"stop_reason": "max_tokens"}])
def test_what_stands_in_a_message_from_its_start_is_read(delta: dict[str, Any] | None) -> None:
    result = {"type": "code_execution_tool_result", "tool_use_id": "srvtoolu_1", "content": {"stdout": "1"}}
    call = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}, "caller": {"type": "code_execution"}}
    cited = [{"type": "web_search_result_location", "url": "https://a", "title": "A"}]
    content = [result, {"type": "text", "text": "so", "citations": cited}, call]
    message = {"id": "msg_1", "model": "claude", "content": content, "stop_reason": "tool_use", "usage": {}}
    later = [{"type": "message_delta", "delta": delta, "usage": {"output_tokens": 2}}] if delta else []
    reader = AnswerReader()
    told = [{"type": "message_start", "message": message}, *later, {"type": "message_stop"}]
    chunks = [chunk for event in told for chunk in reader.read(event)]
    assert chunks[0].role == "assistant"
    assert [chunk.part.value for chunk in chunks if isinstance(chunk.part, Foreign)] == [result]
    assert "".join(chunk.text or "" for chunk in chunks) == "so"
    assert [chunk.extra["annotations"][0]["url_citation"]["url"] for chunk in chunks if chunk.extra] == ["https://a"]
    assert [(tool.id, tool.arguments) for chunk in chunks if (tool := chunk.tool)] == [
        ("toolu_1", ""), (None, '{"a":1}'),
    ]  # fmt: skip
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["length" if delta else "tool_calls"]


def test_a_call_without_deltas_has_the_input_it_began_with() -> None:
    reader = AnswerReader()
    found = []
    for number, given in enumerate(({}, {"a": 1})):
        block = {"type": "tool_use", "id": f"t{number}", "name": "f", "input": given}
        for event in (
            {"type": "content_block_start", "index": number, "content_block": block},
            {"type": "content_block_stop", "index": number},
        ):
            found += [chunk.tool for chunk in reader.read(event) if chunk.tool]
    assert found[1] == ToolDelta(position=0, arguments="{}")
    assert found[3] == ToolDelta(position=1, arguments='{"a":1}')


CITED = {"type": "url_citation", "url_citation": {"url": "https://a", "title": "", "start_index": 3, "end_index": 5}}


def test_what_others_cite_stands_at_its_text() -> None:
    parts = (Text(text="abc"), ToolCall(id="t", name="f", arguments="{}"), Text(text="de"))
    message = Message(role="assistant", parts=parts, extra={"annotations": [CITED, "odd", {"url_citation": {}}]})
    choice = Choice(index=0, message=message, finish_reason="stop")
    body = write_answer(Completion(id="1", model="m", created=1, choices=(choice,)), Usage())
    cited = {
        "type": "web_search_result_location",
        "url": "https://a",
        "title": None,
        "cited_text": "",
        "encrypted_index": "",
    }
    assert [block.get("citations") for block in body["content"]] == [None, None, [cited]]


def test_searches_and_tiers_of_others_are_told() -> None:
    told = write_usage(Usage(input_tokens=1, web_searches=2, tier="priority"))
    assert told["server_tool_use"] == {"web_search_requests": 2, "web_fetch_requests": 0}
    assert told["service_tier"] == "priority"
    assert "service_tier" not in write_usage(Usage(input_tokens=1, tier="flex"))
