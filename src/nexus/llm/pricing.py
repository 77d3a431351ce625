"""What a call costs. Prices are data (`prices.toml`, and a deployment's own); an unknown price is None, never 0."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files

import msgspec

from nexus.llm.types import Price, Usage


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    models: str
    price: Price


class PriceTable:
    """Prices by provider kind and model name. Looked up once for each deployment, never for each call."""

    def __init__(self, rows: list[_Row]) -> None:
        """Keep the rows; the first whose pattern matches the whole model name counts."""
        self._rows = [(row.kind, re.compile(row.models), row.price) for row in rows]

    @classmethod
    def shipped(cls) -> PriceTable:
        """Return the table that comes with NEXUS."""
        text = files("nexus.llm").joinpath("prices.toml").read_text(encoding="utf-8")
        return cls(msgspec.convert(tomllib.loads(text)["row"], list[_Row]))

    def find(self, kind: str, model: str) -> Price | None:
        """Return the price of a model, or None where it is not known."""
        for row_kind, pattern, price in self._rows:
            if row_kind == kind and pattern.fullmatch(model):
                return price
        return None


def cost(usage: Usage, price: Price | None) -> float | None:
    """Return dollars for these tokens; None without a price. Cache tiers are part of the input tokens."""
    if price is None:
        return None
    read, written = usage.cache_read_tokens, usage.cache_write_tokens
    long = min(usage.cache_write_1h_tokens, written)
    plain = max(usage.input_tokens - read - written, 0)
    write_price = _or(price.cache_write, price.input)
    total = (
        plain * price.input
        + read * _or(price.cache_read, price.input)
        + (written - long) * write_price
        + long * _or(price.cache_write_1h, write_price)
        + usage.output_tokens * price.output
    )
    return total / 1_000_000


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
