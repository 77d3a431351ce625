"""Tools that take text in place of JSON, for models that know functions only: functions with one parameter, `input`."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from nexus.llm.types import Tool

BEFORE: Final = '{"input":"'
AFTER: Final = '"}'


def as_function(name: str, described: str | None, grammar: dict[str, Any] | None) -> Tool:
    """Return a function for a free-form tool, with its grammar (`syntax`, `definition`) in words."""
    if grammar:
        rule = f"The input must follow this {grammar.get('syntax')} grammar:\n{grammar.get('definition')}"
        described = f"{described}\n\n{rule}" if described else rule
    single = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    return Tool(name=name, description=described, parameters=single)


def wrapped(text: str) -> str:
    """Return the arguments of a free-form call."""
    return msgspec.json.encode({"input": text}).decode()


def inside(piece: str) -> str:
    """Return a piece of the text as it stands between `BEFORE` and `AFTER`."""
    return msgspec.json.encode(piece).decode()[1:-1]


def unwrapped(arguments: str) -> str:
    """Return the text that a model wrote as `{"input": ...}`; as it stands if it did not."""
    try:
        told = msgspec.json.decode(arguments)
    except msgspec.DecodeError:
        return arguments
    value = told.get("input") if isinstance(told, dict) else None
    return value if isinstance(value, str) else arguments
