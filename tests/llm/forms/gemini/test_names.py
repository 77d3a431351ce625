"""How Gemini spells its JSON, and Google's schemas."""

from __future__ import annotations

from typing import Any

import pytest

from nexus.llm.forms.gemini.names import camel, json_schema, plain


@pytest.mark.parametrize(
    ("given", "expected"),
    [("text", "text"), ("max_output_tokens", "maxOutputTokens"), ("_response_json_schema", "responseJsonSchema")],
)
def test_names_become_camel_case(given: str, expected: str) -> None:
    assert camel(given) == expected


def test_what_is_the_users_keeps_its_spelling() -> None:
    told = {"function_call": {"args": {"my_key": None}, "name": None}, "parts": {"text": "x"}, "labels": {"a_b": "c"}}
    assert plain(told) == {
        "functionCall": {"args": {"my_key": None}},
        "parts": [{"text": "x"}],
        "labels": {"a_b": "c"},
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "STRING"}, {"type": "string"}),
        (
            {"type": 6, "properties": {"a_b": {"type": 1}}},
            {"type": "object", "properties": {"a_b": {"type": "string"}}},
        ),
        ({"type": "INTEGER", "nullable": True}, {"type": ["integer", "null"]}),
        (
            {"type": "STRING", "enum": ["a"], "format": "enum", "nullable": True},
            {"type": ["string", "null"], "enum": ["a", None]},
        ),
        ({"any_of": [{"type": "NUMBER"}], "nullable": True}, {"anyOf": [{"type": "number"}, {"type": "null"}]}),
        (
            {"type": "ARRAY", "items": {"type": "BOOLEAN"}, "min_items": "2"},
            {"type": "array", "items": {"type": "boolean"}, "minItems": 2},
        ),
        ({"ref": "#/defs/x", "defs": {"x": {"type": "NULL"}}}, {"$ref": "#/$defs/x", "$defs": {"x": {"type": "null"}}}),
        ({"type": "OBJECT", "propertyOrdering": ["a"], "example": 1}, {"type": "object", "examples": [1]}),
        ({"type": "object", "$schema": "s", "additionalProperties": False, "const": 1}, None),
        ({"type": ["string", "null"]}, None),
        (None, None),
    ],
)
def test_googles_schemas_become_json_schema(given: Any, expected: Any) -> None:
    assert json_schema(given) == (given if expected is None else expected)
