"""Templates: text, lists and objects with `{{ expression }}` in them.

A text that is one expression and nothing else becomes its value, of whatever type; expressions
inside a longer text become text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from nexus.automation.errors import ExpressionError
from nexus.automation.expressions import MAX_DEPTH, MAX_RENDERED, as_text, evaluate, holds, references
from nexus.runs.types import Revealing

MAX_ITEMS: Final = 10_000


class WorkflowRenderer:
    """How the steps of a workflow get their inputs and their conditions. Fulfils `runs.types.Renderer`."""

    kinds: Collection[str] | None = frozenset({"workflow"})

    def __init__(self, vault: Callable[[str], Revealing] | None = None) -> None:
        """Look secrets up in `vault(project id)`; None knows no secrets."""
        self._vault = vault

    def render(self, with_: dict[str, Any], scope: dict[str, Any]) -> dict[str, Any]:
        """Return `with_` with every expression replaced by its value. Raises `ExpressionError`."""
        return {key: _named(f"with.{key}", value, scope) for key, value in with_.items()}

    def items(self, map_: Any, scope: dict[str, Any]) -> list[Any]:
        """Return the items of a map. Raises `ExpressionError` for what is no list or too long a one."""
        items = _named("map", map_, scope)
        if not isinstance(items, list):
            raise ExpressionError("A map needs a list.", field="map")
        if len(items) > MAX_ITEMS:
            raise ExpressionError(f"A map has at most {MAX_ITEMS} items.", field="map")
        return items

    def reads(self, template: dict[str, Any], when: str | None) -> set[str] | None:
        """Return the keys of the steps that templates and condition name; None when they name all at once."""
        named = template_references(template)
        if when is not None:
            named |= references(unwrapped(when))
        if "steps" in named:
            return None
        return {path.split(".")[1] for path in named if path.startswith("steps.")}

    def secrets(self, project_id: str) -> Revealing | None:
        """Return the secrets of a project by name, as far as templates ask for them."""
        return None if self._vault is None else self._vault(project_id)

    def holds(self, when: str, scope: dict[str, Any]) -> bool:
        """Tell whether the condition holds. Raises `ExpressionError`."""
        try:
            return holds(unwrapped(when), scope)
        except ExpressionError as error:
            raise ExpressionError(error.message, field="when") from None


def _named(field: str, value: Any, scope: Mapping[str, Any]) -> Any:
    try:
        return render(value, scope)
    except ExpressionError as error:
        raise ExpressionError(error.message, field=field) from None


def render(value: Any, scope: Mapping[str, Any], depth: int = 0) -> Any:
    """Return `value` with every expression in it replaced. Raises `ExpressionError`."""
    if depth > MAX_DEPTH:
        raise ExpressionError(f"Templates nest at most {MAX_DEPTH} levels.")
    if isinstance(value, str):
        return _render_text(value, scope)
    if isinstance(value, list):
        return [render(item, scope, depth + 1) for item in value]
    if isinstance(value, Mapping):
        return {key: render(item, scope, depth + 1) for key, item in value.items()}
    return value


def _render_text(text: str, scope: Mapping[str, Any]) -> Any:
    parts = list(split(text))
    if len(parts) == 1 and parts[0][0] == "expression":
        return evaluate(parts[0][1], scope)
    rendered: list[str] = []
    size = 0
    for kind, part in parts:
        rendered.append(part if kind == "text" else as_text(evaluate(part, scope)))
        size += len(rendered[-1])
        if size > MAX_RENDERED:
            raise ExpressionError("The text is too long.")
    return "".join(rendered)


def split(text: str) -> Iterator[tuple[str, str]]:
    """Yield `("text", ..)` and `("expression", ..)` parts in order. Raises `ExpressionError` for a lone `{{`."""
    at = 0
    while (start := text.find("{{", at)) >= 0:
        if start > at:
            yield "text", text[at:start]
        end = _closing(text, start + 2)
        yield "expression", text[start + 2 : end].strip()
        at = end + 2
    if at < len(text):
        yield "text", text[at:]


def _closing(text: str, at: int) -> int:
    quote = ""
    while at < len(text):
        letter = text[at]
        if quote:
            at += letter == "\\"
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif text.startswith("}}", at) and not text.startswith("}}}", at):
            return at
        at += 1
    raise ExpressionError("A `{{` has no closing `}}`.")


def unwrapped(condition: str) -> str:
    """Return a condition without the `{{ }}` that may stand around it."""
    stripped = condition.strip()
    return stripped[2:-2] if stripped.startswith("{{") and stripped.endswith("}}") else stripped


def has_templates(value: Any) -> bool:
    """Tell whether there is any expression inside `value`. Raises `ExpressionError` for a broken template."""
    if isinstance(value, str):
        return any(kind == "expression" for kind, _ in split(value))
    if isinstance(value, list):
        return any(has_templates(item) for item in value)
    if isinstance(value, Mapping):
        return any(has_templates(item) for item in value.values())
    return False


def template_references(value: Any) -> set[str]:
    """Return every path that the expressions inside `value` name."""
    if isinstance(value, str):
        return {path for kind, part in split(value) if kind == "expression" for path in references(part)}
    if isinstance(value, list):
        return {path for item in value for path in template_references(item)}
    if isinstance(value, Mapping):
        return {path for item in value.values() for path in template_references(item)}
    return set()
