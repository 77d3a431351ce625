from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.core.errors import MalformedBody, TooLarge
from nexus.http.body import DEPTH, parse_json, read_body

INTEGERS = st.integers(-(2**63), 2**64 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
)


@given(JSON)
def test_everything_harmless_is_read_as_it_was_written(value: Any) -> None:
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'"a\\\\u0000b"', "a\\u0000b"),
        (b'"12345678901234567890123456789"', "12345678901234567890123456789"),
        (b"18446744073709551615", 2**64 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"0.12345678901234567890123456789", 0.12345678901234567890123456789),
        (b"[" * DEPTH + b"]" * DEPTH, None),
        (b'"' + b"[" * 1000 + b'"', "[" * 1000),
        (b"[" + b"[]," * 1000 + b"[]]", [[]] * 1001),
        (b'{"a":1,"a":2}', {"a": 2}),
    ],
)
def test_what_only_looks_dangerous_is_accepted(text: bytes, value: Any) -> None:
    read = parse_json(text)
    assert value is None or read == value


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" \n",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\\u0000"',
        b'{"\\u0000":1}',
        b'[{"a":[{"b":"x\\u0000"}]}]',
        b'"\x00"',
        b"18446744073709551616",
        b"-9223372036854775809",
        b'{"a":[1,' + b"7" * 5000 + b"]}",
        b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1),
        b'{"a":' * (DEPTH + 1) + b"1" + b"}" * (DEPTH + 1),
        b"[" * 100_000,
        b"{'a':1}",
        b"[1,]",
        b"\xff",
        b'"\xed\xa0\x80"',
        b"{} x",
    ],
)
def test_what_a_lower_layer_could_choke_on_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedBody):
        parse_json(text)


def receiver(*chunks: bytes) -> Any:
    messages = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks)}
        for number, chunk in enumerate(chunks, 1)
    ]

    async def receive() -> Any:
        return messages.pop(0)

    return receive


async def test_bodies_are_capped_on_the_bytes_that_arrive() -> None:
    assert await read_body(receiver(b"12345", b"67890"), 10) == b"1234567890"
    for chunks in ([b"12345678901"], [b"12345", b"678901"], [b"", b"123456", b"", b"78901"]):
        with pytest.raises(TooLarge):
            await read_body(receiver(*chunks), 10)
