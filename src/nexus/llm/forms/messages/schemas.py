"""JSON schemas as Claude models take them for an answer's form and for strict tools.

They refuse bounds on numbers, texts and lists, and more. As Anthropic's own libraries do, what they refuse is told in
the description, which the model reads. Source:
https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

_BEYOND: Final = frozenset((
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "maxItems", "uniqueItems", "contains",
    "minContains", "maxContains", "prefixItems", "minProperties", "maxProperties",
    "patternProperties", "propertyNames", "dependentSchemas", "dependentRequired", "not", "if", "then", "else",
))  # fmt: skip
_LENGTHS: Final = frozenset(("minLength", "maxLength"))
_FORMATS: Final = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid", "text")
)
# Patterns that look around, back or at the edges of words.
_CLEVER: Final = re.compile(r"\(\?[=!<]|\\[bB1-9]")
_NAMED: Final = frozenset(("properties", "$defs", "definitions"))
_INNER: Final = frozenset(("items", "anyOf", "allOf", "additionalProperties"))
_encode = msgspec.json.Encoder().encode


def for_claude(schema: Any, *, lengths: bool = False) -> Any:
    """Return the schema with its objects closed, and what the models do not take in words.

    With `lengths` those of texts are taken, as on Bedrock.
    """
    if isinstance(schema, list):
        return [for_claude(item, lengths=lengths) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    beyond: dict[str, Any] = {}
    for name, value in schema.items():
        if _is_beyond(name, value) or (name in _LENGTHS and not lengths):
            beyond[name] = value
        elif name in _NAMED and isinstance(value, dict):
            out[name] = {key: for_claude(item, lengths=lengths) for key, item in value.items()}
        elif name in _INNER:
            out[name] = for_claude(value, lengths=lengths)
        elif name == "oneOf" and "anyOf" not in schema:
            out["anyOf"] = for_claude(value, lengths=lengths)
        else:
            out[name] = value
    if out.get("type") == "object":
        out.setdefault("additionalProperties", False)
    if beyond:
        told = ", ".join(f"{name}: {_encode(value).decode()}" for name, value in beyond.items())
        before = out.get("description")
        out["description"] = f"{before}\n\n{{{told}}}" if before else f"{{{told}}}"
    return out


def _is_beyond(name: str, value: Any) -> bool:
    if name == "minItems":
        return value not in (0, 1)
    if name == "format":
        return isinstance(value, str) and value not in _FORMATS
    if name == "pattern":
        return isinstance(value, str) and _CLEVER.search(value) is not None
    return name in _BEYOND
