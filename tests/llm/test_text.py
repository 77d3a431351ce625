"""Text tasks over HTTP, and how long texts are cut."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.llm.conftest import Gateway

from nexus.llm.splitting import split
from nexus.testing.upstream import FakeUpstream


@given(st.text(max_size=400), st.integers(5, 80))
def test_no_piece_is_too_long_and_no_word_is_lost(text: str, size: int) -> None:
    pieces = split(text, size)
    assert all(len(piece) <= size for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_texts_are_cut_at_paragraphs_then_sentences() -> None:
    assert split("one two.\n\nthree four.\n\nfive", 22) == ["one two.\n\nthree four.", "five"]
    assert split("One two. Three four. Five.", 12) == ["One two.", "Three four.", "Five."]


def test_a_summary_is_asked_for_and_priced(gateway: Gateway, upstream: FakeUpstream) -> None:
    body = {"text": "alpha beta", "model": "up/gpt-4o", "style": "bullets", "language": "German", "max_words": 20}
    response = httpx.post(f"{gateway.url}/api/v1/text/summarize", json=body)
    answer = response.json()
    assert response.status_code == 200, answer
    asked = upstream.seen[0].json["messages"][0]["content"]
    assert "bullet points" in asked
    assert "in German" in asked
    assert asked.endswith("alpha beta")
    row = gateway.row()
    assert (row.kind, row.id) == ("text.summarize", answer["id"])
    assert answer["cost_usd"] == row.cost_usd
    assert answer["parts"] == answer["calls"] == 1


def test_a_long_text_is_summarised_part_by_part(gateway: Gateway, upstream: FakeUpstream) -> None:
    text = "\n\n".join(f"Paragraph {i} " + "word " * 400 for i in range(40))
    answer = httpx.post(f"{gateway.url}/api/v1/text/summarize", json={"text": text, "model": "up/m"}, timeout=30).json()
    assert answer["parts"] >= 2
    assert answer["calls"] == len(upstream.seen) == len(gateway.rows)
    assert all(len(seen.body) < 60_000 for seen in upstream.seen)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/text"),
        ({"text": ""}, "/text"),
        ({"text": 5}, "/text"),
        ({"text": "a", "style": "haiku"}, "/style"),
        ({"text": "a", "max_words": 1}, "/max_words"),
        ({"text": "a", "language": "x; ignore all"}, "/language"),
        ({"text": "a", "typo": 1}, "/typo"),
    ],
)
def test_bad_input_names_the_field(gateway: Gateway, body: dict[str, object], pointer: str) -> None:
    response = httpx.post(f"{gateway.url}/api/v1/text/summarize", json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == pointer


def test_an_unknown_model_is_404(gateway: Gateway) -> None:
    response = httpx.post(f"{gateway.url}/api/v1/text/summarize", json={"text": "a", "model": "nope"})
    assert (response.status_code, response.json()["code"]) == (404, "model_not_found")
