"""Published prices are asked of a child, and kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from nexus.llm.money import price_book
from nexus.llm.money.price_book import PriceBook
from nexus.llm.money.pricing import PriceTable, Question
from nexus.llm.money.published_prices import PublishedPrices
from nexus.llm.registry import Registry
from nexus.llm.settings import LLMSettings

QUESTIONS = [
    Question("openai", "gpt-4o"),
    Question("google", "gemini-2.5-pro"),
    Question("openai", "gpt-5.6-sol"),
    Question(None, "llama-3.3-70b-versatile", "https://api.groq.com/openai/v1"),
    Question("openai", "no-such-model"),
    Question(None, "x"),
    Question("deepseek", "deepseek-v4-pro"),
]


@pytest.fixture
def book(tmp_path: Path) -> Iterator[PriceBook]:
    made = PriceBook(tmp_path / "prices.json")
    yield made
    made.close()


@pytest.fixture
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on nothing can be asked."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(price_book.subprocess, "Popen", refuse)


@pytest.mark.slow
def test_the_child_says_what_the_data_says_and_a_later_start_asks_nobody(
    book: PriceBook, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    expected = PublishedPrices().find_all(QUESTIONS)
    assert book.find_all(QUESTIONS) == expected
    assert expected[0][0] is not None
    assert expected[4] == (None, float("inf"))
    assert book._child is not None
    pid = book._child.pid
    assert book.find_all([Question("openai", "gpt-4o-mini")])[0][0] is not None
    assert book._child.pid == pid, "one child serves as long as somebody asks"
    book.close()
    assert book._child is None
    request.getfixturevalue("no_child")
    assert PriceBook(tmp_path / "prices.json").find_all(QUESTIONS) == expected


@pytest.mark.slow
def test_a_child_that_died_is_started_again(book: PriceBook) -> None:
    assert book.find_all(QUESTIONS[:1])[0][0] is not None
    assert book._child is not None
    book._child.kill()
    book._child.wait()
    assert book.find_all(QUESTIONS[1:2])[0][0] is not None


@pytest.mark.slow
def test_a_child_that_nobody_asks_ends(book: PriceBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price_book, "_IDLE", 0.05)
    book.find_all(QUESTIONS[:1])
    assert book._rest is not None
    book._rest.join(60)
    assert book._child is None


def test_prices_that_cannot_be_read_are_unknown_for_a_minute(
    book: PriceBook, no_child: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "nexus.llm"):
        ((price, until),) = book.find_all(QUESTIONS[:1])
    assert price is None
    assert 0 < until - price_book.time.time() <= 60
    assert "no more processes" in caplog.text
    table = PriceTable.shipped(book)
    assert table.find("openai", "gpt-4o") is None
    assert table.changes_at < float("inf"), "it is asked again"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        msgspec.json.encode({"source": "genai-prices 0.0.0", "entries": [[["openai", "gpt-4o", ""], None, None]]}),
    ],
)
def test_a_file_of_other_data_or_of_none_counts_for_nothing(
    book: PriceBook, no_child: None, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "prices.json").write_bytes(content)
    assert book.find_all(QUESTIONS[:1])[0][1] < float("inf")


@pytest.mark.slow
async def test_the_first_call_waits_for_its_price_and_the_event_loop_does_not(book: PriceBook) -> None:
    registry = Registry(LLMSettings(providers=[{"name": "up", "kind": "openai", "api_key": "x"}]), book)
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    heart = asyncio.create_task(beat())
    route = await registry.priced("up/gpt-4o")
    heart.cancel()
    assert route.deployments[0].price is not None
    assert route.deployments[0].price.input == 2.5
    assert beats > 5
