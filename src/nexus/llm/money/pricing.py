"""What a call costs. Prices are data: a deployment's own, the operator's, `prices.toml`, then what was published.

An unknown price is None, never 0.
"""

from __future__ import annotations

import re
import threading
import time
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple, Protocol

import msgspec

from nexus.llm.types import Price, Usage

_MOST_REMEMBERED = 4096


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A price of ours: for models of a provider kind (or account) whose whole name matches `models`."""

    kind: str
    models: str
    price: Price


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """Under which name a kind's prices are published; `strip` is cut from its model names before they are looked up.

    `{suffix}` in `name` stands for what follows the last colon of the model's name.
    """

    kind: str
    name: str
    strip: str | None = None


class Shipped(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `prices.toml`."""

    row: list[Row]
    published: list[Alias]


class Question(NamedTuple):
    """Whose price is wanted: a publisher's name of a provider, the model's name there, and where it is called."""

    provider: str | None
    model: str
    base_url: str = ""


class Published(Protocol):
    """Where prices are looked up that are not ours."""

    def find_all(self, questions: Sequence[Question]) -> list[tuple[Price | None, float]]:
        """Return for each the price now, and when (seconds since 1970) it may be another. May take a second."""
        ...


class Priced(NamedTuple):
    """What a price is for: a provider's kind, the model, where it is called, and the account's name."""

    kind: str
    model: str
    base_url: str = ""
    account: str = ""


class PriceTable:
    """Prices by provider kind and model name. Looked up once for each deployment, never for each call."""

    def __init__(self, shipped: Shipped, published: Published | None = None, rows: Sequence[Row] = ()) -> None:
        """`rows` are the operator's and come first; the first whose pattern matches the whole model name counts."""
        self._rows = [(row.kind, re.compile(row.models), _from(row.price, "settings")) for row in rows]
        self._rows += [(row.kind, re.compile(row.models), _from(row.price, "nexus")) for row in shipped.row]
        self._aliases = {alias.kind: alias for alias in shipped.published}
        self._published = published
        self._found: dict[tuple[str, str, str], Price | None] = {}
        self._mutex = threading.Lock()
        self.changes_at = float("inf")

    @classmethod
    def shipped(cls, published: Published | None = None, rows: Sequence[Row] = ()) -> PriceTable:
        """Return the table that comes with NEXUS, with the operator's `rows` before it."""
        return cls(_shipped(), published, rows)

    def find(self, kind: str, model: str, base_url: str = "", account: str = "") -> Price | None:
        """Return the price of a model at a kind of provider, or None where it is not known; may take a second."""
        wanted = Priced(kind, model, base_url, account)
        self.look_up([wanted])
        return self.known(wanted)

    def look_up(self, wanted: Iterable[Priced]) -> None:
        """Look all of these up at once, but for those that are known; may take a second."""
        with self._mutex:
            wanted = list(wanted)
            if len(self._found) + len(wanted) > _MOST_REMEMBERED:
                self._found.clear()
            keys = list({item[:3]: None for item in wanted if not self.knows(item)})
            if not keys or self._published is None:
                return
            asked = [Question(*self._known_as(kind, model), base_url) for kind, model, base_url in keys]
            for key, (price, until) in zip(keys, self._published.find_all(asked), strict=True):
                self._found[key] = price
                self.changes_at = min(self.changes_at, until)

    def knows(self, wanted: Priced) -> bool:
        """Tell whether nothing has to be looked up for this price."""
        return self._published is None or wanted[:3] in self._found or self._row(wanted) is not None

    def known(self, wanted: Priced) -> Price | None:
        """Return the price as far as it is known without looking it up."""
        row = self._row(wanted)
        return row if row is not None else self._found.get(wanted[:3])

    def renew(self, now: float | None = None) -> bool:
        """Forget what was published once some of it may have changed; tell whether that is so."""
        if (time.time() if now is None else now) < self.changes_at:
            return False
        with self._mutex:
            self._found.clear()
            self.changes_at = float("inf")
        return True

    def _row(self, wanted: Priced) -> Price | None:
        whose = (wanted.kind, wanted.account)
        return next(
            (price for kind, models, price in self._rows if kind in whose and models.fullmatch(wanted.model)), None
        )

    def _known_as(self, kind: str, model: str) -> tuple[str | None, str]:
        alias = self._aliases.get(kind)
        if alias is None:
            return None, model
        name = alias.name
        if "{suffix}" in name:
            model, _, suffix = model.rpartition(":")
            if not model:
                return None, suffix
            name = name.replace("{suffix}", suffix)
        return name, re.sub(alias.strip, "", model) if alias.strip else model


@cache
def _shipped() -> Shipped:
    text = files("nexus.llm.money").joinpath("prices.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), Shipped)


def cost(usage: Usage, price: Price | None) -> float | None:
    """Return dollars for these tokens; None without a price. Cache tiers and sound are part of the tokens."""
    if price is None:
        return None
    if usage.tier is not None and usage.tier in price.variants:
        price = price.variants[usage.tier]
    for tier in price.tiers:
        if usage.input_tokens <= tier.above:
            break
        price = tier.price
    total = usage.input_tokens * price.input + usage.output_tokens * price.output
    if usage.cache_read_tokens or usage.cache_write_tokens:
        total += _cached(usage, price)
    if usage.reasoning_tokens and price.reasoning is not None:
        total += usage.reasoning_tokens * (price.reasoning - price.output)
    if usage.audio_input_tokens or usage.audio_output_tokens or usage.image_output_tokens:
        total += _media(usage, price)
    return (total if total > 0 else 0.0) / 1_000_000 + price.request + usage.web_searches * price.web_search


def _cached(usage: Usage, price: Price) -> float:
    """Return what the cache tiers add to the price of plain input."""
    read, written = usage.cache_read_tokens, usage.cache_write_tokens
    long = min(usage.cache_write_1h_tokens, written)
    write_price = _or(price.cache_write, price.input)
    return (
        read * (_or(price.cache_read, price.input) - price.input)
        + (written - long) * (write_price - price.input)
        + long * (_or(price.cache_write_1h, write_price) - price.input)
        # Figures that contradict each other: nobody reads more from a cache than they read.
        + max(read + written - usage.input_tokens, 0) * price.input
    )


def _media(usage: Usage, price: Price) -> float:
    """Return what sound and pictures add to the price of as many plain tokens."""
    heard = usage.audio_input_tokens
    cached = min(usage.audio_cache_read_tokens, usage.cache_read_tokens, heard)
    audio = _or(price.audio_input, price.input)
    read = _or(price.cache_read, price.input)
    return (
        (heard - cached) * (audio - price.input)
        + cached * (_or(price.audio_cache_read, read) - read)
        + usage.audio_output_tokens * (_or(price.audio_output, price.output) - price.output)
        + usage.image_output_tokens * (_or(price.image_output, price.output) - price.output)
    )


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _from(price: Price, source: str) -> Price:
    return msgspec.structs.replace(price, source=source)
