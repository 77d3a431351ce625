"""People who change the course of a run: what was found by the simulator, case by case."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from nexus.access.types import Principal
from nexus.runs import engine_storage as queries
from nexus.runs import steering, storage
from nexus.runs.completion import finish
from nexus.runs.engine_storage import Claimed, Terms
from nexus.runs.errors import RunNotWaiting
from nexus.runs.tables import STEP
from nexus.runs.transitions import Spread, Succeeded
from nexus.runs.types import Failure, Run, RunSpec, StepSpec
from nexus.storage.db import Database

T0 = datetime(2026, 11, 23, 7, tzinfo=UTC)
TERMS = Terms(lease=30, republish=60, crash_limit=20, child_crash_limit=3, random=lambda: 0.5)
DONE = Succeeded({"x": 1})


class Bench:
    """What people and one engine do to a database, in few words."""

    def __init__(self, database: Database, who: Principal) -> None:
        self.db = database
        self.who = who

    def start(self, *steps: StepSpec, **more: Any) -> Run:
        return self.db.write_now(storage.add_run, RunSpec("test", "x", list(steps), **more), self.who, T0, 60.0)[0]

    def do(self, call: Callable[..., Run], run: Run, *more: Any) -> Run:
        return self.db.write_now(call, run.project_id, run.id, T0, *more)

    def take_all(self) -> list[Claimed]:
        """Publish all that is due, and claim what may be claimed."""
        found = self.db.read_now(queries.due_messages, T0 + timedelta(seconds=1), 100)
        self.db.write_now(queries.delete_messages, [message.outbox_id for message in found])
        claims = [self.db.write_now(queries.claim, m.step_id, m.epoch, "one", T0, TERMS) for m in found]
        return [claimed for claimed in claims if claimed is not None]

    def end(self, claimed: Claimed, outcome: Any = DONE) -> None:
        self.db.write_now(finish, claimed, outcome, T0, TERMS, owner="one")

    def events(self, run: Run) -> list[str]:
        return [event.type for event in self.db.read_now(storage.events_after, run.id, 0, 1000)]


@pytest.fixture
def bench(any_database: Database, who: Principal) -> Bench:
    return Bench(any_database, who)


def test_a_run_that_ended_while_it_was_paused_is_no_longer_paused(bench: Bench) -> None:
    run = bench.start(StepSpec("a", "noop"))
    (claimed,) = bench.take_all()
    bench.do(steering.pause_run, run)
    bench.end(claimed)
    ended = bench.db.read_now(storage.run_alone, run.project_id, run.id)
    assert (ended.status, ended.paused) == ("succeeded", False)
    with pytest.raises(RunNotWaiting):
        bench.do(steering.resume_run, run, 60.0)
    assert bench.events(run)[-1] == "run.finished"


def test_a_map_resumed_after_its_first_items_have_ended_goes_on_at_once(bench: Bench) -> None:
    run = bench.start(StepSpec("each", "noop", map=[1, 2, 3, 4], max_parallel=2))
    (mapper,) = bench.take_all()
    bench.end(mapper, Spread([1, 2, 3, 4]))
    first = bench.take_all()
    assert [claimed.map_index for claimed in first] == [0, 1]
    bench.do(steering.pause_run, run)
    for claimed in first:
        bench.end(claimed)
    bench.do(steering.resume_run, run, 60.0)
    assert [claimed.map_index for claimed in bench.take_all()] == [2, 3]


def test_a_run_whose_time_was_up_before_it_began_starts_for_its_failure_and_takes_its_lane(bench: Bench) -> None:
    late = [StepSpec("warn", "noop")]
    run = bench.start(StepSpec("a", "noop"), on_failure=late, lane="one", concurrency=1)
    bench.do(steering.request_cancel, run, 60.0, Failure("run_timed_out", "Too late."))
    (warn,) = bench.take_all()
    assert warn.key == "warn"
    stands = bench.db.read_now(storage.run_alone, run.project_id, run.id)
    assert stands.started_at == T0
    assert bench.events(run).count("run.started") == 1
    bench.start(StepSpec("a", "noop"), lane="one", concurrency=1)
    assert bench.take_all() == [], "the lane takes one run, and that one is at work"
    bench.end(warn)
    assert [claimed.key for claimed in bench.take_all()] == ["a"]


def test_an_engine_that_lost_its_place_in_a_lane_takes_no_further_step_of_it(bench: Bench) -> None:
    bench.start(StepSpec("each", "noop", map=[1, 2, 3], max_parallel=1))
    (mapper,) = bench.take_all()
    bench.end(mapper, Spread([1, 2, 3]))
    (frozen,) = bench.take_all()
    # Its lease runs out, nobody has noticed, and the second item comes by its own message.
    wanted = select(STEP.c.id).where(STEP.c.map_index == 1)
    second = bench.db.read_now(lambda session: session.execute(wanted).scalar_one())
    later = T0 + timedelta(seconds=40)
    assert bench.db.write_now(queries.claim, second, 1, "two", later, TERMS) is not None
    ended = bench.db.write_now(finish, frozen, DONE, later, TERMS, owner="one", go_on=True)
    assert (ended.fenced, ended.next) == (False, None)


def test_a_cancel_stops_what_is_idle_and_lets_a_map_end_with_its_last_running_item(bench: Bench) -> None:
    run = bench.start(StepSpec("each", "noop", map=[1, 2, 3], max_parallel=1), StepSpec("b", "noop", needs=["each"]))
    (mapper,) = bench.take_all()
    bench.end(mapper, Spread([1, 2, 3]))
    (item,) = bench.take_all()
    assert bench.do(steering.request_cancel, run, 60.0).status == "running"
    left = select(STEP.c.map_index, STEP.c.status).where(STEP.c.key == "each").order_by(STEP.c.map_index)
    rows = bench.db.read_now(lambda session: [tuple(row) for row in session.execute(left)])
    assert rows == [(-1, "waiting"), (0, "running"), (1, "cancelled"), (2, "cancelled")]
    bench.end(item)
    assert bench.db.read_now(storage.run_status, run.project_id, run.id) == "cancelled"


def test_a_retry_tells_from_where(bench: Bench) -> None:
    run = bench.start(StepSpec("a", "noop"), StepSpec("b", "noop", needs=["a"]))
    for _ in range(2):
        for claimed in bench.take_all():
            bench.end(claimed)
    bench.do(steering.retry_run, run, 60.0, "b")
    last = bench.db.read_now(storage.events_after, run.id, 0, 1000)[-1]
    assert (last.type, last.data) == ("run.retried", {"steps": ["b"], "from": "b"})
