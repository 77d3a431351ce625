"""A definition checked as a whole and turned into the steps of a run. Pure.

A step needs what it says it needs, every step whose output its templates name, and the branch that may lead
to it. Needs must exist, must not go in a circle, and what is read must be known to be there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nexus.automation.document import Path, Place
from nexus.automation.errors import ExpressionError, Problem, WorkflowInvalid
from nexus.automation.expressions import parse, references
from nexus.automation.plug_check import check_plug, output_problem
from nexus.automation.reporter import Reporter
from nexus.automation.step import StepPlug
from nexus.automation.templates import template_references, unwrapped
from nexus.automation.types import Definition, StepDefinition
from nexus.runs.types import RetryPolicy, StepSpec

PlugOf = Callable[[str], StepPlug | None]
_ALWAYS: Final = ("inputs", "steps", "run")


@dataclass(slots=True)
class Graph:
    """The steps of a definition in an order in which they can be executed, with all their needs.

    `gates` are the branches that may lead to a step: it is skipped unless one of them does.
    """

    order: list[str]
    needs: dict[str, list[str]]
    gates: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Scope:
    """What the templates of one list of steps may name: `known` steps, of which `ours` become needs."""

    known: Mapping[str, StepDefinition]
    ours: Collection[str]
    inputs: Collection[str]
    more: tuple[str, ...]
    plug_of: PlugOf


def check_graph(definition: Definition, plug_of: PlugOf, places: dict[Path, Place] | None = None) -> Graph:
    """Check what the form alone does not show. Raises `WorkflowInvalid` with every problem found.

    `plug_of` finds the step plug of a `uses`, or None. The graph holds the steps of `on_failure` too.
    """
    problems: list[Problem] = []
    problem = Reporter(problems, places or {})
    _check_keys(definition, problem)
    main = {step.key: step for step in definition.steps}
    late = {step.key: step for step in definition.on_failure}
    inputs = definition.inputs.keys()
    graph = _graph(definition.steps, _Scope(main, main, inputs, (), plug_of), problem.below(("steps",)))
    scope = _Scope({**main, **late}, late, inputs, ("failure",), plug_of)
    failure = _graph(definition.on_failure, scope, problem.below(("on_failure",)))
    for name, template in (definition.outputs or {}).items():
        below = problem.below(("outputs", name))
        _check_references(template, _Scope(main, (), inputs, (), plug_of), below, secrets=False)
    if problems:
        raise WorkflowInvalid(problems)
    return Graph([*graph.order, *failure.order], {**graph.needs, **failure.needs}, {**graph.gates, **failure.gates})


def _check_keys(definition: Definition, problem: Reporter) -> None:
    seen: set[str] = set()
    for part, steps in (("steps", definition.steps), ("on_failure", definition.on_failure)):
        for index, step in enumerate(steps):
            if step.key in seen:
                problem((part, index, "key"), f"The key {step.key} is used twice.")
            seen.add(step.key)


def _graph(steps: list[StepDefinition], scope: _Scope, problem: Reporter) -> Graph:
    needs: dict[str, list[str]] = {}
    gates: dict[str, list[str]] = {}
    for index, step in enumerate(steps):
        below = problem.below((index,))
        plug = scope.plug_of(step.uses)
        check_plug(step, plug, below)
        _check_options(step, below)
        needs[step.key] = _needs(step, scope, below)
        for path, target in _targets(step, plug):
            if target not in scope.ours or target == step.key:
                below(path, f"There is no other step {target}.")
            else:
                gates.setdefault(target, []).append(step.key)
    for target, branches in gates.items():
        needs[target] = list(dict.fromkeys([*needs[target], *branches]))
    order = _ordered(needs)
    if len(order) < len(needs):
        circle = _circle({key: needs[key] for key in needs if key not in order})
        place = next(index for index, step in enumerate(steps) if step.key == circle[0])
        problem((place, "needs"), f"These steps wait for each other: {' -> '.join(circle)}.")
    graph = Graph(order, needs, gates)
    for index, step in enumerate(steps):
        _check_condition(step, graph, problem.below((index, "when")))
    return graph


def _check_condition(step: StepDefinition, graph: Graph, problem: Reporter) -> None:
    """Report a condition that branches have made too long."""
    try:
        whole, _ = _conditions(step, graph)
        parse(whole or "true")
    except ExpressionError as error:
        if step.key in graph.gates:
            problem((), f"Too much decides whether this step is taken: {error.message}")


def _targets(step: StepDefinition, plug: StepPlug | None) -> Iterable[tuple[Path, str]]:
    """Return the steps that a branch may take, each with its place; none for other steps."""
    targets = getattr(plug, "targets", None)
    return [] if targets is None else [(("with", *path), key) for path, key in targets(step.with_)]


def _check_options(step: StepDefinition, problem: Reporter) -> None:
    if isinstance(step.map, str) and "{{" not in step.map:
        problem(("map",), "A map is a list, or the template of one such as {{ inputs.items }}.")
    if isinstance(step.map, list) and len(step.map) > 10_000:
        problem(("map",), "A map has at most 10000 items.")
    if step.max_parallel is not None and step.map is None:
        problem(("max_parallel",), "Only a step with `map` has items to do in parallel.")
    if step.max_parallel is not None and step.concurrency is not None:
        problem(("max_parallel",), "Give either max_parallel (in one run) or concurrency (in all of them).")
    if step.fallback is not None and step.retries.max == 0:
        problem(("fallback",), "A fallback takes the last attempt; allow one more with retries.max.")


def _needs(step: StepDefinition, scope: _Scope, problem: Reporter) -> list[str]:
    found = dict.fromkeys(step.needs)
    for need in step.needs:
        if need not in scope.ours:
            problem(("needs",), f"There is no step {need}.")
        elif need == step.key:
            problem(("needs",), "A step cannot need itself.")
    mapped = ("item", "index") if step.map is not None else ()
    for path, template, more, secrets in _templates(step, mapped):
        inner = _Scope(scope.known, scope.ours, scope.inputs, (*scope.more, *more), scope.plug_of)
        for name in _check_references(template, inner, problem.below(path), own=step.key, secrets=secrets):
            found[name] = None
    return [need for need in found if need in scope.ours and need != step.key]


def _templates(step: StepDefinition, mapped: tuple[str, ...]) -> Iterable[tuple[Path, Any, tuple[str, ...], bool]]:
    """Yield every template with its place, what else it may name, and whether secrets too."""
    yield from ((("with", name), value, mapped, True) for name, value in step.with_.items())
    yield from ((("fallback", name), value, mapped, True) for name, value in (step.fallback or {}).items())
    if step.when is not None:
        yield ("when",), _Condition(step.when), mapped, False
    if step.map is not None:
        yield ("map",), step.map, (), False


class _Condition(str):
    """A text that is an expression as a whole."""

    __slots__ = ()


def _check_references(
    template: Any, scope: _Scope, problem: Reporter, *, own: str | None = None, secrets: bool = True
) -> list[str]:
    """Report every name that leads nowhere; return the steps that are named."""
    try:
        whole = isinstance(template, _Condition)
        named = references(unwrapped(str(template))) if whole else template_references(template)
    except ExpressionError as error:
        problem((), error.message)
        return []
    steps = []
    for reference in sorted(named):
        head, _, rest = reference.partition(".")
        name = rest.partition(".")[0]
        if head == "steps":
            if name and (name not in scope.known or name == own):
                problem((), f"There is no step {name[:80]} before this one.")
            elif name:
                steps.append(name)
                _check_output(reference, scope.known[name], scope.plug_of, problem)
        elif head == "inputs":
            if name and name not in scope.inputs:
                problem((), f"There is no input {name[:80]}.")
        elif head == "secrets":
            _check_secret(name, problem, allowed=secrets)
        elif head not in (*_ALWAYS, *scope.more):
            words = ", ".join([*_ALWAYS, *(["secrets"] if secrets else []), *scope.more])
            problem((), f"There is no {head[:80]}; templates know {words} here.")
    return steps


def _check_secret(name: str, problem: Reporter, *, allowed: bool) -> None:
    if not allowed:
        problem((), "Secrets can stand in `with` only.")
    elif not name:
        problem((), "A secret is asked for by its name: secrets.NAME.")


def _check_output(reference: str, step: StepDefinition, plug_of: PlugOf, problem: Reporter) -> None:
    parts = reference.split(".")[2:]
    if parts and parts[0] not in ("output", "status"):
        problem((), f"A step has an output and a status, no {parts[0][:80]}.")
    elif len(parts) > 1 and parts[0] == "output":
        said = output_problem(step, plug_of(step.uses), parts[1])
        if said:
            problem((), said)


def step_specs(
    steps: list[StepDefinition], graph: Graph, queue_of: Callable[[str], str], origin: str = ""
) -> list[StepSpec]:
    """Return steps of a run, in the order of the definition. `origin` names the workflow for limits of concurrency."""
    specs = []
    for step in steps:
        whole, each = _conditions(step, graph)
        specs.append(
            StepSpec(
                key=step.key,
                uses=step.uses,
                with_=step.with_,
                needs=graph.needs[step.key],
                when=whole,
                item_when=each,
                retries=_policy(step),
                timeout=step.timeout,
                queue=queue_of(step.uses),
                map=step.map,
                max_parallel=step.max_parallel,
                go_on=step.continue_,
                fallback=step.fallback,
                lane=f"{origin}.{step.key}" if step.concurrency else None,
                concurrency=step.concurrency,
            )
        )
    return specs


def _policy(step: StepDefinition) -> RetryPolicy:
    given = step.retries
    return RetryPolicy(given.max, given.backoff, given.base, given.cap, given.on, given.never)


def _conditions(step: StepDefinition, graph: Graph) -> tuple[str | None, str | None]:
    """Return the condition of the step, branches included, and that of each item if it speaks of items."""
    own = None if step.when is None else unwrapped(step.when).strip()
    each = None
    heads = set() if own is None else {path.partition(".")[0] for path in references(own)}
    if step.map is not None and heads & {"item", "index"}:
        own, each = None, own
    branches = graph.gates.get(step.key, [])
    gate = " or ".join(f'contains(coalesce(steps.{branch}.output.taken, []), "{step.key}")' for branch in branches)
    if gate and own:
        return f"({gate}) and ({own})", each
    return gate or own, each


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
