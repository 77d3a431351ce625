"""What calls cost."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.llm.money.pricing import PriceTable, Row, cost
from nexus.llm.money.published_prices import PublishedPrices
from nexus.llm.types import Price, PriceTier, Usage

FULL = Price(
    input=3, output=15, cache_read=0.3, cache_write=3.75, cache_write_1h=6,
    audio_input=40, audio_output=80, audio_cache_read=2.5, image_output=30, reasoning=20,
    request=0.012, web_search=0.01,
)  # fmt: skip
PLAIN = Price(input=3, output=15)
LONG = Price(input=3, output=15, tiers=(PriceTier(above=1000, price=Price(input=6, output=22.5)),))
MOMENT = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("usage", "price", "micros"),
    [
        (Usage(input_tokens=1000, output_tokens=100), PLAIN, 1000 * 3 + 100 * 15),
        (Usage(input_tokens=1000, cache_read_tokens=400), FULL, 12_000 + 600 * 3 + 400 * 0.3),
        (
            Usage(input_tokens=1000, cache_write_tokens=300, cache_write_1h_tokens=100),
            FULL,
            12_000 + 700 * 3 + 200 * 3.75 + 100 * 6,
        ),
        (Usage(input_tokens=1000, cache_read_tokens=400), PLAIN, 3000),
        (Usage(input_tokens=10, cache_read_tokens=400), FULL, 12_000 + 400 * 0.3),
        (Usage(input_tokens=10, output_tokens=10), Price(input=0, output=0), 0),
        (Usage(), PLAIN, 0),
        (Usage(output_tokens=100, reasoning_tokens=40), FULL, 12_000 + 60 * 15 + 40 * 20),
        (Usage(output_tokens=100, reasoning_tokens=40), PLAIN, 1500),
        (Usage(input_tokens=100, audio_input_tokens=60), FULL, 12_000 + 40 * 3 + 60 * 40),
        (Usage(input_tokens=100, audio_input_tokens=60), PLAIN, 300),
        (
            Usage(input_tokens=100, audio_input_tokens=60, cache_read_tokens=50, audio_cache_read_tokens=20),
            FULL,
            12_000 + 10 * 3 + 40 * 40 + 30 * 0.3 + 20 * 2.5,
        ),
        (Usage(output_tokens=50, audio_output_tokens=30), FULL, 12_000 + 20 * 15 + 30 * 80),
        (Usage(output_tokens=50, image_output_tokens=30), FULL, 12_000 + 20 * 15 + 30 * 30),
        (Usage(web_searches=3), FULL, 12_000 + 30_000),
        (Usage(input_tokens=1000, output_tokens=10), LONG, 1000 * 3 + 10 * 15),
        (Usage(input_tokens=1001, output_tokens=10), LONG, 1001 * 6 + 10 * 22.5),
    ],
)
def test_tiers_add_up(usage: Usage, price: Price, micros: float) -> None:
    assert cost(usage, price) == pytest.approx(micros / 1e6)


def test_a_service_tier_has_its_own_price_where_there_is_one() -> None:
    price = Price(input=2, output=8, variants={"flex": Price(input=1, output=4)})
    assert cost(Usage(input_tokens=10, tier="flex"), price) == pytest.approx(10 / 1e6)
    assert cost(Usage(input_tokens=10, tier="scale"), price) == pytest.approx(20 / 1e6)


def test_an_unknown_price_is_not_zero() -> None:
    assert cost(Usage(input_tokens=5), None) is None
    table = PriceTable.shipped(PublishedPrices())
    assert table.find("openai", "gpt-99") is None
    assert table.find("vllm", "gpt-4o") is None
    assert table.find("huggingface", "meta-llama/Llama-3.1-8B-Instruct") is None, "nobody knows who will serve it"
    assert table.find("mistral", "mistral-ocr-latest") is None, "it is billed by pages, not by tokens"


@pytest.mark.parametrize(
    ("kind", "model", "base_url", "prices"),
    [
        ("openai", "gpt-4o", "", (2.5, 10, 1.25)),
        ("openai", "gpt-4o-mini-2024-07-18", "http://127.0.0.1:9/v1", (0.15, 0.6, 0.075)),
        ("openai", "ft:gpt-4o-mini-2024-07-18:org::abc", "", (0.3, 1.2, None)),
        ("openai", "text-embedding-3-small", "", (0.02, 0, None)),
        ("openai", "llama-3.3-70b-versatile", "https://api.groq.com/openai/v1", (0.59, 0.79, None)),
        ("azure", "gpt-35-turbo", "https://mine.openai.azure.com", (0.5, 1.5, None)),
        ("anthropic", "claude-3-haiku-20240307", "", (0.25, 1.25, 0.03)),
        ("google", "models/gemini-2.5-pro", "", (1.25, 10, 0.125)),
        ("google", "text-embedding-004", "", (0, 0, None)),
        ("vertex", "publishers/google/models/gemini-2.5-pro", "", (1.25, 10, 0.125)),
        ("vertex", "google/gemini-2.5-pro", "", (1.25, 10, 0.125)),
        ("vertex", "claude-sonnet-4-5@20250929", "", (3, 15, 0.3)),
        ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "", (3.3, 16.5, 0.33)),
        ("bedrock", "global.anthropic.claude-haiku-4-5-20251001-v1:0", "", (1, 5, 0.1)),
        (
            "bedrock",
            "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.amazon.nova-micro-v1:0",
            "https://bedrock-runtime.eu-west-1.amazonaws.com",
            (0.035, 0.14, 0.00875),
        ),
        ("bedrock", "cohere.embed-english-v3", "", (0.1, 0, None)),
        ("huggingface", "deepseek-ai/DeepSeek-R1:together", "https://router.huggingface.co/v1", (3, 7, None)),
        ("openrouter", "google/gemini-2.5-flash:nitro", "", (0.3, 2.5, 0.03)),
        ("openrouter", "meta-llama/llama-3.1-8b-instruct:free", "", (0, 0, None)),
        ("xai", "grok-4", "", (3, 15, 0.75)),
        ("local", "anything", "", (0, 0, None)),
    ],
)
def test_published_prices_are_found_under_every_name(
    kind: str, model: str, base_url: str, prices: tuple[Any, ...]
) -> None:
    price = PriceTable.shipped(PublishedPrices()).find(kind, model, base_url)
    assert price is not None
    assert (price.input, price.output, price.cache_read) == prices
    assert price.source.startswith("genai-prices ") or price.source == "nexus"


def test_the_operators_prices_come_first() -> None:
    mine = Price(input=1, output=1)
    table = PriceTable.shipped(PublishedPrices(), [Row(kind="work", models="gpt-4o.*", price=mine)])
    found = table.find("openai", "gpt-4o-mini", account="work")
    assert found is not None
    assert (found.input, found.source) == (1, "settings")
    other = table.find("openai", "gpt-4o-mini", account="home")
    assert other is not None
    assert other.input == 0.15


def test_context_tiers_hourly_and_dated_prices() -> None:
    published = PublishedPrices()
    tiered, _ = published.at(MOMENT, "google", "gemini-2.5-pro")
    assert tiered is not None
    assert [(tier.above, tier.price.input) for tier in tiered.tiers] == [(200_000, 2.5)]
    dated, until = published.at(MOMENT, "google", "gemini-4-argon")
    assert dated is not None
    assert dated.input == 2
    assert until == datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    later, _ = published.at(datetime(2026, 12, 1, tzinfo=UTC), "google", "gemini-4-argon")
    assert later is not None
    assert later.input == 4
    night, until = published.at(datetime(2026, 11, 26, 2, tzinfo=UTC), "deepseek", "deepseek-v4-pro")
    assert night is not None
    assert night.input == 1.32
    assert until == datetime(2026, 11, 26, 4, tzinfo=UTC).timestamp()
    assert published.at(MOMENT, "groq", "llama-3.3-70b-versatile")[1] == float("inf")


def test_what_may_have_changed_is_looked_up_again() -> None:
    table = PriceTable.shipped(PublishedPrices())
    table.find("openai", "gpt-4o")
    assert not table.renew(0.0)
    table.changes_at = 100.0
    assert table.renew(100.0)
    assert table.find("openai", "gpt-4o") is not None


TOKENS = st.integers(0, 400_000)


@given(
    read=TOKENS, written=TOKENS, long=TOKENS, plain=TOKENS, audio=TOKENS, output=TOKENS, reasoning=TOKENS,
    searches=st.integers(0, 20),
    model=st.sampled_from([
        ("anthropic", "claude-sonnet-4-5"), ("openai", "gpt-4o"), ("openai", "gpt-5.6-sol"),
        ("google", "gemini-2.5-pro"),
        ("google", "gemini-2.5-flash"), ("perplexity", "sonar-deep-research"), ("aws", "amazon.nova-micro-v1:0"),
    ]),
)  # fmt: skip
def test_the_formula_is_that_of_genai_prices(
    read: int, written: int, long: int, plain: int, audio: int, output: int, reasoning: int, searches: int,
    model: tuple[str, str],
) -> None:  # fmt: skip
    from genai_prices import Usage as TheirUsage
    from genai_prices import calc_price

    price, _ = PublishedPrices().at(MOMENT, *model)
    assert price is not None
    # A unit without a price of its own is counted as its parent there; overlaps of sound and cache must be told.
    audio = audio if price.audio_input is not None else 0
    if price.cache_write is None:
        written = 0
    long = min(long, written) if price.cache_write_1h is not None else 0
    reasoning = min(reasoning, output)
    usage = Usage(
        input_tokens=plain + read + written + audio, output_tokens=output, cache_read_tokens=read,
        cache_write_tokens=written, cache_write_1h_tokens=long, audio_input_tokens=audio, reasoning_tokens=reasoning,
        web_searches=searches,
    )  # fmt: skip
    theirs = TheirUsage(
        input_tokens=usage.input_tokens, output_tokens=output, cache_read_tokens=read, cache_write_tokens=written,
        cache_write_1h_tokens=long, input_audio_tokens=audio, cache_audio_read_tokens=0, cache_audio_write_tokens=0,
        output_reasoning_tokens=reasoning, web_searches=searches,
    )  # fmt: skip
    expected = calc_price(theirs, model[1], provider_id=model[0], genai_request_timestamp=MOMENT).total_price
    found = cost(usage, price)
    assert found is not None
    assert abs(Decimal(found) - expected) <= Decimal("1e-9") * max(expected, Decimal(1))
