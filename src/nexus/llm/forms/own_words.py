"""What of a request stands in places that our own form may not carry: it changes the answer all the same. No I/O.

A provider of the caller's dialect gets the request as it was written. So two requests are the same only if they
agree in these places too, wherever a new field turns up.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

_SPOKEN: Final = frozenset(("role", "content", "parts", "type", "text", "name"))
_FUNCTION: Final = frozenset(("type", "name", "description", "parameters", "input_schema", "strict"))
_CARRIED: Final = {
    "messages": _SPOKEN,
    "contents": _SPOKEN,
    "input": _SPOKEN,
    "system": _SPOKEN,
    "systemInstruction": _SPOKEN,
    "system_instruction": _SPOKEN,
    "content": frozenset(("type", "text")),
    "parts": frozenset(("text",)),
    "tools": _FUNCTION | {"function", "functionDeclarations", "function_declarations"},
    "function": _FUNCTION,
    "functionDeclarations": _FUNCTION,
    "function_declarations": _FUNCTION,
    "tool_choice": frozenset(("type", "name", "function")),
    "response_format": frozenset(("type", "json_schema")),
    "json_schema": frozenset(("name", "description", "schema", "strict")),
    "text": frozenset(("format", "verbosity")),
    "format": frozenset(("type", "name", "description", "schema", "strict")),
    "reasoning": frozenset(("effort", "summary")),
    "thinking": frozenset(("type", "budget_tokens")),
    "generationConfig": frozenset(
        ("temperature", "topP", "topK", "maxOutputTokens", "stopSequences", "seed", "candidateCount")
    ),
}
"""By the field that they stand in, the names that our own form has a word for in every dialect."""

_CARRIED_WHOLE: Final = frozenset(("parameters", "input_schema", "schema"))
_any = msgspec.json.Decoder()


def own_words(body: bytes, irrelevant: frozenset[str]) -> list[list[Any]]:
    """Return each place below the top of a JSON body that our own form may not carry, and what stands there.

    The top itself is carried whole: what has no word there is in the request's `extra`. Fields that are
    `irrelevant` are left out wherever they stand.
    """
    found: list[list[Any]] = []
    told = _any.decode(body)
    for name in sorted(told):
        if name not in irrelevant:
            _look(told[name], name, [name], irrelevant, found)
    return found


def _look(value: Any, field: str, path: list[Any], irrelevant: frozenset[str], found: list[list[Any]]) -> None:
    if isinstance(value, list):
        for place, item in enumerate(value):
            if isinstance(item, dict):
                _look(item, field, [*path, place], irrelevant, found)
            elif isinstance(item, list):
                found.append([*path, place, item])
        return
    if not isinstance(value, dict):
        return
    carried = _CARRIED.get(field, frozenset())
    for name in sorted(value):
        inner = value[name]
        if inner is None or name in irrelevant or (name in carried and name in _CARRIED_WHOLE):
            continue
        if name in carried:
            _look(inner, name, [*path, name], irrelevant, found)
        else:
            found.append([*path, name, inner])
