"""Events come out whole however the bytes are cut."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.llm.dialects.openai_chat import OpenAIRelay
from nexus.llm.errors import UpstreamMalformed
from nexus.llm.wire.sse import EventSplitter, data_of, name_of

PLAIN = 'data: {"a":"ü☃"}\n\n: comment\n\nevent: x\ndata: {"b":\ndata: 2}\n\ndata:[1]\n\ndata: [DONE]\n\n'
DATA = ['{"a":"ü☃"}', None, '{"b":\n2}', "[1]", "[DONE]"]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(marks)]


def read(pieces: list[bytes]) -> list[bytes]:
    splitter = EventSplitter()
    return [event for piece in pieces for event in splitter.feed(piece)] + splitter.end()


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@given(places=st.lists(st.integers(0, 200)))
def test_any_cut_gives_the_same_events(ending: str, bom: bytes, places: list[int]) -> None:
    raw = bom + PLAIN.replace("\n", ending).encode()
    events = read(cut(raw, places))
    assert [data.decode() if (data := data_of(event)) is not None else None for event in events] == DATA
    assert name_of(events[2]) == b"x"
    assert name_of(events[0]) is None


@given(places=st.lists(st.integers(0, 100)))
def test_events_without_blank_lines_are_told_apart(places: list[int]) -> None:
    raw = b'data: {"a":1}\ndata: {"b":{"c":2}}\ndata: [DONE]\n'
    assert [data_of(event) for event in read(cut(raw, places))] == [b'{"a":1}', b'{"b":{"c":2}}', b"[DONE]"]


def test_a_last_event_may_lack_its_end() -> None:
    assert read([b"data: 1\n\ndata: 2"]) == [b"data: 1", b"data: 2"]
    assert read([b"data: 1\n\n\n\n"]) == [b"data: 1"]
    assert read([b""]) == []


def test_an_endless_event_is_refused() -> None:
    splitter = EventSplitter(limit=1000)
    splitter.feed(b"data: " + b"x" * 900)
    with pytest.raises(UpstreamMalformed):
        splitter.feed(b"x" * 200)


def test_a_picture_comes_in_thousands_of_pieces() -> None:
    """Looking through all that is held for each of them would take minutes."""
    splitter = EventSplitter(limit=10_000_000)
    event = b"event: x\ndata: " + b"x" * 8_000_000
    pieces = [event[start : start + 1000] for start in range(0, len(event), 1000)]
    assert not any(splitter.feed(piece) for piece in pieces)
    assert splitter.held == event
    assert splitter.feed(b"\n\ndata: 2\n\n") == [event, b"data: 2"]
    assert not any(splitter.feed(piece) for piece in pieces)
    assert splitter.end() == [event]
    assert not any(splitter.feed(piece) for piece in pieces)
    with pytest.raises(UpstreamMalformed):
        any(splitter.feed(piece) for piece in pieces)


def test_a_data_line_may_stand_alone() -> None:
    assert data_of(b"data") == b""
    assert data_of(b"data:") == b""
    assert data_of(b"id: 1\nretry: 5") is None


@pytest.mark.parametrize("line", ["id: 7", "retry: 1000", "id:", "id: 1\nretry: 2"])
def test_lines_to_resume_by_stay_here(line: str) -> None:
    assert read([f"{line}\nevent: x\ndata: 1\n{line}\n\n{line}\n\ndata: 2\n\n".encode()]) == [
        b"event: x\ndata: 1",
        b"data: 2",
    ]


def test_what_is_no_utf8_is_refused() -> None:
    splitter = EventSplitter()
    assert splitter.feed("data: ☃\n\ndata: ☃".encode()[:-1]) == ["data: ☃".encode()]
    with pytest.raises(UpstreamMalformed):
        splitter.feed(b"\xff\n\n")


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b'event: a\ndata: {"x": 1}', b'{"x": 1}'),
        (b"event: a\ndata:x", b"x"),
        (b"event: a\ndata", b""),
        (b"event: a\n: comment", None),
        (b"event: a", None),
        (b"data: x\nevent: a", b"x"),
        (b"event: a\ndata: x\ndata: y", b"x\ny"),
    ],
)
def test_named_events_have_their_data(event: bytes, data: bytes | None) -> None:
    assert data_of(event) == data
    splitter = EventSplitter()
    splitter.feed(b": hello\n\n")
    assert splitter.feed(event + b"\n\n") == [event]
    assert splitter.feed(event + b"\n\n" + event + b"\n") == [event]
    assert splitter.feed(b"\n") == [event]


def test_a_single_event_that_is_no_utf8_is_refused_too() -> None:
    splitter = EventSplitter()
    splitter.feed(b": hello\n\n")
    assert splitter.feed("data: é\n\n".encode()) == ["data: é".encode()]
    with pytest.raises(UpstreamMalformed):
        splitter.feed(b"event: a\ndata: \xff\n\n")


def test_a_name_may_stand_behind_its_data() -> None:
    raw = b'data: {"a":1}\nevent: x\n\ndata: {"b":2}\nevent: y\n\n'
    for size in range(1, 20):
        events = read([raw[start : start + size] for start in range(0, len(raw), size)])
        assert events == [b'data: {"a":1}\nevent: x', b'data: {"b":2}\nevent: y'], size


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b'data: {"a":1}\n\n', [b'data: {"a":1}']),
        (b'data: {"a":1}\n\ndata: {"b":2}\n\n', [b'data: {"a":1}', b'data: {"b":2}']),
        ('data: {"a":"é"}\n\n'.encode(), ['data: {"a":"é"}'.encode()]),
        (b"data: 7\n\n: {hello}\n\n", [b"data: 7", b": {hello}"]),
        (b'data: {"a":1}\n\ndata: {"b":', None),
        (b'data: {"a":1}\n\n\ndata: {"b":2}\n\n', None),
        (b'data: {"a":1}\ndata: {"b":2}\n\n', None),
        (b'data: {"a":1}\n\nid: 7\ndata: {"b":2}\n\n', None),
        (b'data: {"a":1}\r\n\r\n', None),
        (b'data: {"a":"\xff"}\n\n', None),
        (b"data: [DONE]\n\n", None),
        (b"", None),
    ],
)
def test_only_whole_events_of_one_line_are_taken_together(data: bytes, lines: list[bytes] | None) -> None:
    splitter = EventSplitter()
    assert splitter.takes_plainly(b"\xef\xbb\xbf" + data) is None  # what comes first may begin with a mark
    assert not splitter.between
    assert splitter.takes_plainly(data) == lines
    splitter.feed(b": hi\n\n")
    assert splitter.between
    assert splitter.takes_plainly(data) == lines
    splitter.feed(b"data: {")
    assert not splitter.between
    assert splitter.takes_plainly(data) is None


PIECES = [
    *[b'data: {"choices":[{"index":0,"delta":{"content":"%d"}}]}\n\n' % number for number in range(6)],
    'data: {"choices":[{"index":0,"delta":{"content":"é"}}]}\n\n'.encode(),
    b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":7}}],"usage":"much"}\n\n',
    b'data: {"choices":5}\n\n',
    b": still here\n\n",
    b'id: 9\ndata: {"choices":[]}\n\n',
    b'data: {"choices":[\n\n',
    b"data: ]}\n\n",
    b'data: {"choices":[]} {"choices":[]}\n\n',
    b'data: {"error":{"message":"overloaded","code":"server_error"}}\n\n',
    b"data: [DONE]\n\n",
]


class OneByOne(OpenAIRelay):
    def feed(self, data: bytes) -> bytes:
        return self._pass(self._splitter.feed(data))


@pytest.mark.parametrize("strip", [True, False])
@pytest.mark.parametrize("seed", range(40))
def test_events_taken_together_come_to_the_same_as_one_by_one(seed: int, strip: bool) -> None:
    pick = random.Random(seed)
    data = [b"".join(pick.choices(PIECES[: pick.choice((8, 12, len(PIECES)))], k=pick.randint(1, 5))) for _ in range(6)]
    together = OpenAIRelay(strip_usage=strip, choices=1)
    single = OneByOne(strip_usage=strip, choices=1)
    for piece in data:
        assert together.feed(piece) == single.feed(piece), piece
        for name in ("usage", "characters", "events", "finished", "finish_reason", "done"):
            assert getattr(together.tally, name) == getattr(single.tally, name), (name, piece)
        assert type(together.tally.failure) is type(single.tally.failure)
