"""What the families of models behind the Converse API differ in: rows of `converse_families.toml`, found by name.

Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-supported-models-features.html,
https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html and the models' parameter pages.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import msgspec

Kind = Literal["text", "image", "document", "video", "audio"]
_WORLDS = frozenset(("us", "eu", "apac", "jp", "au", "ca", "sa", "me", "af", "global", "us-gov"))
_VERSION = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2})(?!\d))?")
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 32_768, "max": 32_768}
LEAST_BUDGET = 1024
_FIRST_TO_THINK = (3, 7)


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """How the models of one maker want things said; the rows explain the fields."""

    more: dict[str, str] = msgspec.field(default_factory=dict)
    reasoning: Literal["none", "claude", "effort", "qwen", "nova"] = "none"
    reasons: tuple[str, ...] = ("",)
    beside: frozenset[Kind] = frozenset(("text", "image", "document", "video", "audio"))
    status: bool = True
    leading_assistant: bool = False
    cache: Literal["none", "messages", "all"] = "none"
    thinking_back: bool = False
    counts_tokens: bool = False
    structured: tuple[str, ...] = ()
    structured_since: tuple[int, int] | None = None
    unstructured: tuple[str, ...] = ()
    stop_sequence: str | None = None

    def structures(self, model: str) -> bool:
        """Tell whether the model takes a JSON schema for its answer, and `strict` for its tools."""
        if any(word in model for word in self.unstructured):
            return False
        if self.structured_since is not None and version_of(model) >= self.structured_since:
            return True
        return any(word in model for word in self.structured)


# Of an unknown model everything is left to the model itself, which refuses what it does not take.
_UNKNOWN = Family(leading_assistant=True, cache="all", thinking_back=True, structured=("",))


@cache
def families() -> dict[str, Family]:
    """Return the families by name."""
    text = files("nexus.llm").joinpath("converse_families.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Family])


def family_of(model: str, given: str | None = None) -> Family:
    """Return the family of a model id or ARN; `given` is the operator's word for one whose name does not tell."""
    return families().get(given or plain_name(model).partition(".")[0], _UNKNOWN)


def plain_name(model: str) -> str:
    """Return the id of the model itself: without the ARN and the part of the world around it."""
    name = model.rpartition("/")[2] if model.startswith("arn:") else model
    world, dot, rest = name.partition(".")
    return rest if dot and world in _WORLDS else name


def version_of(model: str) -> tuple[int, int]:
    """Return the version in a Claude model's name."""
    found = _VERSION.search(model)
    return (int(found.group(1)), int(found.group(2) or 0)) if found else (2, 0)


def thinking_of(family: Family, model: str, effort: str | None, budget: int | None) -> dict[str, Any] | None:
    """Return the model's own fields for how much to think, {} to leave it at its default, None if it has no way.

    An effort is a wish: a model that knows fewer levels takes the nearest, and so it is where levels and budgets meet.
    A budget is a leave to think, which is no loss to a model that cannot.
    """
    if effort == "none" or budget == 0 or (effort is None and budget is None):
        return {}
    able = family.reasoning != "none" and any(word in model for word in family.reasons)
    if not able or (family.reasoning == "claude" and version_of(model) < _FIRST_TO_THINK):
        return None if effort is not None else {}
    if family.reasoning == "claude":
        return _claude(model, effort, budget)
    if effort is None:
        effort = next((level for level, tokens in _BUDGETS.items() if tokens >= (budget or 0)), "high")
    if family.reasoning == "effort":
        return {"reasoning_effort": {"minimal": "low", "xhigh": "high", "max": "high"}.get(effort, effort)}
    if family.reasoning == "qwen":
        return {"reasoning_config": "low" if effort in ("minimal", "low") else "high"}
    if family.reasoning == "nova":
        level = {"minimal": "low", "low": "low", "medium": "medium"}.get(effort, "high")
        return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": level}}
    return None


def _claude(model: str, effort: str | None, budget: int | None) -> dict[str, Any]:
    if budget is None and effort is not None:
        if version_of(model) >= (4, 6):
            level = {"minimal": "low", "xhigh": "high"}.get(effort, effort)
            return {"thinking": {"type": "adaptive"}, "output_config": {"effort": level}}
        budget = _BUDGETS.get(effort, _BUDGETS["medium"])
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}
