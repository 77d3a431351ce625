"""What known models can do, as data (`abilities.toml`): what needs more is refused by name, not thinned out."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from nexus.llm.types import Capabilities

# What may stand before a model's own name: a publisher, a region, a path, a fine-tune's mark.
_PREFIX = re.compile(r"(?:.*/)?(?:(?:us|eu|apac|global|us-gov)\.)?(?:(?:[a-z0-9]+)\.)?(?=[a-z])")
_TUNED = re.compile(r"^ft:([^:]+):.*")


class _Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    models: str
    able: dict[str, bool | int]


@cache
def _rows() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    text = files("nexus.llm.routing").joinpath("abilities.toml").read_text(encoding="utf-8")
    rows = msgspec.convert(tomllib.loads(text)["row"], list[_Row])
    return [(re.compile(row.models), row.able) for row in rows]


def able_as(model: str, assumed: Capabilities) -> Capabilities:
    """Return what a model can do: what its kind assumes, with what is known of this very model."""
    name = _TUNED.sub(r"\1", model.lower())
    for form in dict.fromkeys((name, name.rpartition("/")[2], _PREFIX.sub("", name, count=1))):
        for pattern, able in _rows():
            if pattern.fullmatch(form):
                return _narrowed(assumed, able)
    return assumed


def _narrowed(assumed: Capabilities, able: dict[str, Any]) -> Capabilities:
    """Return the capabilities that both have: a kind that cannot carry images gets none by a model that can."""
    changes = {name: value for name, value in able.items() if name == "context_tokens" or not value}
    return msgspec.structs.replace(assumed, **changes)
