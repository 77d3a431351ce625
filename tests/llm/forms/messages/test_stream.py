"""Streams of other forms written as Messages events: in order, under right indices, with everything at the end."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from nexus.llm.forms.messages.stream import AnswerWriter
from nexus.llm.types import Chunk, Foreign, Thinking, ToolDelta, Usage

EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
USAGE = Usage(input_tokens=12, output_tokens=4, cache_read_tokens=5)
FINISH = Chunk(finish_reason="stop", native_finish_reason="stop")


def tool(position: int, arguments: str = "", call_id: str | None = None, name: str | None = None) -> Chunk:
    return Chunk(tool=ToolDelta(position=position, id=call_id, name=name, arguments=arguments))


def written(*chunks: Chunk) -> list[dict[str, Any]]:
    """The events for these pieces, each checked against the SDK's own types."""
    writer = AnswerWriter("asked-for")
    data = b"".join([*(writer.write(chunk) for chunk in chunks), writer.end(writer.usage or USAGE)])
    out = []
    for event in data.decode().split("\n\n")[:-1]:
        name, body = event.split("\n")
        out.append(json.loads(body.removeprefix("data: ")))
        assert name == f"event: {out[-1]['type']}"
        EVENT.validate_python(out[-1])
    return out


def shape(events: list[dict[str, Any]]) -> list[str]:
    short = {"content_block_start": "+", "content_block_delta": ".", "content_block_stop": "-"}
    return [short.get(event["type"], event["type"][8:]) + str(event.get("index", "")) for event in events]


def message(events: list[dict[str, Any]]) -> Message:
    """The whole message as the official SDK puts it together."""
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for event in events:
        if event["type"] != "message_stop":
            parsed = EVENT.validate_python(event)
            snapshot = accumulate_event(event=parsed, current_snapshot=snapshot, json_bufs=buffers)
    return Message.model_validate(snapshot.model_dump())


def test_text_begins_with_its_first_word_and_ends_with_reason_and_usage() -> None:
    events = written(
        Chunk(role="assistant", text="", id="c1", model="m"),
        Chunk(text="a"),
        Chunk(text="b"),
        FINISH,
        Chunk(usage=USAGE),
    )
    assert shape(events) == ["start", "+0", ".0", ".0", "-0", "delta", "stop"]
    done = message(events)
    assert (done.id, done.model, done.stop_reason, done.stop_sequence) == ("c1", "m", "end_turn", None)
    assert (done.usage.input_tokens, done.usage.cache_read_input_tokens, done.usage.output_tokens) == (7, 5, 4)
    assert AnswerWriter("m").write(Chunk(role="assistant", text="", id="c1")) == b""


def test_nothing_said_is_an_empty_message() -> None:
    events = written(FINISH)
    assert shape(events) == ["start", "delta", "stop"]
    assert message(events).model == "asked-for"


ORDERS: list[tuple[tuple[Chunk, ...], list[str]]] = [
    # thinking, its seal, then text
    (
        (Chunk(thinking="hm"), Chunk(signature="s"), Chunk(text="a")),
        ["+0", ".0", ".0", "-0", "+1", ".1", "-1"],
    ),
    # a seal without words, as where thoughts are not shown
    ((Chunk(signature="s"), Chunk(text="a")), ["+0", ".0", "-0", "+1", ".1", "-1"]),
    # a seal of a text has no place
    ((Chunk(text="a", signature="s"), Chunk(text="", signature="s")), ["+0", ".0", "-0"]),
    # withheld thoughts, a record of another maker
    (
        (Chunk(part=Thinking(redacted="x")), Chunk(part=Foreign(dialect="other", value={})), Chunk(text="a")),
        ["+0", "-0", "+1", ".1", "-1"],
    ),
    # calls one after the other
    (
        (tool(0, "", "c1", "f"), tool(0, '{"a":'), tool(0, "1}"), tool(1, "{}", "c2", "g")),
        ["+0", ".0", ".0", "-0", "+1", ".1", "-1"],
    ),
    # calls in turn: the first stays open until it is whole
    (
        (tool(0, "", "c1", "f"), tool(1, "", "c2", "g"), tool(0, '{"a":'), tool(1, "{}"), tool(0, "1}")),
        ["+0", "+1", ".0", ".1", ".0", "-0", "-1"],
    ),
    # one position for several calls
    ((tool(0, "{}", "c1", "f"), tool(0, "{}", "c2", "g")), ["+0", ".0", "-0", "+1", ".1", "-1"]),
    # white space after a call that was whole
    ((tool(0, "{}", "c1", "f"), Chunk(text="a"), tool(0, "\n")), ["+0", ".0", "-0", "+1", ".1", "-1"]),
    # text, a call, text again
    (
        (Chunk(text="a"), tool(0, "{}", "c1", "f"), Chunk(text="b")),
        ["+0", ".0", "-0", "+1", ".1", "-1", "+2", ".2", "-2"],
    ),
    # a second choice has no place
    ((Chunk(text="a"), Chunk(index=1, text="b")), ["+0", ".0", "-0"]),
]


@pytest.mark.parametrize(("chunks", "expected"), ORDERS)
def test_blocks_follow_one_another(chunks: tuple[Chunk, ...], expected: list[str]) -> None:
    events = written(*chunks, FINISH)
    assert shape(events) == ["start", *expected, "delta", "stop"]
    called = any(chunk.tool for chunk in chunks)
    assert message(events).stop_reason == ("tool_use" if called else "end_turn")


def test_a_seal_travels_in_the_id_and_a_missing_id_is_made() -> None:
    sealed = Chunk(tool=ToolDelta(position=0, id="c1", name="f", arguments="{}", signature="c2VhbA=="))
    events = written(sealed, tool(1, "{}", None, "g"), FINISH)
    first, second = [event["content_block"]["id"] for event in events if event["type"] == "content_block_start"]
    assert first == "c1-sealed-c2VhbA"
    assert second.startswith("toolu_")


def test_a_refusal_in_words_is_a_refusal() -> None:
    done = message(written(Chunk(refusal="I "), Chunk(refusal="won't."), FINISH))
    assert [block.text for block in done.content if block.type == "text"] == ["I won't."]
    assert done.stop_reason == "refusal"
    assert done.stop_details is not None
    assert done.stop_details.explanation == "I won't."


calls = st.lists(st.dictionaries(st.sampled_from("abc"), st.integers() | st.text(max_size=5), max_size=3), max_size=4)


@given(calls, st.randoms(use_true_random=False))
def test_calls_come_whole_however_they_are_mixed(given_calls: list[dict[str, Any]], random: Any) -> None:
    """Each call cut into pieces, the pieces of all calls in any order that keeps each one's own."""
    queues = []
    for position, arguments in enumerate(given_calls):
        text = json.dumps(arguments)
        cuts = sorted({0, len(text), random.randrange(len(text) + 1)})
        queue = [tool(position, "", f"c{position}", f"f{position}")]
        queues.append(queue + [tool(position, text[a:b]) for a, b in pairwise(cuts)])
    chunks = []
    while queues := [queue for queue in queues if queue]:
        chunks.append(random.choice(queues).pop(0))
    order = [chunk.tool.position for chunk in chunks if chunk.tool is not None and chunk.tool.name]
    done = message(written(*chunks, FINISH))
    found = [(block.id, block.name, block.input) for block in done.content if block.type == "tool_use"]
    assert found == [(f"c{position}", f"f{position}", given_calls[position]) for position in order]
