"""The inputs of a run, checked against what the workflow says it takes. Pure but for looking files up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from nexus.automation.errors import InputsInvalid
from nexus.automation.types import Definition, InputSpec

_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "text"),
    "file": ((str,), "the id of an uploaded file"),
    "url": ((str,), "a web address"),
    "number": ((int, float), "a number"),
    "integer": ((int,), "a whole number"),
    "boolean": ((bool,), "true or false"),
    "list": ((list,), "a list"),
    "object": ((dict,), "an object"),
}


async def checked_run_inputs(
    definition: Definition, given: dict[str, Any], file_exists: Callable[[str], Awaitable[bool]]
) -> dict[str, Any]:
    """Return the inputs of a run, defaults filled in. Raises `InputsInvalid` naming the first that does not fit."""
    for name in given:
        if name not in definition.inputs:
            raise InputsInvalid(f"This workflow has no input {name[:80]}.", field=f"inputs.{name[:80]}")
    values: dict[str, Any] = {}
    for name, spec in definition.inputs.items():
        values[name] = given.get(name, spec.default)
        if values[name] is None:
            if not spec.optional and spec.default is None:
                raise InputsInvalid(f"The input {name} is missing.", field=f"inputs.{name}")
            continue
        _check_type(name, spec, values[name])
        if spec.type == "file" and not await file_exists(values[name]):
            raise InputsInvalid(f"The input {name} names no file of this project.", field=f"inputs.{name}")
    return values


def _check_type(name: str, spec: InputSpec, value: Any) -> None:
    if spec.type == "any":
        return
    types, said = _TYPES[spec.type]
    fits = isinstance(value, types) and (spec.type == "boolean" or not isinstance(value, bool))
    if fits and spec.type == "url":
        fits = _is_web_address(value)
    if not fits:
        raise InputsInvalid(f"The input {name} must be {said}.", field=f"inputs.{name}")


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and len(text) <= 4_096
