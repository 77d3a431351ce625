"""Schemas for Claude: what it takes stays, what it refuses is told in words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nexus.llm.forms.converse import requests as converse_requests
from nexus.llm.forms.converse.families import family_of
from nexus.llm.forms.messages import requests as messages_requests
from nexus.llm.forms.messages.schemas import for_claude
from nexus.llm.types import ChatRequest, Message, ResponseFormat, Text, Tool

CLOSED: dict[str, Any] = {"additionalProperties": False}
TAKEN = {
    "type": "object",
    "title": "T",
    "$defs": {"A": {"type": "object", "properties": {"not": {"type": "string", "const": "x"}}} | CLOSED},
    "properties": {
        "maximum": {"type": "integer", "default": 3, "description": "d"},
        "when": {"type": "string", "format": "date-time"},
        "code": {"type": "string", "pattern": "^[a-z]{3}$"},
        "list": {"type": "array", "minItems": 1, "items": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]}},
        "kind": {"enum": ["object", {"maximum": 3}]},
    },
    "required": ["maximum"],
} | CLOSED


def test_what_is_taken_stays_as_it_is() -> None:
    assert for_claude(TAKEN) == TAKEN
    assert for_claude(True) is True


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 10, "description": "A number."},
         {"type": "integer", "description": "A number.\n\n{minimum: 1, maximum: 10}"}),
        ({"type": "array", "minItems": 2, "maxItems": 3, "items": {"type": "string", "maxLength": 5}},
         {"type": "array", "items": {"type": "string", "description": "{maxLength: 5}"},
          "description": "{minItems: 2, maxItems: 3}"}),
        ({"type": "string", "format": "phone"}, {"type": "string", "description": '{format: "phone"}'}),
        ({"type": "string", "pattern": "(?=a)b"}, {"type": "string", "description": '{pattern: "(?=a)b"}'}),
        ({"oneOf": [{"type": "object"}, {"type": "null"}]}, {"anyOf": [{"type": "object"} | CLOSED, {"type": "null"}]}),
        ({"type": "object", "additionalProperties": {"type": "number", "minimum": 0}},
         {"type": "object", "additionalProperties": {"type": "number", "description": "{minimum: 0}"}}),
        ({"not": {"type": "null"}}, {"description": '{not: {"type":"null"}}'}),
    ],
)  # fmt: skip
def test_what_is_refused_is_told_in_words(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert for_claude(given) == expected
    assert for_claude(expected) == expected


def test_lengths_of_texts_are_taken_by_some() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "minLength": 1}}} | CLOSED
    assert for_claude(schema, lengths=True) == schema
    assert for_claude({"anyOf": [schema]}, lengths=True) == {"anyOf": [schema]}
    assert for_claude(schema)["properties"]["a"] == {"type": "string", "description": "{minLength: 1}"}


def test_answers_and_strict_tools_are_asked_for_so() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}}
    wanted = {"type": "object", "properties": {"n": {"type": "integer", "description": "{maximum: 9}"}}} | CLOSED
    request = ChatRequest(
        dialect="openai.chat",
        model="m",
        messages=(Message(role="user", parts=(Text(text="x"),)),),
        tools=(Tool(name="f", parameters=schema, strict=True), Tool(name="g", parameters=schema)),
        response_format=ResponseFormat(kind="json_schema", schema=schema),
    )
    body = messages_requests.write_request(request, "claude-sonnet-4-5", stream=False)
    assert body["output_config"]["format"]["schema"] == wanted
    assert [tool["input_schema"] for tool in body["tools"]] == [wanted, schema]
    name = "anthropic.claude-sonnet-4-5-20250929-v1:0"
    sent = converse_requests.write_request(request, name, family_of(name))
    assert json.loads(sent["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"]) == wanted
    assert [tool["toolSpec"]["inputSchema"]["json"] for tool in sent["toolConfig"]["tools"]] == [wanted, schema]
