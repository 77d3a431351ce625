"""Many engines on one database in simulated time, with everything going wrong, by seed.

The real queries are driven by a single thread that decides by dice who acts next: engines claim, die,
freeze and thaw, the broker loses and doubles messages, people cancel, retry and signal, clocks leap. In the end
every run must have ended, no step may have ended twice, and what came out must be what the graph says.
"""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

import nexus.runs.tables  # noqa: F401
from nexus.access.types import Principal
from nexus.runs import engine_storage as queries
from nexus.runs import steering, storage
from nexus.runs.completion import finish, give_back
from nexus.runs.engine_storage import Claimed, Message, Terms
from nexus.runs.errors import RunFinished, RunNotFinished, RunNotWaiting
from nexus.runs.tables import OutboxRow, StepEventRow
from nexus.runs.transitions import Failed, Outcome, Skipped, Succeeded, Waits
from nexus.runs.types import Failure, RetryPolicy, Run, RunSpec, StepSpec, StepStatus
from nexus.storage.db import Base, Database

WHO = Principal("key", "key_a", "prj_a")
END_TYPES = ("step.succeeded", "step.failed", "step.skipped", "step.cancelled")


class World:
    """A database, a broker that may not be trusted, and engines that hold what they have claimed."""

    def __init__(self, database: Database, seed: int) -> None:
        self.db = database
        self.dice = random.Random(seed)
        self.now = datetime(2026, 11, 23, tzinfo=UTC)
        self.broker: list[Message] = []
        self.held: dict[str, list[Claimed]] = {f"engine{n}": [] for n in range(3)}
        self.runs: list[Run] = []
        self.calm = False
        self.happened: Counter[str] = Counter()
        self.terms = Terms(30, 60, 1000, 1000, self.dice.random)

    def start(self) -> None:
        size = self.dice.randint(1, 7)
        keys = [f"s{n}" for n in range(size)]
        steps = [
            StepSpec(
                key,
                "work",
                needs=self.dice.sample(keys[:n], self.dice.randint(0, min(n, 3))),
                retries=RetryPolicy(max=self.dice.randint(0, 3), base=5),
                queue=self.dice.choice(["default", "default", "llm"]),
            )
            for n, key in enumerate(keys)
        ]
        deadline = self.dice.choice([None, None, None, 400.0])
        spec = RunSpec("test", "x", steps, deadline=deadline)
        self.runs.append(self.db.write_now(storage.add_run, spec, WHO, self.now, 60.0)[0])

    def publish(self) -> None:
        found = self.db.read_now(queries.due_messages, self.now, 5)
        for message in found:
            for _ in range(1 if self.calm else self.dice.choices([0, 1, 2], [1, 10, 2])[0]):
                self.broker.append(message)
        if self.calm or self.dice.random() > 0.1:
            self.db.write_now(queries.delete_messages, [message.outbox_id for message in found])

    def deliver(self) -> None:
        if not self.broker:
            return
        message = self.broker.pop(self.dice.randrange(len(self.broker)))
        owner = self.dice.choice(list(self.held))
        claimed = self.db.write_now(queries.claim, message.step_id, message.epoch, owner, self.now, self.terms)
        self.happened["claimed" if claimed else "dropped"] += 1
        if claimed:
            self.held[owner].append(claimed)

    def outcome(self) -> Outcome:
        busy = Failed(Failure("busy", "Busy."), retryable=True)
        wrong = Failed(Failure("wrong", "Wrong."))
        choices: list[Outcome] = [Succeeded({"x": 1}), Skipped(), busy, wrong, Waits(20, {"s": 1}), Waits(None, None)]
        return self.dice.choices(choices, [1, 0, 0, 0, 0, 0] if self.calm else [20, 2, 4, 1, 2, 1])[0]

    def end(self) -> None:
        owner = self.dice.choice(list(self.held))
        if not self.held[owner]:
            return
        claimed = self.held[owner].pop(self.dice.randrange(len(self.held[owner])))
        go_on = self.dice.random() < 0.5
        ended = self.db.write_now(finish, claimed, self.outcome(), self.now, self.terms, owner=owner, go_on=go_on)
        self.happened["fenced" if ended.fenced else "ended"] += 1
        if ended.next:
            self.held[owner].append(ended.next)

    def beat(self) -> None:
        for owner, claims in self.held.items():
            if self.calm or self.dice.random() < 0.6:
                ids = [claimed.step_id for claimed in claims]
                kept = self.db.write_now(queries.renew, owner, ids, self.now, 30.0)
                self.held[owner] = [claimed for claimed in claims if kept.get(claimed.step_id) == claimed.epoch]

    def die(self) -> None:
        owner = self.dice.choice(list(self.held))
        self.happened["killed steps"] += len(self.held[owner])
        self.held[owner] = []

    def reap(self) -> None:
        self.db.write_now(queries.mend_leases, self.now, 30.0)
        for run_id, step_id, epoch in self.db.read_now(queries.lost_steps, self.now, 20):
            self.db.write_now(give_back, run_id, step_id, epoch, self.now, self.terms)
            self.happened["given back"] += 1
        self.db.write_now(queries.republish, self.now, 60.0, 20)
        for project_id, run_id in self.db.read_now(queries.overdue_runs, self.now, 20):
            self.cancel(project_id, run_id)

    def cancel(self, project_id: str, run_id: str) -> None:
        try:
            self.db.write_now(steering.request_cancel, project_id, run_id, self.now, 60.0)
            self.happened["cancelled"] += 1
        except RunFinished:
            pass

    def meddle(self) -> None:
        run = self.dice.choice(self.runs)
        what = self.dice.choice(["cancel", "retry", "wake", "wake"])
        try:
            if what == "cancel":
                self.cancel(run.project_id, run.id)
            elif what == "retry":
                self.db.write_now(steering.retry_run, run.project_id, run.id, self.now, 60.0)
                self.happened["retried"] += 1
            else:
                self.db.write_now(steering.wake_waiting, run.project_id, run.id, self.now, 60.0)
        except (RunNotFinished, RunNotWaiting):
            pass

    def act(self) -> None:
        self.now += timedelta(seconds=self.dice.choice([0, 0, 0.1, 1, 5]))
        actions = [self.publish, self.deliver, self.end, self.beat, self.reap, self.die, self.meddle]
        weights = [6, 8, 8, 3, 2, 0, 0] if self.calm else [6, 8, 8, 3, 2, 1, 1]
        self.dice.choices(actions, weights)[0]()
        if not self.calm and self.dice.random() < 0.01:
            self.now += timedelta(seconds=self.dice.choice([-600, 60, 3600]))
        if not self.calm and self.dice.random() < 0.01:
            self.broker.clear()

    def settle(self) -> None:
        """Play on without faults until everything has ended."""
        self.calm = True
        for _ in range(6000):
            stands = [self.db.read_now(storage.run_alone, run.project_id, run.id) for run in self.runs]
            if all(run.status.final for run in stands):
                return
            for run in stands:
                if run.status == "waiting":
                    self.db.write_now(steering.wake_waiting, run.project_id, run.id, self.now, 60.0)
            for _ in range(20):
                self.act()
        raise AssertionError(f"not all runs ended: {[run.status for run in stands]}")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_every_run_ends_and_no_step_ends_twice(tmp_path: Path, seed: int) -> None:
    play(tmp_path, seed, runs=6, acts=250)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1000, 1100))
def test_whatever_happens_for_long(tmp_path: Path, seed: int) -> None:
    play(tmp_path, seed, runs=10, acts=1500)


def play(folder: Path, seed: int, *, runs: int, acts: int) -> None:
    database = Database(f"sqlite:///{folder / 'simulated.db'}")
    Base.metadata.create_all(database.engine)
    world = World(database, seed)
    for _ in range(runs):
        world.start()
    for _ in range(acts):
        world.act()
    world.settle()
    for run in world.runs:
        check(world, run)
    assert world.happened["ended"] > 0
    database.close()


def check(world: World, run: Run) -> None:
    stands = world.db.read_now(storage.run_with_steps, run.project_id, run.id)
    assert all(step.status.final for step in stands.steps)
    assert stands.progress.done == stands.progress.total
    events = world.db.read_now(storage.events_after, run.id, 0, 100_000)
    retried_at = [event.id for event in events if event.type == "run.retried"]
    ends: Counter[tuple[str | None, int]] = Counter()
    for event in events:
        if event.type in END_TYPES:
            ends[event.step_key, sum(event.id > since for since in retried_at)] += 1
    assert max(ends.values()) == 1, f"a step ended twice: {ends}"
    by_key = {step.key: step for step in stands.steps}
    for step in stands.steps:
        if step.status is StepStatus.SUCCEEDED:
            assert step.output == {"x": 1}
            assert all(by_key[need].status.final for need in step.needs)
            assert not any(by_key[need].status in (StepStatus.FAILED, StepStatus.CANCELLED) for need in step.needs)
    with world.db.engine.connect() as connection:
        finished = select(func.count()).where(StepEventRow.run_id == run.id, StepEventRow.type == "run.finished")
        assert connection.execute(finished).scalar_one() == 1 + len(retried_at)
        assert connection.execute(select(func.count()).select_from(OutboxRow)).scalar_one() >= 0
