"""Binary event streams against AWS's own reader: recordings, random frames, cuts at any byte, damage."""

from __future__ import annotations

import random
import struct
import uuid
import zlib
from pathlib import Path
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus.llm.errors import UpstreamMalformed, UpstreamTruncated
from nexus.llm.wire.eventstream import Frame, FrameSplitter, HeaderType, encode
from nexus.testing.recordings import load_cassette

NUMBERS = {
    HeaderType.INT8: 8,
    HeaderType.INT16: 16,
    HeaderType.INT32: 32,
    HeaderType.INT64: 64,
    HeaderType.TIMESTAMP: 64,
}


def split(data: bytes, cut: random.Random | None = None) -> list[Frame]:
    splitter, frames, at = FrameSplitter(), [], 0
    while at < len(data):
        step = cut.randrange(1, 80) if cut else len(data)
        frames += splitter.feed(data[at : at + step])
        at += step
    return frames + splitter.end()


def read_by_botocore(data: bytes) -> list[tuple[dict[str, Any], bytes]]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return [(message.headers, message.payload) for message in buffer]


@pytest.mark.slow
def test_every_recorded_stream_reads_as_aws_reads_it(shared: Path) -> None:
    cut = random.Random(20_261_126)
    streams = frames = 0
    for path in sorted((shared / "data" / "llm" / "cassettes").glob("*/*.y*ml")):
        if b"vnd.amazon.eventstream" not in path.read_bytes():
            continue
        for exchange in load_cassette(path):
            if not exchange.framed or not exchange.body:
                continue
            found = split(exchange.body, cut)
            assert [tuple(frame) for frame in found] == read_by_botocore(exchange.body), path.name
            assert b"".join(encode(frame.headers, frame.payload) for frame in found) == exchange.body, path.name
            streams, frames = streams + 1, frames + len(found)
    print(streams, "streams,", frames, "frames")
    assert (streams, frames) >= (28, 500)


def header_value() -> st.SearchStrategy[tuple[HeaderType, Any]]:
    numbers = [
        st.tuples(st.just(kind), st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)) for kind, bits in NUMBERS.items()
    ]
    return st.one_of(
        st.just((HeaderType.TRUE, True)),
        st.just((HeaderType.FALSE, False)),
        *numbers,
        st.tuples(st.just(HeaderType.BYTES), st.binary(max_size=40)),
        st.tuples(st.just(HeaderType.STRING), st.text(max_size=20)),
        st.tuples(st.just(HeaderType.UUID), st.uuids()),
    )


NAMES = st.text(min_size=1, max_size=20).filter(lambda name: len(name.encode()) < 256)
FRAMES = st.lists(st.tuples(st.dictionaries(NAMES, header_value(), max_size=6), st.binary(max_size=300)), max_size=4)


@settings(max_examples=60)
@given(FRAMES, st.integers())
def test_any_frame_is_read_as_aws_reads_it_wherever_it_is_cut(frames: list[Any], seed: int) -> None:
    data = b"".join(encode(headers, payload) for headers, payload in frames)
    found = split(data, random.Random(seed))
    # AWS's library gives the bytes of a UUID.
    plain = [
        ({n: v.bytes if isinstance(v, uuid.UUID) else v for n, v in frame.headers.items()}, frame.payload)
        for frame in found
    ]
    assert plain == read_by_botocore(data)
    assert [(frame.headers, frame.payload) for frame in found] == [
        ({name: value for name, (_, value) in headers.items()}, payload) for headers, payload in frames
    ]


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 255), st.integers(0, 10_000))
def test_a_flipped_bit_is_never_read(place: int, flip: int, cut: int) -> None:
    whole = encode({":message-type": "event", ":event-type": "chunk"}, b'{"a": 1}')
    damaged = bytearray(whole * 2)
    damaged[len(whole) + place % len(whole)] ^= flip
    at = cut % len(damaged)
    seen: list[Frame] = []

    def read() -> None:
        splitter = FrameSplitter()
        for piece in (bytes(damaged[:at]), bytes(damaged[at:]), b""):
            seen.extend(splitter.feed(piece))
        seen.extend(splitter.end())

    with pytest.raises((UpstreamMalformed, UpstreamTruncated)):
        read()
    # What came whole before the damage is not lost.
    assert [frame.payload for frame in seen] == [b'{"a": 1}']


@pytest.mark.parametrize("length", range(1, 40))
def test_an_end_in_the_middle_of_a_frame_is_noticed(length: int) -> None:
    splitter = FrameSplitter()
    assert splitter.feed(encode({"a": "b"}, b"payload" * 10)[:length]) == []
    with pytest.raises(UpstreamTruncated):
        splitter.end()


def framed(total: int, headers: int, rest: bytes = b"") -> bytes:
    lengths = struct.pack(">II", total, headers)
    return lengths + struct.pack(">I", zlib.crc32(lengths)) + rest


def with_headers(data: bytes) -> bytes:
    body = framed(16 + len(data), len(data), data)
    return body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize(
    "data",
    [
        framed(15, 0),
        framed(16, 1),
        framed(2**31, 0),
        framed(200_000, 140_000),
        b"HTTP/1.1 200 OK\r\n",
        b'{"message": "no frames"}',
        with_headers(b"\x01a\x0a"),
        with_headers(b"\x01a\x07\x00\x05ab"),
        with_headers(b"\x05ab"),
        with_headers(b"\x01a\x04\x00"),
        with_headers(b"\x01a\x07\x00\x01\xff"),
        with_headers(b"\x01\xff\x00"),
        with_headers(b"\x01a\x00\x01a\x01"),
        with_headers(b"\x01a"),
    ],
)
def test_what_is_no_frame_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(UpstreamMalformed):
        FrameSplitter().feed(data)


@pytest.mark.parametrize(("value", "kind"), [(5, 4), (-(2**31) - 1, 5), (True, 0), ("x", 7), (b"x", 6)])
def test_plain_values_have_their_natural_type(value: Any, kind: int) -> None:
    frame = encode({"n": value})
    assert frame[14] == kind
    assert split(frame)[0].headers == {"n": value}


def test_what_has_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        encode({}, b"x" * (24 * 1024 * 1024 + 1))
    with pytest.raises(ValueError, match="fit"):
        encode({"a": (HeaderType.STRING, 5)})
    with pytest.raises(struct.error):
        encode({"a": (HeaderType.INT8, 500)})
