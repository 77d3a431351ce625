"""Gemini's streams cut into pieces, wherever the bytes are cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.llm.forms.gemini.stream import PieceSplitter

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


@pytest.mark.parametrize(("before", "after"), [(b"data: ", b"\n\n"), (b"[", b"]")], ids=["events", "array"])
def test_a_picture_comes_in_thousands_of_pieces(before: bytes, after: bytes) -> None:
    """Looking through all that is held for each of them would take minutes."""
    picture = b'{"data":"' + b"x" * 8_000_000 + b'"}'
    whole = before + picture + after
    splitter = PieceSplitter()
    found = [piece for start in range(0, len(whole), 1000) for piece in splitter.feed(whole[start : start + 1000])]
    assert [piece.data for piece in found] == [picture]
