"""Answers that must be JSON of a schema: asked for, read, checked, and mended where they do not fit.

The schema is the caller's (JSON Schema, https://json-schema.org/draft/2020-12). It is checked with `jsonschema-rs`,
whose patterns run in linear time and which fetches nothing; references lead only within the schema.
"""

from __future__ import annotations

from typing import Any

import orjson

from nexus.llm.errors import AnswerInvalid, SchemaInvalid
from nexus.llm.task import Model
from nexus.llm.types import Message, ResponseFormat, Text

_SHOWN = 5
_LONGEST_SCHEMA = 64_000
_DEEPEST = 64


class Schema:
    """A JSON schema of a caller, ready to check values."""

    def __init__(self, schema: Any, *, field: str = "schema") -> None:
        """Take the schema. Raises `SchemaInvalid` naming `field` for one that is none, or refers elsewhere."""
        self.schema = schema
        if not isinstance(schema, dict) or not schema:
            raise SchemaInvalid("The schema must be a JSON Schema object.", field=field)
        if len(orjson.dumps(schema)) > _LONGEST_SCHEMA:
            raise SchemaInvalid(f"The schema may have {_LONGEST_SCHEMA} bytes.", field=field)
        _check_references(schema, field, 0)
        import jsonschema_rs  # large, and many a process never asks for JSON

        try:
            self._validator = jsonschema_rs.validator_for(schema, validate_formats=True)
        except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
            told = str(error).partition("\n")[0][:200]
            raise SchemaInvalid(f"The schema is not valid: {told}", field=field) from None

    def problems(self, value: Any) -> list[str]:
        """Return what is wrong with a value, each with its place; empty when it fits."""
        found = []
        for error in self._validator.iter_errors(value):
            place = "/".join(map(str, error.instance_path))
            found.append(f"/{place}: {error.message[:200]}")
            if len(found) == _SHOWN:
                break
        return found


def _check_references(node: Any, field: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise SchemaInvalid("The schema is nested too deeply.", field=field)
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str) and not value.startswith("#"):
                raise SchemaInvalid("References of a schema may only lead within it (#...).", field=f"{field}.$ref")
            _check_references(value, field, depth + 1)
    elif isinstance(node, list):
        for item in node:
            _check_references(item, field, depth + 1)


def read_json(text: str) -> Any:
    """Return the JSON value in a model's answer, fenced, framed by words or slightly broken; None without one."""
    body = text.strip()
    if body.startswith("```"):
        body = body.partition("\n")[2].rpartition("```")[0].strip() or body
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    starts = [place for mark in "{[" if (place := body.find(mark)) >= 0]
    if not starts:
        return None
    import json_repair  # large, and most answers need no repair

    value = json_repair.loads(body[min(starts) :])
    return value if isinstance(value, dict | list) else None


async def ask_for(
    model: Model, messages: tuple[Message, ...], schema: Schema, *, max_tokens: int, retries: int, name: str
) -> tuple[Any, int]:
    """Ask until the answer fits the schema; return the value and how often it had to be mended.

    The model is shown what was wrong. Raises `AnswerInvalid` with the last problems.
    """
    form = None
    if not model.lacks("json_schema"):
        form = ResponseFormat(kind="json_schema", name=name, schema=schema.schema)
    problems = ["there is no JSON in it"]
    for attempt in range(retries + 1):
        completion = await model.ask(messages, max_tokens=max_tokens, response_format=form)
        value = read_json(completion.text)
        problems = schema.problems(value) if value is not None else ["there is no JSON in the answer"]
        if not problems:
            return value, attempt
        wrong = "\n".join(f"- {problem}" for problem in problems)
        order = f"That does not fit the schema:\n{wrong}\nReply with the corrected JSON only."
        messages = (
            *messages,
            Message(role="assistant", parts=(Text(text=completion.text or "(nothing)"),)),
            Message(role="user", parts=(Text(text=order),)),
        )
    raise AnswerInvalid("The model's answer does not fit the schema.", problems=problems)
