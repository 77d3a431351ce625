"""Prices as providers publish them, from the data that comes with `genai-prices`. Never touches the network.

The package takes half a second and 24 MB to import, so a program of its own does (`python -m
nexus.llm.money.published_prices`, started by `nexus.llm.money.price_book`): on each line of its input a JSON list of
questions, on each line of its output the answers.
Source: https://github.com/pydantic/genai-prices.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import msgspec

from nexus.llm.money.pricing import Question
from nexus.llm.types import Price, PriceTier

# The unit's name there, and our field. Dollars for a million tokens, but for the last two: for a thousand.
_FIELDS = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "audio_input",
    "output_audio_mtok": "audio_output",
    "cache_audio_read_mtok": "audio_cache_read",
    "output_image_mtok": "image_output",
    "output_reasoning_mtok": "reasoning",
}
_EACH = {"requests_kcount": "request", "web_searches_kcount": "web_search"}
_TIER_KEYS = ("service_tier", "speed", "processing")
_FOREVER = float("inf")


class PublishedPrices:
    """The data of `genai-prices`, by its own names of providers."""

    def find_all(self, questions: Sequence[Question]) -> list[tuple[Price | None, float]]:
        """Return the prices now and until when they hold; the provider is the one at the address, else the named."""
        now = datetime.now(UTC)
        return [self.at(now, *question) for question in questions]

    def at(self, moment: datetime, name: str | None, model: str, base_url: str = "") -> tuple[Price | None, float]:
        """Return the price at a moment and until when (seconds since 1970) it holds."""
        providers = self._data.providers
        provider = next((item for item in providers if base_url and re.match(item.api_pattern, base_url)), None)
        if provider is None:
            provider = next((item for item in providers if item.id == name), None)
        found = provider.find_model(model, all_providers=providers) if provider is not None else None
        if found is None:
            return None, _FOREVER
        price = _price(vars(found.get_prices(moment)), self._source)
        if price is not None and found.price_variants:
            variants = {tier: _price(vars(found.get_prices(moment, {key: tier})), self._source)
                        for key, tier in _tiers_of(found.price_variants)}  # fmt: skip
            kept = {tier: other for tier, other in variants.items() if other is not None and other != price}
            price = msgspec.structs.replace(price, variants=kept)
        return price, _changes_at(found, moment)

    @cached_property
    def _data(self) -> Any:
        from genai_prices.data_snapshot import get_snapshot

        return get_snapshot()

    @cached_property
    def _source(self) -> str:
        from genai_prices import __version__

        return f"genai-prices {__version__}"


def _price(units: Mapping[str, Any], source: str) -> Price | None:
    """Return a price of plain numbers; None for what is not billed by tokens at all."""
    given = {key: value for key, value in units.items() if value is not None}
    if "input_mtok" not in given and "output_mtok" not in given:
        return None
    base = _flat(given, None, source)
    bounds = sorted({tier.start for value in given.values() for tier in getattr(value, "tiers", ())})
    tiers = tuple(PriceTier(above=start, price=_flat(given, start, source)) for start in bounds)
    return msgspec.structs.replace(base, tiers=tiers)


def _flat(given: Mapping[str, Any], start: int | None, source: str) -> Price:
    """Return the price of calls above the bound `start`."""
    fields: dict[str, Any] = {"input": 0.0, "output": 0.0, "source": source}
    fields |= {name: _number(given[unit], start) for unit, name in _FIELDS.items() if unit in given}
    fields |= {name: _number(given[unit], start) / 1000 for unit, name in _EACH.items() if unit in given}
    return Price(**fields)


def _number(value: Any, start: int | None) -> float:
    if not hasattr(value, "tiers"):
        return float(value)
    reached = [tier.price for tier in value.tiers if start is not None and tier.start <= start]
    return float(reached[-1] if reached else value.base)


def _tiers_of(variants: list[Any]) -> set[tuple[str, str]]:
    return {(key, variant.when[key]) for variant in variants for key in _TIER_KEYS if set(variant.when) == {key}}


def _changes_at(found: Any, moment: datetime) -> float:
    """Return when the next of the model's dated or hourly prices begins or ends."""
    dated = [*(found.prices if isinstance(found.prices, list) else ()), *(found.price_variants or ())]
    ahead = []
    for constraint in (item.constraint for item in dated if item.constraint is not None):
        if (day := getattr(constraint, "start_date", None)) is not None:
            ahead.append(datetime(day.year, day.month, day.day, tzinfo=UTC))
            continue
        for hour in (constraint.start_time, constraint.end_time):
            today = datetime.combine(moment.astimezone(UTC).date(), hour, hour.tzinfo or UTC)
            ahead += [today, today + timedelta(days=1)]
    return min((change.timestamp() for change in ahead if change > moment), default=_FOREVER)


def main() -> None:
    """Answer the questions of standard input until it ends. A price without an end has None for it."""
    published = PublishedPrices()
    for line in sys.stdin.buffer:
        found = published.find_all(msgspec.json.decode(line, type=list[Question]))
        answers = [(price, None if until == _FOREVER else until) for price, until in found]
        sys.stdout.buffer.write(msgspec.json.encode(answers) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
