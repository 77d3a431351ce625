"""A whole engine in this process, on its in-memory broker: what happens to runs of every kind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.clock import soon

from nexus.access.types import Principal, Scope
from nexus.compute.errors import ComputeCrashed
from nexus.core.errors import InvalidInput, RateLimited
from nexus.runs.errors import (
    IdempotencyKeyReused,
    QueueFull,
    RunFinished,
    RunNotFinished,
    RunNotFound,
    RunNotWaiting,
    StepNotFound,
)
from nexus.runs.failpoints import Failpoints
from nexus.runs.service import RunService
from nexus.runs.settings import RunsSettings
from nexus.runs.types import (
    Parent,
    Parked,
    PlainRenderer,
    RetryPolicy,
    Run,
    RunSpec,
    RunStatus,
    StepContext,
    StepSpec,
    StepStatus,
)
from nexus.runs.worker import EngineWorker
from nexus.storage.db import Database
from nexus.storage.events import Events, newest

Start = Callable[..., Awaitable[EngineWorker]]
SOON = RetryPolicy(max=2, backoff="fixed", base=0.02)


def one(uses: str, **more: Any) -> RunSpec:
    return RunSpec("test", "one", [StepSpec("a", uses, **more)])


def chain(n: int, uses: str = "noop", **more: Any) -> RunSpec:
    steps = [StepSpec(f"s{i}", uses, needs=[f"s{i - 1}"] if i else [], **more) for i in range(n)]
    return RunSpec("test", "chain", steps)


async def done(runs: RunService, who: Principal, spec: RunSpec) -> Run:
    run = await runs.start(who, spec)
    return await runs.wait(who, run.id, 60)


async def types_of(runs: RunService, who: Principal, run: Run) -> list[str]:
    return [event.type async for event in runs.events(who, run.id)]


async def test_a_run_runs(engine: Start, runs: RunService, who: Principal) -> None:
    await engine()
    started = await runs.start(who, RunSpec("test", "x", [StepSpec("a", "noop", {"n": 1})], inputs={"i": [1]}))
    assert started.status is RunStatus.QUEUED
    assert [step.status for step in started.steps] == [StepStatus.READY]
    run = await runs.wait(who, started.id, 60)
    assert run.status is RunStatus.SUCCEEDED
    assert run.result == {"n": 1}
    assert run.inputs == {"i": [1]}
    assert (run.progress.done, run.progress.total) == (1, 1)
    assert run.created_at <= run.started_at <= run.finished_at  # type: ignore[operator]
    assert run.steps[0].attempts == 1
    assert await types_of(runs, who, run) == [
        "run.created",
        "run.started",
        "step.started",
        "step.succeeded",
        "run.finished",
    ]


async def test_a_chain_is_one_message_and_keeps_its_order(engine: Start, runs: RunService, who: Principal) -> None:
    seen: list[str] = []

    async def note(context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        seen.append(context.step_key)
        return {"key": context.step_key}

    worker = await engine(note=note)
    run = await done(runs, who, chain(10, "note"))
    assert run.status is RunStatus.SUCCEEDED
    assert run.result == {"key": "s9"}
    assert seen == [f"s{i}" for i in range(10)]
    assert worker.tally["claimed"] == 1


async def test_a_diamond_runs_its_sides_at_once(engine: Start, runs: RunService, who: Principal) -> None:
    both = asyncio.Barrier(2)

    async def meet(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        async with asyncio.timeout(60):
            await both.wait()
        return {}

    await engine(meet=meet)
    steps = [
        StepSpec("top", "noop"),
        StepSpec("left", "meet", needs=["top"]),
        StepSpec("right", "meet", needs=["top"]),
        StepSpec("end", "noop", {"x": 1}, needs=["left", "right"]),
    ]
    run = await done(runs, who, RunSpec("test", "diamond", steps))
    assert run.status is RunStatus.SUCCEEDED
    assert run.result == {"x": 1}


async def test_a_step_knows_who_started_it_and_what_for(engine: Start, runs: RunService, who: Principal) -> None:
    seen: list[StepContext] = []

    async def look(context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        seen.append(context)
        return {}

    await engine(look=look)
    run = await done(runs, who, RunSpec("test", "x", [StepSpec("a", "look")], inputs={"q": 1}))
    (context,) = seen
    assert context.principal.kind == "system"
    assert (context.principal.id, context.project_id) == (who.id, who.project_id)
    assert context.principal.scopes == who.scopes
    assert context.idempotency_key == f"{run.id}.a"
    assert context.inputs_of_run == {"q": 1}


async def test_a_retryable_failure_is_tried_again(engine: Start, runs: RunService, who: Principal) -> None:
    attempts: list[int] = []

    async def shaky(context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        attempts.append(context.attempt)
        if context.attempt < 3:
            raise RateLimited("Not yet.")
        return {}

    await engine(shaky=shaky)
    run = await done(runs, who, one("shaky", retries=SOON))
    assert run.status is RunStatus.SUCCEEDED
    assert run.steps[0].error is None
    assert attempts == [1, 2, 3]
    assert (await types_of(runs, who, run)).count("step.retrying") == 2


async def test_retry_after_is_kept_to(engine: Start, runs: RunService, who: Principal) -> None:
    times: list[float] = []

    async def slow_down(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            raise RateLimited(retry_after=0.4)
        return {}

    await engine(slow_down=slow_down)
    run = await done(runs, who, one("slow_down", retries=SOON))
    assert run.status is RunStatus.SUCCEEDED
    assert 0.35 < times[1] - times[0] < 2.0


async def test_retries_end(engine: Start, runs: RunService, who: Principal) -> None:
    async def never(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        raise RateLimited("Busy.")

    await engine(never=never)
    steps = [StepSpec("a", "never", retries=SOON), StepSpec("b", "noop", needs=["a"]), StepSpec("c", "noop")]
    run = await done(runs, who, RunSpec("test", "x", steps))
    assert run.status is RunStatus.FAILED
    assert run.error is not None
    assert (run.error.code, run.error.step) == ("rate_limited", "a")
    assert [step.status for step in run.steps] == [StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.SUCCEEDED]
    assert run.steps[0].attempts == 3


@pytest.mark.parametrize(
    ("error", "code", "attempts"),
    [
        (InvalidInput("No.", field="x"), "invalid_input", 1),
        (ZeroDivisionError("secret"), "internal_error", 1),
        (ComputeCrashed(), "step_dead_lettered", 3),
    ],
)
async def test_how_errors_end_a_step(
    engine: Start, runs: RunService, who: Principal, error: Exception, code: str, attempts: int
) -> None:
    async def fail(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        raise error

    await engine(fail=fail)
    run = await done(runs, who, one("fail", retries=SOON))
    assert run.status is RunStatus.FAILED
    assert run.steps[0].error is not None
    assert run.steps[0].error.code == code
    assert "secret" not in run.steps[0].error.message
    assert run.steps[0].attempts == attempts


@pytest.mark.parametrize("output", [None, [1], {"x": object()}, {"x": "y" * 9_000_000}])
async def test_an_output_that_cannot_be_stored_fails_the_step(
    engine: Start, runs: RunService, who: Principal, output: Any
) -> None:
    async def give(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        return output  # type: ignore[no-any-return]

    await engine(give=give)
    run = await done(runs, who, one("give"))
    assert run.steps[0].error is not None
    assert run.steps[0].error.code == "step_output_invalid"


async def test_an_unknown_handler_fails_the_step(engine: Start, runs: RunService, who: Principal) -> None:
    await engine()
    run = await done(runs, who, one("nobody.knows"))
    assert run.error is not None
    assert run.error.code == "handler_unknown"


async def test_a_step_that_takes_too_long_is_stopped(engine: Start, runs: RunService, who: Principal) -> None:
    stopped = asyncio.Event()

    async def hang(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()
        return {}

    await engine(hang=hang)
    run = await done(runs, who, one("hang", timeout=0.1))
    assert run.error is not None
    assert run.error.code == "step_timeout"
    assert stopped.is_set()


async def test_a_condition_that_does_not_hold_skips_the_branch(engine: Start, runs: RunService, who: Principal) -> None:
    await engine()
    steps = [
        StepSpec("off", "noop", when="false"),
        StepSpec("behind", "noop", needs=["off"]),
        StepSpec("on", "noop", {"x": 1}, when="true"),
        StepSpec("join", "noop", {"x": 2}, needs=["behind", "on"]),
    ]
    run = await done(runs, who, RunSpec("test", "x", steps))
    assert run.status is RunStatus.SUCCEEDED
    assert [step.status for step in run.steps] == ["skipped", "skipped", "succeeded", "succeeded"]
    assert run.result == {"x": 2}


async def test_templates_see_inputs_and_earlier_steps(engine: Start, runs: RunService, who: Principal) -> None:
    scopes: list[dict[str, Any]] = []

    class Rendered(PlainRenderer):
        def reads(self, template: dict[str, Any], when: str | None) -> None:
            return None

        def render(self, with_: dict[str, Any], scope: dict[str, Any]) -> dict[str, Any]:
            scopes.append(scope)
            return {"got": scope["steps"]["a"]["output"], **with_}

        def holds(self, when: str, scope: dict[str, Any]) -> bool:
            if when == "broken":
                raise InvalidInput("The condition cannot be decided.", field="when")
            return scope["steps"]["a"]["status"] == "succeeded" and scope["inputs"]["go"]

    await engine(renderer=Rendered())
    steps = [StepSpec("a", "noop"), StepSpec("b", "noop", {"k": 1}, needs=["a"], when="go")]
    run = await done(runs, who, RunSpec("test", "x", steps, inputs={"go": True}))
    assert run.result == {"got": {}, "k": 1}
    assert scopes[0]["inputs"] == {"go": True}
    run = await done(runs, who, RunSpec("test", "x", [StepSpec("a", "noop", when="broken")]))
    assert run.error is not None
    assert (run.error.code, run.error.field) == ("invalid_input", "when")


async def test_cancel_stops_a_running_step_and_all_behind_it(engine: Start, runs: RunService, who: Principal) -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def hang(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()
        return {}

    await engine(hang=hang)
    run = await runs.start(who, chain(3, "hang"))
    await asyncio.wait_for(begun.wait(), 60)
    before = asyncio.get_running_loop().time()
    answer = await runs.cancel(who, run.id)
    assert answer.status is RunStatus.RUNNING
    run = await runs.wait(who, run.id, 60)
    assert asyncio.get_running_loop().time() - before < 15
    assert run.status is RunStatus.CANCELLED
    assert stopped.is_set()
    assert {step.status for step in run.steps} == {StepStatus.CANCELLED}
    again = await runs.cancel(who, run.id)
    assert again.status is RunStatus.CANCELLED


async def test_a_thread_of_a_handler_can_ask_whether_to_stop(engine: Start, runs: RunService, who: Principal) -> None:
    begun, told = threading.Event(), threading.Event()

    def work(context: StepContext) -> None:
        begun.set()
        for _ in range(6000):
            if context.cancelled:
                told.set()
                return
            threading.Event().wait(0.01)

    async def busy(context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        await asyncio.to_thread(work, context)
        return {}

    await engine(busy=busy)
    run = await runs.start(who, one("busy"))
    await asyncio.to_thread(begun.wait, 60)
    await runs.cancel(who, run.id)
    assert (await runs.wait(who, run.id, 60)).status is RunStatus.CANCELLED
    assert await asyncio.to_thread(told.wait, 60)


async def test_what_has_ended_cannot_be_cancelled_or_retried(engine: Start, runs: RunService, who: Principal) -> None:
    await engine()
    run = await done(runs, who, one("noop"))
    with pytest.raises(RunFinished):
        await runs.cancel(who, run.id)
    with pytest.raises(RunNotFinished):
        await runs.retry(who, run.id)
    with pytest.raises(RunNotWaiting):
        await runs.resume(who, run.id)
    assert (await runs.get(who, run.id)).status is RunStatus.SUCCEEDED


async def test_retry_runs_again_only_what_did_not_succeed(engine: Start, runs: RunService, who: Principal) -> None:
    calls: list[str] = []
    broken = True

    async def step(context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        calls.append(context.step_key)
        if context.step_key == "s1" and broken:
            raise InvalidInput("Broken.")
        return {"k": context.step_key}

    await engine(step=step)
    run = await done(runs, who, chain(3, "step"))
    assert run.status is RunStatus.FAILED
    broken = False
    again = await runs.retry(who, run.id)
    assert again.status is RunStatus.QUEUED
    run = await runs.wait(who, run.id, 60)
    assert run.status is RunStatus.SUCCEEDED
    assert (run.error, run.result) == (None, {"k": "s2"})
    assert calls == ["s0", "s1", "s1", "s2"]


async def test_a_parked_step_goes_on_at_its_time_with_its_state(
    engine: Start, runs: RunService, who: Principal
) -> None:
    async def nap(context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        if context.state is None:
            raise Parked(datetime.now(UTC) + timedelta(seconds=0.3), {"slept": 1})
        return context.state

    await engine(nap=nap)
    run = await done(runs, who, one("nap"))
    assert run.result == {"slept": 1}
    assert "step.waiting" in await types_of(runs, who, run)
    assert run.finished_at is not None
    assert (run.finished_at - run.created_at).total_seconds() > 0.29


async def test_a_signal_wakes_a_parked_step(engine: Start, runs: RunService, who: Principal) -> None:
    asked = 0

    async def ask(context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        if context.signal is None:
            raise Parked(state={"asked": True})
        return {"answer": context.signal["yes"], "state": context.state}

    await engine(ask=ask)
    run = await runs.start(who, one("ask"))
    while (await runs.get(who, run.id)).status is not RunStatus.WAITING:
        await asyncio.sleep(0.01)
    with pytest.raises(StepNotFound):
        await runs.signal(who, run.id, "nothing", {})
    await runs.resume(who, run.id)
    await soon(lambda: asked == 2)
    while (await runs.get(who, run.id)).status is not RunStatus.WAITING:
        await asyncio.sleep(0.01)
    await runs.signal(who, run.id, "a", {"yes": True})
    run = await runs.wait(who, run.id, 60)
    assert run.result == {"answer": True, "state": {"asked": True}}


async def test_a_waiting_run_can_be_cancelled(engine: Start, runs: RunService, who: Principal) -> None:
    async def ask(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        raise Parked

    await engine(ask=ask)
    run = await runs.start(who, one("ask"))
    while (await runs.get(who, run.id)).status is not RunStatus.WAITING:
        await asyncio.sleep(0.01)
    assert (await runs.cancel(who, run.id)).status is RunStatus.CANCELLED


async def test_a_run_past_its_deadline_fails(engine: Start, runs: RunService, who: Principal) -> None:
    async def hang(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(60)
        return {}

    await engine(hang=hang)
    run = await runs.start(who, RunSpec("test", "x", [StepSpec("a", "hang")], deadline=0.3))
    run = await runs.wait(who, run.id, 60)
    assert run.status is RunStatus.FAILED
    assert run.error is not None
    assert run.error.code == "run_deadline_exceeded"


async def test_log_and_progress_are_kept_in_order(engine: Start, runs: RunService, who: Principal) -> None:
    async def talk(context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        context.log("one")
        context.progress(1, 4, "epochs")
        await asyncio.sleep(0.6)
        context.log("two", "warning")
        context.progress(4, 4, "epochs")
        return {}

    await engine(talk=talk)
    started = await runs.start(who, one("talk"))
    events = [event async for event in runs.events(who, started.id)]
    assert [event.data["message"] for event in events if event.type == "log"] == ["one", "two"]
    assert [event.data["done"] for event in events if event.type == "step.progress"] == [1, 4]
    assert events[-1].type == "run.finished"
    assert [event.id for event in events] == sorted(event.id for event in events)
    logs = await runs.logs(who, started.id, step="a")
    assert [(line.data["message"], line.data["level"]) for line in logs] == [("one", "info"), ("two", "warning")]
    run = await runs.get(who, started.id)
    assert (run.progress.done, run.progress.unit) == (4, "epochs")


async def test_a_checkpoint_outlives_its_attempt(engine: Start, runs: RunService, who: Principal) -> None:
    async def chunked(context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        if context.state is None:
            await context.save({"chunk": 7})
            raise RateLimited
        return context.state

    await engine(chunked=chunked)
    run = await done(runs, who, one("chunked", retries=SOON))
    assert run.result == {"chunk": 7}


async def test_one_key_is_one_run(runs: RunService, who: Principal) -> None:
    spec = RunSpec("test", "x", [StepSpec("a", "noop")], inputs={"n": 1}, idempotency_key="k")
    found = await asyncio.gather(*[runs.start(who, spec) for _ in range(20)])
    assert len({run.id for run in found}) == 1
    with pytest.raises(IdempotencyKeyReused):
        await runs.start(who, RunSpec("test", "x", [StepSpec("a", "noop")], inputs={"n": 2}, idempotency_key="k"))
    other = await runs.start(who, RunSpec("test", "y", [StepSpec("a", "noop")], idempotency_key="k"))
    assert other.id != found[0].id


async def test_runs_of_others_are_not_there(runs: RunService, who: Principal) -> None:
    run = await runs.start(who, one("noop"))
    stranger = Principal("key", "key_x", "prj_x", frozenset({Scope.ADMIN}))
    colleague = Principal("key", "key_c", who.project_id, frozenset({Scope.VISION_INVOKE}))
    for other in (stranger, colleague):
        with pytest.raises(RunNotFound):
            await runs.get(other, run.id)
        with pytest.raises(RunNotFound):
            await runs.cancel(other, run.id)
        assert await runs.list(other) == []
    own = await runs.start(colleague, one("noop"))
    assert [found.id for found in await runs.list(colleague)] == [own.id]
    assert (await runs.cancel(colleague, own.id)).status is RunStatus.CANCELLED
    assert [found.id for found in await runs.list(who)] == [own.id, run.id]
    assert [found.id for found in await runs.list(who, status=RunStatus.QUEUED)] == [run.id]


async def test_a_full_queue_refuses_new_runs(database: Database, who: Principal) -> None:
    runs = RunService(database=database, settings=RunsSettings(queue_limit=2))
    await runs.start(who, chain(1))
    runs = RunService(database=database, settings=RunsSettings(queue_limit=2))
    await runs.start(who, chain(1))
    runs = RunService(database=database, settings=RunsSettings(queue_limit=2))
    with pytest.raises(QueueFull):
        await runs.start(who, chain(1))
    counts = await runs.counts()
    assert (counts.ready, counts.outbox) == ({"default": 2}, 2)
    # What belongs to a run that was taken is taken too.
    await runs.start(who, replace(chain(1), parent=Parent("run_a", "step_a", 1)))


async def test_what_was_ready_before_the_engine_started_is_taken_up(
    engine: Start, runs: RunService, who: Principal
) -> None:
    started = [await runs.start(who, chain(2)) for _ in range(5)]
    await engine()
    for run in started:
        assert (await runs.wait(who, run.id, 60)).status is RunStatus.SUCCEEDED


async def test_drain_releases_what_does_not_end_and_the_next_engine_ends_it(
    engine: Start, runs: RunService, who: Principal
) -> None:
    attempts: list[int] = []
    begun = asyncio.Event()

    async def long(context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        attempts.append(context.attempt)
        begun.set()
        if len(attempts) == 1:
            await asyncio.sleep(60)
        return {}

    first = await engine(long=long)
    run = await runs.start(who, one("long"))
    await asyncio.wait_for(begun.wait(), 60)
    await first.drain(0.1)
    stands = await runs.get(who, run.id)
    assert stands.steps[0].status is StepStatus.READY
    await engine(long=long)
    run = await runs.wait(who, run.id, 60)
    assert run.status is RunStatus.SUCCEEDED
    assert attempts == [1, 2]
    assert "step.released" in await types_of(runs, who, run)


async def test_small_projects_do_not_wait_for_large_ones(
    database: Database, settings: RunsSettings, runs: RunService, engine: Start, who: Principal
) -> None:
    settings.in_flight, settings.concurrency = 4, 1
    order: list[str] = []

    async def note(context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        order.append(context.project_id)
        return {}

    small = Principal("key", "key_s", "prj_small", frozenset())
    for _ in range(40):
        await runs.start(who, one("note"))
    run = await runs.start(small, one("note"))
    await engine(note=note)
    await runs.wait(small, run.id, 60)
    assert order.index("prj_small") < 12


async def test_old_runs_are_forgotten_when_asked_for(
    engine: Start, runs: RunService, who: Principal, settings: RunsSettings
) -> None:
    await engine()
    run = await done(runs, who, one("noop"))
    settings.keep_days = 0.5 / 86_400
    async with asyncio.timeout(60):
        while await runs.list(who):
            await asyncio.sleep(0.1)
    with pytest.raises(RunNotFound):
        await runs.get(who, run.id)


async def test_an_engine_tells_whether_it_takes_work(engine: Start, runs: RunService, who: Principal) -> None:
    worker = await engine()
    await done(runs, who, one("noop"))
    assert await worker.healthy()
    worker.executor.last_claim -= 3600
    assert await worker.healthy(), "nothing is ready, so nothing had to be taken"


def test_unknown_failpoints_are_refused() -> None:
    with pytest.raises(ValueError, match="never_there"):
        Failpoints({"never_there": 1})


async def test_events_know_the_run_whose_step_has_caused_them(
    database: Database, engine: Start, runs: RunService, who: Principal
) -> None:
    async def promote(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        await Events(database).publish("model.promoted", who.project_id, {"model": "churn"})
        return {}

    await engine(promote=promote)
    run = await done(runs, who, one("promote"))
    (event,) = database.read_now(newest, who.project_id, 10, ["model.promoted"])
    assert event.data == {"model": "churn", "caused_by": run.id}
    (ended,) = database.read_now(newest, who.project_id, 10, ["run.finished"])
    assert "caused_by" not in ended.data
