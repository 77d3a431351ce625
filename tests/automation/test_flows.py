"""Whole workflows, from the definition to the end of the run."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from tests.automation.conftest import Shop

from nexus.runs.types import RunStatus


def say(key: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"key": key, "uses": "file.write", "with": {"name": f"{key}.txt", "content": content}, **more}


def statuses(run: Any) -> dict[str, str]:
    return {step.key: step.status.value for step in run.steps}


async def test_a_map_over_an_input_and_a_result_made_of_its_outputs(shop: Shop) -> None:
    steps = [say("each", "{{ index }}: {{ item.name }}", map="{{ inputs.items }}", max_parallel=2)]
    outputs = {"sizes": "{{ pluck(steps.each.output, 'size') }}", "first": "{{ steps.each.output[0].size }}"}
    definition = {"inputs": {"items": {"type": "list"}}, "steps": steps, "outputs": outputs}
    run = await shop.run(definition, items=[{"name": "a"}, {"name": "bcd"}])
    assert run.status is RunStatus.SUCCEEDED, run.error
    assert run.result == {"sizes": [4, 6], "first": 4}


async def test_items_may_be_left_out_by_a_condition(shop: Shop) -> None:
    steps = [say("each", "{{ item }}", map=[1, 2, 3, 4], when="item % 2 == 0")]
    run = await shop.run({"steps": steps})
    assert [output is not None for output in run.result] == [False, True, False, True]
    run = await shop.run({"steps": [say("each", "{{ item }}", map=[1], when="1 > 2")]})
    assert statuses(run) == {"each": "skipped"}


@pytest.mark.parametrize(("label", "taken"), [("invoice", {"pay"}), ("letter", {"answer", "file"}), ("other", {"ask"})])
async def test_a_branch_takes_one_way(shop: Shop, label: str, taken: set[str]) -> None:
    cases = {"invoice": "pay", "letter": ["answer", "file"]}
    route = {
        "key": "route",
        "uses": "branch",
        "with": {"value": "{{ inputs.label }}", "cases": cases, "default": "ask"},
    }
    ways = [say(key, key) for key in ("pay", "answer", "file", "ask")]
    join = say("join", "{{ steps.route.output.taken }}", needs=["pay", "answer", "file", "ask"])
    run = await shop.run({"inputs": {"label": {"type": "string"}}, "steps": [*ways, route, join]}, label=label)
    ended = statuses(run)
    assert {key for key in ("pay", "answer", "file", "ask") if ended[key] == "succeeded"} == taken
    assert ended["join"] == "succeeded"


@pytest.mark.parametrize(("amount", "taken"), [(2000, "ask"), (5, "pay"), (-1, "none")])
async def test_conditions_decide_in_order(shop: Shop, amount: int, taken: str) -> None:
    cases = [
        {"when": "{{ inputs.amount > 1000 }}", "then": "ask"},
        {"when": "{{ inputs.amount > 0 }}", "then": "pay"},
    ]
    route = {"key": "route", "uses": "branch", "with": {"cases": cases, "default": "none"}}
    steps = [route, *(say(key, key, when="inputs.amount != 7") for key in ("ask", "pay", "none"))]
    run = await shop.run({"inputs": {"amount": {"type": "number"}}, "steps": steps}, amount=amount)
    assert [key for key, status in statuses(run).items() if status == "succeeded"] == ["route", taken]


async def test_a_workflow_runs_another_and_takes_its_result(shop: Shop) -> None:
    inner = {"name": "inner", "inputs": {"n": {"type": "integer"}}, "steps": [say("a", "{{ inputs.n }}")]}
    await shop.start({**inner, "outputs": {"double": "{{ inputs.n * 2 }}"}}, n=1)
    call = {
        "key": "call",
        "uses": "workflow",
        "with": {"name": "inner", "inputs": {"n": "{{ item }}"}},
        "map": [1, 2, 3],
    }
    run = await shop.run({"name": "outer", "steps": [call]})
    assert run.status is RunStatus.SUCCEEDED, run.error
    assert [output["result"]["double"] for output in run.result] == [2, 4, 6]
    child = await shop.runs.get(shop.who, run.result[0]["run_id"])
    assert child.trigger == {"type": "workflow", "run_id": run.id, "step": "call"}
    assert child.parent_run_id == run.id


async def test_the_failure_of_a_child_is_the_steps(shop: Shop) -> None:
    await shop.start({"name": "inner", "steps": [say("a", "{{ run.nothing }}")]})
    run = await shop.run({"name": "outer", "steps": [{"key": "call", "uses": "workflow", "with": {"name": "inner"}}]})
    assert run.error is not None
    assert run.error.code == "child_failed"
    assert "There is no nothing" in run.error.message


async def test_a_workflow_that_calls_itself_comes_to_an_end(shop: Shop) -> None:
    call = {"key": "call", "uses": "workflow", "with": {"name": "again"}}
    run = await shop.run({"name": "again", "steps": [call]})
    assert run.error is not None
    assert "nest at most 10" in run.error.message


async def test_the_failure_is_in_the_scope_of_on_failure(shop: Shop) -> None:
    bad = say("bad", "{{ run.nothing }}")
    late = [say("warn", "{{ failure.step }}: {{ failure.message }}"), say("more", "{{ steps.warn.output.size }}")]
    run = await shop.run({"steps": [bad], "on_failure": late})
    assert run.status is RunStatus.FAILED
    assert statuses(run) == {"bad": "failed", "warn": "succeeded", "more": "succeeded"}
    assert run.steps[1].output["size"] == len("bad: There is no nothing.")


async def test_a_result_that_cannot_be_made_fails_the_run(shop: Shop) -> None:
    run = await shop.run({"steps": [say("a", "x")], "outputs": {"x": "{{ steps.a.output.size + 'a' }}"}})
    assert run.error is not None
    assert (run.status, run.error.field) == (RunStatus.FAILED, "outputs.x")


async def test_what_started_a_run_is_in_its_scope(shop: Shop) -> None:
    definition = {"name": "t", "steps": [say("a", "{{ run.trigger.at }}")]}
    workflow, _ = await shop.automation.apply(shop.who, orjson.dumps(definition))
    trigger = {"type": "schedule", "at": "noon"}
    run = await shop.automation.start(shop.who, workflow.id, {}, trigger=trigger, priority=3)
    run = await shop.wait(run)
    assert run.steps[0].output["size"] == len("noon")
    assert (run.trigger, run.priority) == ({"type": "schedule", "at": "noon"}, 3)
