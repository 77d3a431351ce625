"""A workflow as text: YAML or JSON in, a checked `Definition` out, every problem with its place.

YAML is read without aliases (a text of 1 kB could name itself a billion times), without tags and
without its dates and octal numbers: what comes out is what JSON could say.
"""

from __future__ import annotations

import math
from typing import Any, Final

import yaml
from pydantic import ValidationError

from nexus.automation.errors import Problem, WorkflowInvalid
from nexus.automation.types import Definition
from nexus.core.ids import is_id

MAX_BYTES: Final = 512 * 1024
MAX_DEPTH: Final = 32

Place = tuple[int, int]
Path = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """YAML as a notation of JSON."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose as usual, but refuse an alias where it stands."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not possible here", problem_mark=mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_document(text: bytes) -> tuple[Any, dict[Path, Place]]:
    """Return the data of a YAML or JSON text, and line and column of each part of it.

    Raises `WorkflowInvalid` with the place of the first thing that cannot be read.
    """
    if len(text) > MAX_BYTES:
        raise WorkflowInvalid([Problem("", f"A definition has at most {MAX_BYTES // 1024} kB.")])
    try:
        decoded = text.decode()
        if "\0" in decoded:
            raise UnicodeError
        loader = _Loader(decoded)
        node = _composed(loader)
        places: dict[Path, Place] = {}
        _collect(node, (), places, 0)
        data = loader.construct_document(node)
        _check_values(data, (), places)
        return data, places
    except UnicodeError:
        raise WorkflowInvalid([Problem("", "The text is not UTF-8.")]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise WorkflowInvalid([Problem("", f"Not valid YAML: {error.problem}.", *place)]) from None
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError):
        raise WorkflowInvalid([Problem("", "Not valid YAML.")]) from None


def _composed(loader: yaml.SafeLoader) -> yaml.Node:
    node = loader.get_single_node()
    if node is None:
        raise WorkflowInvalid([Problem("", "The definition is empty.")])
    return node


def _collect(node: yaml.Node, path: Path, places: dict[Path, Place], depth: int) -> None:
    place = (node.start_mark.line + 1, node.start_mark.column + 1)
    if depth > MAX_DEPTH:
        raise WorkflowInvalid([Problem(_dotted(path), f"A definition nests at most {MAX_DEPTH} levels.", *place)])
    places[path] = place
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _collect(value, (*path, str(key.value)), places, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _collect(value, (*path, index), places, depth + 1)


def _check_values(value: Any, path: Path, places: dict[Path, Place]) -> None:
    """Refuse what JSON, or the text columns of PostgreSQL, cannot hold."""
    if isinstance(value, str) and ("\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value)):
        raise WorkflowInvalid([placed(path, "The text holds a character that cannot be stored.", places)])
    if isinstance(value, float) and not math.isfinite(value):
        raise WorkflowInvalid([placed(path, "The number must be finite.", places)])
    if isinstance(value, int) and abs(value) > 2**63 - 1:
        raise WorkflowInvalid([placed(path, "The number is too large.", places)])
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise WorkflowInvalid([placed(path, "Keys must be text.", places)])
            _check_values(key, path, places)
            _check_values(item, (*path, key), places)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_values(item, (*path, index), places)
    elif not isinstance(value, str | int | float | bool | None):
        raise WorkflowInvalid([placed(path, "Only text, numbers, true, false and null can stand here.", places)])


def check_definition(data: Any, places: dict[Path, Place] | None = None) -> Definition:
    """Return the definition that `data` is. Raises `WorkflowInvalid` with every problem of form."""
    try:
        definition = Definition.model_validate(data)
        if is_id(definition.name, "wf") or definition.name == "schema":
            raise WorkflowInvalid([placed(("name",), "This name is reserved.", places or {})])
        return definition
    except ValidationError as error:
        problems = [
            placed(_path(problem["loc"]), _sentence(problem["msg"]), places or {})
            for problem in error.errors(include_url=False, include_context=False, include_input=False)
        ]
    raise WorkflowInvalid(problems)


def placed(path: Path, message: str, places: dict[Path, Place]) -> Problem:
    """Return a problem with the place of the innermost part of `path` that the text has."""
    known = next((places[path[:end]] for end in range(len(path), -1, -1) if path[:end] in places), (None, None))
    return Problem(_dotted(path), message, *known)


def _path(location: tuple[int | str, ...]) -> Path:
    return tuple("with" if part == "with_" else part for part in location)


def _dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)


def _sentence(message: str) -> str:
    return message if message.endswith(".") else message + "."
