"""A definition as a graph: needs that are named and implied, and everything that cannot be."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from nexus.automation.document import check_definition
from nexus.automation.errors import WorkflowInvalid
from nexus.automation.graph import Graph, check_graph, step_specs
from nexus.automation.step import StepModel, StepPlug
from nexus.runs.types import StepContext


class EchoInputs(StepModel):
    text: Any
    loud: bool = False


class Echo:
    uses: ClassVar[str] = "text.echo"
    summary: ClassVar[str] = "Say it again."
    queue: ClassVar[str] = "cpu"
    Inputs: ClassVar[type[StepModel]] = EchoInputs
    Outputs: ClassVar[type[StepModel]] = EchoInputs

    async def run(self, context: StepContext, inputs: Any) -> StepModel:
        return EchoInputs(text=inputs.text)


def _checked(steps: list[dict[str, Any]], **more: Any) -> Graph:
    definition = check_definition({"name": "t", "steps": steps, **more})
    return check_graph(definition, _plug)


def _plug(uses: str) -> StepPlug | None:
    return Echo() if uses == "text.echo" else None


def _step(key: str, text: Any = "x", **more: Any) -> dict[str, Any]:
    return {"key": key, "uses": "text.echo", "with": {"text": text}, **more}


def test_templates_imply_needs() -> None:
    graph = _checked(
        [
            _step("c", "{{ steps.a.output.text }}", when="len(steps.b.output.text) > 1"),
            _step("a"),
            _step("b", needs=["a"]),
        ]
    )
    assert graph.needs == {"c": ["a", "b"], "a": [], "b": ["a"]}
    assert graph.order == ["a", "b", "c"]


def test_steps_carry_their_queue_and_retries() -> None:
    definition = check_definition({"name": "t", "steps": [_step("a", retries={"max": 2, "base": 0.5})]})
    (spec,) = step_specs(definition.steps, check_graph(definition, _plug), lambda uses: _plug(uses).queue)
    assert (spec.queue, spec.retries.max, spec.retries.base, spec.with_) == ("cpu", 2, 0.5, {"text": "x"})


@pytest.mark.parametrize(
    ("steps", "field", "words"),
    [
        ([_step("a"), _step("a")], "steps.1.key", "twice"),
        ([{"key": "a", "uses": "no.such"}], "steps.0.uses", "no step of this kind"),
        ([{"key": "a", "uses": "text.echo"}], "steps.0.with", "needs the input text"),
        ([{"key": "a", "uses": "text.echo", "with": {"text": 1, "txt": 2}}], "steps.0.with.txt", "no input"),
        ([_step("a", needs=["b"])], "steps.0.needs", "no step b"),
        ([_step("a", needs=["a"])], "steps.0.needs", "itself"),
        ([_step("a", "{{ steps.a.output }}")], "steps.0.with.text", "no step a"),
        ([_step("a", "{{ steps.z.output }}")], "steps.0.with.text", "no step z"),
        ([_step("a", "{{ inputs.z }}")], "steps.0.with.text", "no input z"),
        ([_step("a", "{{ env.HOME }}")], "steps.0.with.text", "no env"),
        ([_step("a", "{{ 1 +")], "steps.0.with.text", "closing"),
        ([_step("a", when="open('x')")], "steps.0.when", "functions"),
        ([_step("a", needs=["b"]), _step("b", "{{ steps.a.output }}")], "steps.0.needs", "a -> b -> a"),
        (
            [_step("x"), _step("a", needs=["c"]), _step("b", needs=["a"]), _step("c", needs=["b"])],
            "steps.1.needs",
            "->",
        ),
    ],
)
def test_says_what_cannot_be(steps: list[dict[str, Any]], field: str, words: str) -> None:
    with pytest.raises(WorkflowInvalid, match=words) as caught:
        _checked(steps)
    assert caught.value.problems[0].field == field


def test_reports_every_problem_at_once() -> None:
    with pytest.raises(WorkflowInvalid) as caught:
        _checked([_step("a", "{{ inputs.z }}"), {"key": "b", "uses": "no.such"}])
    assert [problem.field for problem in caught.value.problems] == ["steps.0.with.text", "steps.1.uses"]
