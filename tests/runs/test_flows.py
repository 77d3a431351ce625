"""Maps, lanes, steps for a failure, pauses and child runs, with a real engine in this process."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import select
from tests.runs.conftest import Start

from nexus.access.types import Principal
from nexus.core.errors import InvalidInput, NexusError, Unavailable
from nexus.runs.errors import RunFinished, RunNotFinished, RunNotWaiting, StepNotFound
from nexus.runs.service import RunService
from nexus.runs.types import (
    Parent,
    Parked,
    RetryPolicy,
    Run,
    RunSpec,
    RunStatus,
    StepContext,
    StepSpec,
    StepStatus,
)
from nexus.storage.db import Database
from nexus.storage.tables import EventRow


async def done(runs: RunService, who: Principal, spec: RunSpec, seconds: float = 60) -> Run:
    run = await runs.start(who, spec)
    run = await runs.wait(who, run.id, seconds)
    assert run.status.final, run
    return run


def spec(*steps: StepSpec, **more: Any) -> RunSpec:
    return RunSpec("test", "flow", list(steps), **more)


def statuses(run: Run) -> dict[str, str]:
    return {step.key: step.status.value for step in run.steps}


class Gauge:
    """Counts how many handlers run at once, and what they are called with."""

    def __init__(self, seconds: float = 0.03) -> None:
        self.seconds = seconds
        self.now = self.most = 0
        self.keys: list[str] = []
        self.order: list[int | None] = []

    async def __call__(self, context: StepContext, inputs: dict[str, Any]) -> dict[str, Any]:
        self.keys.append(context.idempotency_key)
        self.order.append(context.map_index)
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(self.seconds)
        self.now -= 1
        return {"index": context.map_index}


async def fussy(context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
    if context.map_index == 2 and context.round == 0:
        raise InvalidInput("The third one is bad.")
    return {"i": context.map_index, "attempt": context.attempt}


async def test_a_map_joins_its_items_in_order(engine: Start, runs: RunService, who: Principal) -> None:
    gauge = Gauge(0)
    await engine(work=gauge)
    steps = [
        StepSpec("a", "noop"),
        StepSpec("each", "work", needs=["a"], map="items"),
        StepSpec("z", "noop", needs=["each"]),
    ]
    run = await done(runs, who, spec(*steps, inputs={"items": list("abcdefg")}))
    assert statuses(run) == {"a": "succeeded", "each": "succeeded", "z": "succeeded"}
    each = run.steps[1]
    assert each.output == [{"index": index} for index in range(7)]
    assert (each.items_total, each.items_left) == (7, 0)
    assert sorted(gauge.keys) == [f"{run.id}.each.{index}" for index in range(7)]
    items = await runs.items(who, run.id, "each", after=1, limit=3)
    assert [item.map_index for item in items] == [2, 3, 4]
    assert run.progress.total == 3


async def test_a_map_of_nothing_is_an_empty_list(engine: Start, runs: RunService, who: Principal) -> None:
    await engine()
    run = await done(runs, who, spec(StepSpec("each", "noop", map=[]), StepSpec("z", "noop", needs=["each"])))
    assert run.steps[0].output == []
    assert run.status is RunStatus.SUCCEEDED


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_no_more_items_at_once_than_allowed(engine: Start, runs: RunService, who: Principal, most: int) -> None:
    gauge = Gauge(0.02)
    await engine(work=gauge)
    run = await done(runs, who, spec(StepSpec("each", "work", map=list(range(9)), max_parallel=most)))
    assert run.status is RunStatus.SUCCEEDED
    assert gauge.most == most
    assert len(run.result) == 9
    if most == 1:
        assert gauge.order == list(range(9))


async def test_an_item_that_fails_fails_the_map_and_stops_those_not_begun(
    engine: Start, runs: RunService, who: Principal
) -> None:
    await engine(fussy=fussy)
    each = StepSpec("each", "fussy", map=list(range(20)), max_parallel=1)
    run = await done(runs, who, spec(each, StepSpec("z", "noop", needs=["each"])))
    assert run.status is RunStatus.FAILED
    assert run.error is not None
    assert (run.error.step, run.error.message) == ("each", "Item 2: The third one is bad.")
    assert statuses(run)["z"] == "skipped"
    items = await runs.items(who, run.id, "each")
    assert Counter(item.status.value for item in items) == {"succeeded": 2, "failed": 1, "cancelled": 17}
    run = await runs.wait(who, (await runs.retry(who, run.id)).id, 60)
    assert run.status is RunStatus.SUCCEEDED
    outputs = run.steps[0].output
    assert [output["i"] for output in outputs] == list(range(20))
    assert outputs[0]["attempt"] == 1, "what had succeeded was not done again"


async def test_a_map_goes_on_without_its_failed_items_if_told_to(
    engine: Start, runs: RunService, who: Principal
) -> None:
    await engine(fussy=fussy)
    run = await done(runs, who, spec(StepSpec("each", "fussy", map=list(range(4)), go_on=True)))
    assert run.status is RunStatus.SUCCEEDED
    assert [output and output["i"] for output in run.result] == [0, 1, None, 3]


async def test_items_are_retried_one_by_one(engine: Start, runs: RunService, who: Principal) -> None:
    async def shaky(context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        if context.attempt <= (context.map_index or 0):
            raise Unavailable
        return {"attempt": context.attempt}

    await engine(shaky=shaky)
    run = await done(runs, who, spec(StepSpec("e", "shaky", map=[0, 1, 2], retries=RetryPolicy(max=2, base=0.01))))
    assert [output["attempt"] for output in run.result] == [1, 2, 3]


@pytest.mark.slow
async def test_a_large_map(engine: Start, runs: RunService, who: Principal) -> None:
    await engine()
    run = await done(runs, who, spec(StepSpec("each", "noop", map=list(range(600)))), 60)
    assert run.status is RunStatus.SUCCEEDED
    assert len(run.result) == 600


async def test_cancelling_a_map_ends_all_of_it(engine: Start, runs: RunService, who: Principal) -> None:
    begun = asyncio.Event()

    async def hang(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        begun.set()
        await asyncio.sleep(60)
        return {}

    await engine(hang=hang)
    run = await runs.start(
        who, spec(StepSpec("each", "hang", map=list(range(30))), StepSpec("z", "noop", needs=["each"]))
    )
    await begun.wait()
    await runs.cancel(who, run.id)
    run = await runs.wait(who, run.id, 60)
    assert run.status is RunStatus.CANCELLED
    assert {item.status for item in await runs.items(who, run.id, "each")} == {StepStatus.CANCELLED}


async def test_steps_of_one_lane_share_its_limit_across_runs(engine: Start, runs: RunService, who: Principal) -> None:
    gauge = Gauge(0.02)
    await engine(work=gauge)
    step = StepSpec("a", "work", lane="lane", concurrency=2)
    started = [await runs.start(who, spec(step, StepSpec("b", "noop", needs=["a"]))) for _ in range(12)]
    for run in started:
        assert (await runs.wait(who, run.id, 60)).status is RunStatus.SUCCEEDED
    assert gauge.most == 2


async def test_runs_of_one_lane_queue_behind_each_other(engine: Start, runs: RunService, who: Principal) -> None:
    going = most = 0

    async def first(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        nonlocal going, most
        going += 1
        most = max(most, going)
        await asyncio.sleep(0.01)
        return {}

    async def last(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        nonlocal going
        going -= 1
        return {}

    await engine(first=first, last=last)
    flow = spec(StepSpec("a", "first"), StepSpec("b", "last", needs=["a"]), lane="workflow", concurrency=1)
    started = [await runs.start(who, flow) for _ in range(8)]
    for run in started:
        assert (await runs.wait(who, run.id, 60)).status is RunStatus.SUCCEEDED
    assert most == 1


async def test_steps_for_a_failure_see_it_and_the_run_stays_failed(
    engine: Start, runs: RunService, who: Principal, database: Database
) -> None:
    seen: list[str] = []

    async def fail(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        raise InvalidInput("Broken.")

    async def warn(context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        seen.append(context.step_key)
        return {}

    await engine(fail=fail, warn=warn)
    late = [StepSpec("warn", "warn"), StepSpec("more", "warn", needs=["warn"])]
    flow = spec(StepSpec("a", "fail"), StepSpec("b", "noop", needs=["a"]), on_failure=late)
    run = await done(runs, who, flow)
    assert run.status is RunStatus.FAILED
    assert run.error is not None
    assert (run.error.step, run.error.message) == ("a", "Broken.")
    assert statuses(run) == {"a": "failed", "b": "skipped", "warn": "succeeded", "more": "succeeded"}
    assert [step.role for step in run.steps] == [None, None, "failure", "failure"]
    assert seen == ["warn", "more"]
    told = database.read_now(
        lambda s: s.execute(select(EventRow).where(EventRow.type == "run.finished")).scalars().all()
    )
    assert [(event.data["run_id"], event.data["status"]) for event in told] == [(run.id, "failed")]
    run = await runs.wait(who, (await runs.retry(who, run.id)).id, 60)
    assert seen == ["warn", "more"] * 2, "a second failure calls them again"


async def test_steps_for_a_failure_run_when_the_time_is_up_and_not_when_a_person_cancels(
    engine: Start, runs: RunService, who: Principal
) -> None:
    async def hang(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(60)
        return {}

    await engine(hang=hang)
    flow = spec(StepSpec("a", "hang"), on_failure=[StepSpec("warn", "noop")], deadline=0.2)
    run = await done(runs, who, flow)
    assert (run.status, statuses(run)["warn"]) == (RunStatus.FAILED, "succeeded")
    assert run.error is not None
    assert run.error.code == "run_deadline_exceeded"
    run = await runs.start(who, spec(StepSpec("a", "hang"), on_failure=[StepSpec("warn", "noop")]))
    await runs.cancel(who, run.id)
    run = await runs.wait(who, run.id, 60)
    assert (run.status, list(statuses(run))) == (RunStatus.CANCELLED, ["a"])


async def test_a_failure_may_be_taken_in_stride(engine: Start, runs: RunService, who: Principal) -> None:
    async def fail(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        raise InvalidInput("Broken.")

    await engine(fail=fail)
    run = await done(runs, who, spec(StepSpec("a", "fail", go_on=True), StepSpec("b", "noop", needs=["a"])))
    assert (run.status, statuses(run)) == (RunStatus.SUCCEEDED, {"a": "failed", "b": "succeeded"})


async def test_a_child_run_wakes_its_parent_and_falls_with_it(engine: Start, runs: RunService, who: Principal) -> None:
    hanging = asyncio.Event()

    async def nest(context: StepContext, inputs: dict[str, Any]) -> dict[str, Any]:
        child = RunSpec(
            "test",
            "child",
            [StepSpec("c", inputs["uses"])],
            idempotency_key=context.idempotency_key,
            parent=Parent(context.run_id, context.step_id, context.depth + 1),
        )
        run = await runs.start(context.principal, child)
        if not run.status.final:
            raise Parked
        return {"child": run.id, "status": run.status.value}

    async def hang(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        hanging.set()
        await asyncio.sleep(60)
        return {}

    await engine(nest=nest, hang=hang)
    run = await done(runs, who, spec(StepSpec("p", "nest", {"uses": "noop"}), StepSpec("q", "noop", needs=["p"])))
    assert run.steps[0].output["status"] == "succeeded"
    child = await runs.get(who, run.steps[0].output["child"])
    assert child.parent_run_id == run.id
    run = await runs.start(who, spec(StepSpec("p", "nest", {"uses": "hang"})))
    await hanging.wait()
    await runs.cancel(who, run.id)
    assert (await runs.wait(who, run.id, 60)).status is RunStatus.CANCELLED
    children = [one for one in await runs.list(who) if one.parent_run_id == run.id]
    assert (await runs.wait(who, children[0].id, 60)).status is RunStatus.CANCELLED


async def test_many_children_that_end_at_once_lose_no_parent(engine: Start, runs: RunService, who: Principal) -> None:
    async def nest(context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        parent = Parent(context.run_id, context.step_id, 1)
        key = context.idempotency_key
        run = await runs.start(
            context.principal, RunSpec("test", "child", [StepSpec("c", "noop")], idempotency_key=key, parent=parent)
        )
        if not run.status.final:
            raise Parked
        return {}

    await engine(nest=nest)
    run = await done(runs, who, spec(StepSpec("each", "nest", map=list(range(40)))), 40)
    assert run.status is RunStatus.SUCCEEDED


async def test_a_paused_run_begins_nothing_until_it_is_resumed(engine: Start, runs: RunService, who: Principal) -> None:
    go = asyncio.Event()
    begun = asyncio.Event()

    async def gate(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        begun.set()
        await go.wait()
        return {}

    await engine(gate=gate)
    run = await runs.start(who, spec(StepSpec("a", "gate"), StepSpec("b", "noop", needs=["a"])))
    await begun.wait()
    run = await runs.pause(who, run.id)
    assert run.paused
    go.set()
    while statuses(await runs.get(who, run.id))["a"] != "succeeded":
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)
    run = await runs.get(who, run.id)
    assert (run.status, statuses(run)) == (RunStatus.WAITING, {"a": "succeeded", "b": "ready"})
    await runs.resume(who, run.id)
    assert (await runs.wait(who, run.id, 60)).status is RunStatus.SUCCEEDED
    with pytest.raises(RunFinished):
        await runs.pause(who, run.id)
    with pytest.raises(RunNotWaiting):
        await runs.resume(who, run.id)


async def test_a_run_paused_before_it_began(engine: Start, runs: RunService, who: Principal) -> None:
    run = await runs.start(who, spec(StepSpec("each", "noop", map=list(range(5)), max_parallel=2)))
    await runs.pause(who, run.id)
    await engine()
    await asyncio.sleep(0.3)
    assert (await runs.get(who, run.id)).steps[0].status is StepStatus.READY
    await runs.resume(who, run.id)
    assert (await runs.wait(who, run.id, 60)).status is RunStatus.SUCCEEDED


async def test_retry_from_a_step_keeps_what_stands_before(engine: Start, runs: RunService, who: Principal) -> None:
    calls: Counter[str] = Counter()

    async def count(context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        calls[context.step_key] += 1
        return {"n": calls[context.step_key]}

    await engine(count=count)
    steps = [
        StepSpec("a", "count"),
        StepSpec("b", "count", needs=["a"], map=[1, 2]),
        StepSpec("c", "count", needs=["b"]),
        StepSpec("other", "count", needs=["a"]),
    ]
    run = await done(runs, who, spec(*steps))
    with pytest.raises(RunNotFinished):
        await runs.retry(who, run.id)
    with pytest.raises(StepNotFound):
        await runs.retry(who, run.id, "nowhere")
    run = await runs.wait(who, (await runs.retry(who, run.id, "b")).id, 60)
    assert run.status is RunStatus.SUCCEEDED
    assert calls == {"a": 1, "b": 4, "c": 2, "other": 1}


async def test_a_target_that_is_away_parks_steps_instead_of_burning_attempts(
    engine: Start, runs: RunService, who: Principal
) -> None:
    away, calls = True, 0

    async def call(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        nonlocal calls
        calls += worker.tally["breaker_parked"] == 0
        if away:
            raise Unavailable
        return {}

    call.target = lambda inputs: inputs.get("to")  # type: ignore[attr-defined]
    worker = await engine(call=call)
    policy = RetryPolicy(max=2, base=0.05, backoff="fixed")
    each = StepSpec("each", "call", {"to": "there"}, map=list(range(12)), retries=policy, go_on=True, max_parallel=1)
    run = await runs.start(who, spec(each))
    parked: list[Any] = []
    async with asyncio.timeout(60):
        while worker.tally["breaker_parked"] == 0 or not parked:
            await asyncio.sleep(0.02)
            parked = [item for item in await runs.items(who, run.id, "each") if item.status is StepStatus.WAITING]
    assert calls == 5
    away = False
    assert all(item.attempts <= 2 for item in parked)
    run = await runs.wait(who, run.id, 60)
    assert run.status is RunStatus.SUCCEEDED
    assert all(output is not None for output in run.result), "none has used up its attempts"


async def test_the_last_attempt_takes_the_fallback(engine: Start, runs: RunService, who: Principal) -> None:
    models: list[str] = []

    async def ask(_context: StepContext, inputs: dict[str, Any]) -> dict[str, Any]:
        models.append(inputs["model"])
        if inputs["model"] == "first":
            raise Unavailable
        return inputs

    await engine(ask=ask)
    policy = RetryPolicy(max=2, base=0.01)
    run = await done(
        runs, who, spec(StepSpec("a", "ask", {"model": "first"}, retries=policy, fallback={"model": "second"}))
    )
    assert run.result == {"model": "second"}
    assert models == ["first", "first", "second"]


@pytest.mark.parametrize(
    ("policy", "error", "attempts"),
    [
        (RetryPolicy(max=2, base=0.01), Unavailable(), 3),
        (RetryPolicy(max=2, base=0.01), InvalidInput("x"), 1),
        (RetryPolicy(max=2, base=0.01, on=["invalid"]), InvalidInput("x"), 3),
        (RetryPolicy(max=2, base=0.01, on=["invalid_input"]), InvalidInput("x"), 3),
        (RetryPolicy(max=2, base=0.01, on=["timeout"]), Unavailable(), 1),
        (RetryPolicy(max=2, base=0.01, on=["any"], never=["unavailable"]), Unavailable(), 1),
        (RetryPolicy(max=2, base=0.01, on=["any"]), NexusError("x"), 3),
    ],
)
async def test_which_errors_are_tried_again(
    engine: Start, runs: RunService, who: Principal, policy: RetryPolicy, error: NexusError, attempts: int
) -> None:
    async def fail(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        raise error

    await engine(fail=fail)
    run = await done(runs, who, spec(StepSpec("a", "fail", retries=policy)))
    assert run.steps[0].attempts == attempts
