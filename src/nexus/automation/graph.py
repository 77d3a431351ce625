"""A definition checked as a whole and turned into the steps of a run. Pure.

A step needs what it says it needs, and every step whose output its templates name. Needs must
exist, must not go in a circle, and what is read must be known to be there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from nexus.automation.document import Path, Place, placed
from nexus.automation.errors import ExpressionError, Problem, WorkflowInvalid
from nexus.automation.expressions import references
from nexus.automation.step import StepPlug
from nexus.automation.templates import template_references, unwrapped
from nexus.automation.types import Definition, StepDefinition
from nexus.runs.types import RetryPolicy, StepSpec


@dataclass(slots=True)
class Graph:
    """The steps of a definition in an order in which they can be executed, with all their needs."""

    order: list[str]
    needs: dict[str, list[str]]


class _Reporter:
    """Collects problems found below one place of the definition."""

    def __init__(self, problems: list[Problem], places: dict[Path, Place], at: Path = ()) -> None:
        self._problems, self._places, self._at = problems, places, at

    def __call__(self, path: Path, message: str) -> None:
        self._problems.append(placed((*self._at, *path), message, self._places))

    def below(self, path: Path) -> _Reporter:
        return _Reporter(self._problems, self._places, (*self._at, *path))


def check_graph(
    definition: Definition, plug_of: Callable[[str], StepPlug | None], places: dict[Path, Place] | None = None
) -> Graph:
    """Check what the form alone does not show. Raises `WorkflowInvalid` with every problem found.

    `plug_of` finds the step plug of a `uses`, or None.
    """
    problems: list[Problem] = []
    problem = _Reporter(problems, places or {})
    keys = [step.key for step in definition.steps]
    for index, key in enumerate(keys):
        if key in keys[:index]:
            problem(("steps", index, "key"), f"The key {key} is used twice.")
    needs: dict[str, list[str]] = {}
    for index, step in enumerate(definition.steps):
        at: Path = ("steps", index)
        _check_plug(step, plug_of(step.uses), problem.below(at))
        needs[step.key] = _needs(step, set(keys), set(definition.inputs), problem.below(at))
    order = _ordered(needs)
    if not problems and len(order) < len(needs):
        circle = _circle({key: needs[key] for key in needs if key not in order})
        problem(("steps", keys.index(circle[0]), "needs"), f"These steps wait for each other: {' -> '.join(circle)}.")
    if problems:
        raise WorkflowInvalid(problems)
    return Graph(order, needs)


def step_specs(definition: Definition, graph: Graph, queue_of: Callable[[str], str]) -> list[StepSpec]:
    """Return the steps of a run, in the order of the definition."""
    return [
        StepSpec(
            key=step.key,
            uses=step.uses,
            with_=step.with_,
            needs=graph.needs[step.key],
            when=step.when,
            retries=RetryPolicy(step.retries.max, step.retries.backoff, step.retries.base, step.retries.cap),
            timeout=step.timeout,
            queue=queue_of(step.uses),
        )
        for step in definition.steps
    ]


def _check_plug(step: StepDefinition, plug: StepPlug | None, problem: _Reporter) -> None:
    if plug is None:
        problem(("uses",), "There is no step of this kind.")
        return
    fields = plug.Inputs.model_fields
    names = {field.alias or name: field for name, field in fields.items()}
    for name in step.with_:
        if name not in names:
            problem(("with", name), f"{step.uses} has no input of this name; it has {', '.join(sorted(names))}.")
    for name, field in names.items():
        if field.is_required() and name not in step.with_:
            problem(("with",), f"{step.uses} needs the input {name}.")


def _needs(step: StepDefinition, keys: set[str], inputs: set[str], problem: _Reporter) -> list[str]:
    found = dict.fromkeys(step.needs)
    for need in step.needs:
        if need not in keys:
            problem(("needs",), f"There is no step {need}.")
        elif need == step.key:
            problem(("needs",), "A step cannot need itself.")
    for path, named in _named(step, problem):
        for reference in sorted(named):
            head, _, rest = reference.partition(".")
            name = rest.partition(".")[0]
            if head == "inputs" and name and name not in inputs:
                problem(path, f"There is no input {name}.")
            elif head == "steps" and name and (name not in keys or name == step.key):
                problem(path, f"There is no step {name} before this one.")
            elif head == "steps" and name:
                found[name] = None
            elif head not in ("inputs", "steps", "run"):
                problem(path, f"There is no {head[:80]}; templates know inputs, steps and run.")
    return [need for need in found if need in keys and need != step.key]


def _named(step: StepDefinition, problem: _Reporter) -> Iterable[tuple[Path, set[str]]]:
    parts: list[tuple[Path, Callable[[Any], set[str]], Any]]
    parts = [(("with", name), template_references, value) for name, value in step.with_.items()]
    if step.when is not None:
        parts.append((("when",), references, unwrapped(step.when)))
    for path, read, text in parts:
        try:
            yield path, read(text)
        except ExpressionError as error:
            problem(path, error.message)


def _ordered(needs: dict[str, list[str]]) -> list[str]:
    """Return the keys in topological order; those in a circle, and behind one, are left out (Kahn, 1962)."""
    left = {key: set(wanted) for key, wanted in needs.items()}
    order: list[str] = []
    while ready := [key for key, wanted in left.items() if not wanted]:
        order += ready
        for key in ready:
            del left[key]
        for wanted in left.values():
            wanted.difference_update(ready)
    return order


def _circle(needs: dict[str, list[str]]) -> list[str]:
    path = [next(iter(needs))]
    while path[-1] not in path[:-1]:
        path.append(next(need for need in needs[path[-1]] if need in needs))
    return path[path.index(path[-1]) :]
