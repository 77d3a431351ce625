"""What calls cost."""

from __future__ import annotations

import pytest

from nexus.llm.pricing import PriceTable, cost
from nexus.llm.types import Price, Usage

FULL = Price(input=3, output=15, cache_read=0.3, cache_write=3.75, cache_write_1h=6)


@pytest.mark.parametrize(
    ("usage", "price", "dollars"),
    [
        (Usage(input_tokens=1000, output_tokens=100), FULL, 1000 * 3 + 100 * 15),
        (Usage(input_tokens=1000, cache_read_tokens=400), FULL, 600 * 3 + 400 * 0.3),
        (
            Usage(input_tokens=1000, cache_write_tokens=300, cache_write_1h_tokens=100),
            FULL,
            700 * 3 + 200 * 3.75 + 100 * 6,
        ),
        (Usage(input_tokens=1000, cache_read_tokens=400), Price(input=3, output=15), 3000),
        (Usage(input_tokens=10, cache_read_tokens=400), FULL, 400 * 0.3),
        (Usage(input_tokens=10, output_tokens=10), Price(input=0, output=0), 0),
        (Usage(), FULL, 0),
    ],
)
def test_tiers_add_up(usage: Usage, price: Price, dollars: float) -> None:
    assert cost(usage, price) == pytest.approx(dollars / 1e6)


def test_an_unknown_price_is_not_zero() -> None:
    assert cost(Usage(input_tokens=5), None) is None
    assert PriceTable.shipped().find("openai", "gpt-99") is None
    assert PriceTable.shipped().find("vllm", "gpt-4o") is None


def test_shipped_prices_match_whole_names() -> None:
    table = PriceTable.shipped()
    assert table.find("openai", "gpt-4o") == Price(input=2.5, output=10, cache_read=1.25)
    assert table.find("openai", "gpt-4o-mini") == Price(input=0.15, output=0.6, cache_read=0.075)
    assert table.find("openai", "gpt-4o-audio-preview") is None
    assert table.find("local", "anything") == Price(input=0, output=0)
