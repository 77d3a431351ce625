"""Take one of several ways.

    - key: route
      uses: branch
      with: {value: "{{ steps.sort.output.label }}", cases: {invoice: pay, letter: [answer, file]}, default: ask}

or by conditions, of which the first that holds decides:

    - key: size
      uses: branch
      with:
        cases:
          - {when: "{{ inputs.amount > 1000 }}", then: ask}
          - {when: "{{ inputs.amount > 0 }}", then: pay}
        default: []

The steps named here wait for the branch, and those not taken are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from nexus.automation.document import Path
from nexus.automation.errors import InputsInvalid
from nexus.automation.expressions import as_text
from nexus.automation.step import StepModel
from nexus.runs.types import StepContext


class BranchCase(StepModel):
    """A condition and the steps it leads to."""

    when: bool = Field(description="A template of true or false")
    then: str | list[str]


class BranchInputs(StepModel):
    """What decides, and where it leads: keys of steps, one or a list. Values are compared as text."""

    value: Any = Field(None, description="What to look up in cases; left out where the cases are conditions")
    cases: dict[str, str | list[str]] | list[BranchCase]
    default: str | list[str] = Field(default_factory=list, description="Where to go when no case fits")


class BranchOutputs(StepModel):
    """The steps taken. `case` is the name or the number of the case, null for the default."""

    taken: list[str]
    case: str | int | None


class Branch:
    """The step `branch`."""

    uses = "branch"
    summary = "Take one of several ways; the steps of the others are skipped."
    queue = "default"
    Inputs = BranchInputs
    Outputs = BranchOutputs

    def targets(self, with_: dict[str, Any]) -> Iterator[tuple[Path, str]]:
        """Yield every step that this branch may take, with its place in `with`."""
        cases = with_.get("cases")
        ways: list[tuple[Path, Any]] = [(("default",), with_.get("default", []))]
        if isinstance(cases, dict):
            ways += [(("cases", name), way) for name, way in cases.items()]
        elif isinstance(cases, list):
            ways += [
                (("cases", index, "then"), case.get("then"))
                for index, case in enumerate(cases)
                if isinstance(case, dict)
            ]
        for path, way in ways:
            yield from ((path, key) for key in _keys(way) if isinstance(key, str))

    async def run(self, context: StepContext, inputs: BranchInputs) -> BranchOutputs:
        """Decide."""
        case, way = _chosen(inputs)
        taken = _keys(way)
        context.log(f"takes {', '.join(taken) or 'no way'}")
        return BranchOutputs(taken=taken, case=case)


def _chosen(inputs: BranchInputs) -> tuple[str | int | None, str | list[str]]:
    if isinstance(inputs.cases, list):
        if inputs.value is not None:
            raise InputsInvalid("Conditions decide by themselves; leave value out.", field="with.value")
        for index, case in enumerate(inputs.cases):
            if case.when:
                return index, case.then
        return None, inputs.default
    name = as_text(inputs.value)
    return (name, inputs.cases[name]) if name in inputs.cases else (None, inputs.default)


def _keys(way: Any) -> list[Any]:
    return way if isinstance(way, list) else [] if way is None else [way]


plug = Branch()
