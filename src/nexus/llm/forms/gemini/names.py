"""How Gemini spells its JSON: every field may come in camelCase or snake_case, a list of one as its one item.

Source: https://protobuf.dev/programming-guides/json. Also Google's own schema of values (a part of OpenAPI
3.0 with upper-case types), turned into the JSON Schema that everybody else reads.
"""

from __future__ import annotations

from typing import Any

# What lies below these is the user's own, or a schema with rules of its own.
_OPAQUE = frozenset(
    (
        "args",
        "response",
        "parameters",
        "parametersJsonSchema",
        "responseSchema",
        "responseJsonSchema",
        "labels",
        "partMetadata",
    )
)
_LISTS = frozenset(("contents", "parts", "tools", "functionDeclarations", "safetySettings", "requests"))
# The old Vertex SDK writes enums as numbers.
_TYPES = {1: "string", 2: "number", 3: "integer", 4: "boolean", 5: "array", 6: "object", 7: "null"}
_COUNTS = frozenset(("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"))
_MAPS = {"properties": "properties", "defs": "$defs", "$defs": "$defs"}


def plain(value: Any) -> Any:
    """Return decoded JSON with every known place in camelCase, nulls left out and single items made lists."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    out = {}
    for key, item in value.items():
        name = camel(key)
        if item is None:
            continue
        if name in _OPAQUE:
            out[name] = item
        elif name in _LISTS and isinstance(item, dict):
            out[name] = [plain(item)]
        else:
            out[name] = plain(item)
    return out


def camel(name: str) -> str:
    """Return a field's name in camelCase."""
    if "_" not in name:
        return name
    first, *rest = name.strip("_").split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def json_schema(schema: Any) -> Any:
    """Turn Google's schema into JSON Schema; what is JSON Schema already stays as it is."""
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    for key, value in schema.items():
        name = camel(key)
        if value is None or name in ("nullable", "propertyOrdering"):
            continue
        if name == "type":
            out["type"] = _TYPES.get(value, "object") if isinstance(value, int) else _lower(value)
        elif name in _COUNTS:
            out[name] = int(value)
        elif name in _MAPS:
            out[_MAPS[name]] = {inner: json_schema(item) for inner, item in value.items()}
        elif name == "ref":
            out["$ref"] = value.replace("#/defs/", "#/$defs/")
        elif name == "example":
            out["examples"] = [value]
        elif name in ("anyOf", "oneOf", "allOf", "prefixItems"):
            out[name] = [json_schema(item) for item in value]
        elif name in ("items", "additionalProperties"):
            out[name] = json_schema(value)
        elif (name, value) != ("format", "enum"):  # Google's mark of an enum, which `enum` alone says elsewhere
            out[name] = value
    if schema.get("nullable"):
        _allow_null(out)
    return out


def _lower(kind: Any) -> Any:
    if isinstance(kind, list):
        return [_lower(item) for item in kind]
    return kind.lower() if isinstance(kind, str) and kind != "TYPE_UNSPECIFIED" else "object"


def _allow_null(schema: dict[str, Any]) -> None:
    kind = schema.get("type")
    if isinstance(kind, str):
        schema["type"] = [kind, "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    elif "anyOf" in schema:
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
