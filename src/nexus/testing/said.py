"""What a fake model says, apart from any wire format, and the samples that it makes up to fit a JSON schema."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Finish = Literal["stop", "length", "tools", "filter", "refusal"]


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A call of a tool that the fake asks for."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """What the fake says, and the usage that it claims.

    `prompt_tokens` counts everything read, the cache tiers included; `skew` turns the usage object of a
    wire format into what is sent in its place, and `usage` leaves it out altogether. `extra` fields are
    added to the top of the answer.
    """

    text: str = "Hello from the fake upstream."
    thinking: str = ""
    tools: tuple[ToolUse, ...] = ()
    finish: Finish = "stop"
    prompt_tokens: int = 12
    cached_tokens: int = 4
    stored_5m_tokens: int = 0
    stored_1h_tokens: int = 0
    usage: bool = True
    skew: Callable[[dict[str, Any]], Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        """Return the pieces of a stream: words with their spaces."""
        return pieces(self.text)

    @property
    def fresh_tokens(self) -> int:
        """Return the tokens read that no cache tier counts."""
        return self.prompt_tokens - self.cached_tokens - self.stored_5m_tokens - self.stored_1h_tokens

    @property
    def thought_tokens(self) -> int:
        """Return the tokens of the thinking."""
        return len(pieces(self.thinking))

    @property
    def written_tokens(self) -> int:
        """Return the tokens written, thinking and tool calls included."""
        return len(self.words) + self.thought_tokens + 10 * len(self.tools)

    def claimed(self, usage: dict[str, Any]) -> Any:
        """Return what is sent in the place of this usage object."""
        return self.skew(usage) if self.skew is not None else usage


def pieces(text: str) -> list[str]:
    """Cut a text into words with their spaces; nothing for no text."""
    if not text:
        return []
    *words, last = text.split(" ")
    return [*(word + " " for word in words), last]


def sample(schema: Any, root: dict[str, Any] | None = None, depth: int = 0) -> Any:
    """Make up a value that fits a JSON schema, always the same one."""
    if not isinstance(schema, dict) or depth > 20:
        return "text"
    root = schema if root is None else root
    if isinstance(ref := schema.get("$ref"), str):
        target: Any = root
        for part in ref.removeprefix("#/").split("/"):
            target = target.get(part, {}) if isinstance(target, dict) else {}
        return sample(target, root, depth + 1)
    for fixed in ("const", "default"):
        if fixed in schema:
            return schema[fixed]
    for choice in (schema.get("enum"), schema.get("examples")):
        if choice:
            return choice[0]
    for several in ("anyOf", "oneOf", "allOf"):
        if schema.get(several):
            return sample(schema[several][0], root, depth + 1)
    kind = schema.get("type")
    kind = next((item for item in kind if item != "null"), "null") if isinstance(kind, list) else kind
    kind = str(kind or ("object" if "properties" in schema else "string")).lower()
    if kind == "object":
        return {name: sample(inner, root, depth + 1) for name, inner in (schema.get("properties") or {}).items()}
    if kind == "array":
        return [sample(schema.get("items", {}), root, depth + 1)] * max(1, schema.get("minItems", 1))
    numbers = {"integer": 1, "number": 1.5, "boolean": True, "null": None}
    if kind in ("integer", "number") and "minimum" in schema:
        return schema["minimum"]
    return numbers.get(kind, "text")
