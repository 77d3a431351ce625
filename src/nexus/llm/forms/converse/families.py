"""What the families of models behind the Converse API differ in: rows of `families.toml`, found by name.

Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-supported-models-features.html,
https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html and the models' parameter pages.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import msgspec

from nexus.llm.forms.messages.claude import claude, effort_of, thinking_fields
from nexus.llm.forms.wishes import check_effort
from nexus.llm.types import Reasoning

Kind = Literal["text", "image", "document", "video", "audio"]
_WORLDS = frozenset(("us", "eu", "apac", "jp", "au", "ca", "sa", "me", "af", "global", "us-gov"))


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """How the models of one maker want things said; the rows explain the fields."""

    more: dict[str, str] = msgspec.field(default_factory=dict)
    reasoning: Literal["none", "claude", "effort", "qwen", "nova"] = "none"
    reasons: tuple[str, ...] = ("",)
    bound: bool = True
    short_ids: bool = False
    beside: frozenset[Kind] = frozenset(("text", "image", "document", "video", "audio"))
    status: bool = True
    leading_assistant: bool = False
    cache: Literal["none", "messages", "all"] = "none"
    thinking_back: bool = False
    counts_tokens: bool = False
    structured: tuple[str, ...] = ()
    stop_sequence: str | None = None

    def structures(self, model: str) -> bool:
        """Tell whether the model takes a JSON schema for its answer, and `strict` for its tools."""
        return any(word in model for word in self.structured)

    def binds(self, model: str) -> bool:
        """Tell whether the model can be held to calling a tool."""
        return self.bound and not (self.reasoning == "claude" and claude(model).unbound)


# Of an unknown model everything is left to the model itself, which refuses what it does not take.
_UNKNOWN = Family(leading_assistant=True, cache="all", thinking_back=True, structured=("",))


@cache
def families() -> dict[str, Family]:
    """Return the families by name."""
    text = files("nexus.llm.forms.converse").joinpath("families.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Family])


def family_of(model: str, given: str | None = None) -> Family:
    """Return the family of a model id or ARN; `given` is the operator's word for one whose name does not tell."""
    return families().get(given or plain_name(model).partition(".")[0], _UNKNOWN)


def plain_name(model: str) -> str:
    """Return the id of the model itself: without the ARN and the part of the world around it."""
    name = model.rpartition("/")[2] if model.startswith("arn:") else model
    world, dot, rest = name.partition(".")
    return rest if dot and world in _WORLDS else name


def thinking_of(
    family: Family, model: str, asked: Reasoning, *, max_tokens: int | None, free: bool, steered: bool = False
) -> dict[str, Any] | None:
    """Return the model's own fields for how much to think, {} to leave it at its default, None if it has no way.

    An effort is a wish: a model that knows fewer levels takes the nearest. A budget is a leave to think, which is no
    loss to a model that cannot. `free` is explained by `thinking_fields`, which knows about Claude and raises
    `Unsupported`. With `steered` the request limits the output or steers the choice of words, which Nova refuses
    beside its highest effort.
    """
    if family.reasoning == "claude":
        told = thinking_fields(asked, model, max_tokens=max_tokens, free=free)
        effort = {"output_config": {"effort": told["effort"]}} if "effort" in told else {}
        return ({"thinking": told["thinking"]} if "thinking" in told else {}) | effort
    level = asked.effort
    check_effort(level)
    if level == "none" or asked.budget_tokens == 0 or (level is None and asked.budget_tokens is None):
        return {}
    if family.reasoning == "none" or not any(word in model for word in family.reasons):
        return None if asked.budget_tokens is None else {}
    level = level or effort_of(asked.budget_tokens or 0)
    if family.reasoning == "effort" and "gpt-oss" not in model:
        return {"reasoning": {"effort": "xhigh" if level == "max" else level}}
    if family.reasoning == "effort":
        return {"reasoning_effort": {"minimal": "low", "xhigh": "high", "max": "high"}.get(level, level)}
    if family.reasoning == "qwen":
        return {"reasoning_config": "low" if level in ("minimal", "low") else "high"}
    highest = "medium" if steered else "high"
    level = {"minimal": "low", "low": "low", "medium": "medium"}.get(level, highest)
    return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": level}}
