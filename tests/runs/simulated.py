"""Many engines on one database in simulated time, with everything going wrong, by seed.

The real queries are driven by a single thread that decides by dice who acts next: engines claim, die, freeze and
thaw, the broker loses and doubles messages, people cancel, pause, retry and signal, clocks leap. Runs have
maps, lanes, child runs and steps for a failure. In the end every run must have ended, no step may have ended
twice, and what came out must be what the graph says.

    python -m tests.runs.simulated 10000        # so many schedules, on all cores; prints how long it took
"""

from __future__ import annotations

import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select

from nexus.access.types import Principal
from nexus.runs import engine_storage as queries
from nexus.runs import steering, storage
from nexus.runs.completion import finish, give_back
from nexus.runs.engine_storage import Claimed, Message, Terms
from nexus.runs.errors import RunFinished, RunNotFinished, RunNotWaiting
from nexus.runs.preparation import Preparation
from nexus.runs.tables import EVENT, OUTBOX, RUN, STEP, OutboxRow, StepEventRow, StepRow
from nexus.runs.transitions import Failed, Outcome, Skipped, Spread, Succeeded, Waits
from nexus.runs.types import Failure, Parent, PlainRenderer, RetryPolicy, Run, RunSpec, StepSpec, StepStatus
from nexus.storage.db import Base, Database
from nexus.storage.tables import EventRow

WHO = Principal("key", "key_a", "prj_a")
END_TYPES = ("step.succeeded", "step.failed", "step.skipped", "step.cancelled")
BROKEN = (StepStatus.FAILED, StepStatus.CANCELLED)


class World:
    """A database, a broker that may not be trusted, and engines that hold what they have claimed."""

    def __init__(self, database: Database, seed: int, *, leaps: bool = True) -> None:
        self.db = database
        self.dice = random.Random(seed)
        self.now = datetime(2026, 11, 23, tzinfo=UTC)
        self.broker: list[Message] = []
        self.held: dict[str, list[tuple[Claimed, Outcome | None]]] = {f"engine{n}": [] for n in range(3)}
        self.runs: list[Run] = []
        self.calm = False
        self.leaps = leaps
        self.happened: Counter[str] = Counter()
        self.terms = Terms(30, 60, 1000, 1000, self.dice.random)
        self.preparation = Preparation(database, PlainRenderer())

    # what is asked for

    def step(self, key: str, needs: list[str], depth: int = 0) -> StepSpec:
        dice = self.dice
        kind = dice.choices(["work", "map", "nest"], [10, 3, 2 if depth == 0 else 0])[0]
        lane = dice.choice([None, None, None, "narrow", "wide"])
        limited = kind == "map" and lane is None and dice.random() < 0.5
        return StepSpec(
            key,
            "nest" if kind == "nest" else "work",
            needs=needs,
            retries=RetryPolicy(max=dice.randint(0, 3), base=5),
            queue=dice.choice(["default", "default", "llm"]),
            map=list(range(dice.randint(0, 4))) if kind == "map" else None,
            max_parallel=dice.randint(1, 2) if limited else None,
            go_on=dice.random() < 0.15,
            lane=lane,
            concurrency=None if lane is None else 1 if lane == "narrow" else 2,
        )

    def spec(self, depth: int = 0) -> RunSpec:
        dice = self.dice
        keys = [f"s{n}" for n in range(dice.randint(1, 5 if depth == 0 else 2))]
        steps = [self.step(key, dice.sample(keys[:n], dice.randint(0, min(n, 3))), depth) for n, key in enumerate(keys)]
        late = [StepSpec("warn", "work"), StepSpec("more", "work", needs=["warn"])] if dice.random() < 0.4 else []
        lane = "runs" if depth == 0 and dice.random() < 0.5 else None
        return RunSpec(
            "test",
            "x",
            steps,
            on_failure=late,
            deadline=dice.choice([None, None, None, 400.0]),
            priority=dice.choice([0, 0, 5]),
            lane=lane,
            concurrency=None if lane is None else 1,
        )

    def start(self) -> None:
        self.runs.append(self.db.write_now(storage.add_run, self.spec(), WHO, self.now, 60.0)[0])

    # what engines and the broker do

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
            self.held[owner].append((claimed, None))

    def outcome(self, claimed: Claimed) -> Outcome:
        if claimed.is_map:
            if (claimed.state or {}).get("items"):
                return self.preparation.joined(claimed)
            return Spread(claimed.options["map"])
        if claimed.uses == "nest":
            return self.nested(claimed)
        busy = Failed(Failure("busy", "Busy."), retryable=True)
        wrong = Failed(Failure("wrong", "Wrong."))
        away = Waits(10, None, reason="away")
        choices: list[Outcome] = [
            Succeeded({"x": 1}), Skipped(), busy, wrong, Waits(20, {"s": 1}), Waits(None, None), away,
        ]  # fmt: skip
        return self.dice.choices(choices, [1, 0, 0, 0, 0, 0, 0] if self.calm else [20, 2, 4, 1, 2, 1, 1])[0]

    def nested(self, claimed: Claimed) -> Outcome:
        key = f"{claimed.run_id}.{claimed.key}.{claimed.map_index}.{claimed.run.round}"
        named = select(RUN.c.id).where(RUN.c.idempotency_key == key)
        child = self.db.read_now(lambda session: session.execute(named).scalar_one_or_none())
        if child is None:
            spec = self.spec(depth=1)
            parent = Parent(claimed.run_id, claimed.step_id, 1)
            spec = RunSpec("test", "child", spec.steps, idempotency_key=key, parent=parent, on_failure=spec.on_failure)
            made = self.db.write_now(storage.add_run, spec, WHO, self.now, 60.0)[0]
            self.runs.append(made)
            self.happened["nested"] += 1
            return Waits(None, None)
        run = self.db.read_now(storage.run_alone, WHO.project_id, child)
        if not run.status.final:
            return Waits(None, None)
        return Succeeded({"x": 1}) if run.status == "succeeded" else Failed(Failure("child_failed", "It failed."))

    def end(self) -> None:
        owner = self.dice.choice(list(self.held))
        if not self.held[owner]:
            return
        claimed, outcome = self.held[owner].pop(self.dice.randrange(len(self.held[owner])))
        if outcome is None:
            outcome = self.outcome(claimed)
            if self.dice.random() < 0.3:
                # Decided now, written later: what happens in between must not be lost.
                self.held[owner].append((claimed, outcome))
                return
        go_on = self.dice.random() < 0.5
        ended = self.db.write_now(finish, claimed, outcome, self.now, self.terms, owner=owner, go_on=go_on)
        self.happened["fenced" if ended.fenced else "ended"] += 1
        if ended.next:
            self.held[owner].append((ended.next, None))

    def beat(self) -> None:
        for owner, claims in self.held.items():
            if self.calm or self.dice.random() < 0.6:
                ids = [claimed.step_id for claimed, _ in claims]
                kept = self.db.write_now(queries.renew, owner, ids, self.now, 30.0)
                self.held[owner] = [pair for pair in claims if kept.get(pair[0].step_id) == pair[0].epoch]

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
            self.cancel(project_id, run_id, Failure("late", "Late."))
        for project_id, run_id in self.db.read_now(steering.orphans, 20):
            self.cancel(project_id, run_id)
            self.happened["orphans"] += 1

    # what people do

    def cancel(self, project_id: str, run_id: str, error: Failure | None = None) -> None:
        try:
            self.db.write_now(steering.request_cancel, project_id, run_id, self.now, 60.0, error)
            self.happened["cancelled"] += 1
        except RunFinished:
            pass

    def meddle(self) -> None:
        run = self.dice.choice(self.runs)
        what = self.dice.choice(["cancel", "retry", "from", "wake", "wake", "pause", "resume", "resume"])
        named = (run.project_id, run.id, self.now)
        try:
            if what == "cancel":
                self.cancel(run.project_id, run.id)
            elif what == "retry":
                self.db.write_now(steering.retry_run, *named, 60.0)
            elif what == "from":
                self.db.write_now(steering.retry_run, *named, 60.0, self.dice.choice(run.steps).key)
            elif what == "pause":
                self.db.write_now(steering.pause_run, *named)
            elif what == "resume":
                self.db.write_now(steering.resume_run, *named, 60.0)
            else:
                self.db.write_now(steering.wake_waiting, *named, 60.0)
            self.happened[what] += 1
        except (RunNotFinished, RunNotWaiting, RunFinished):
            pass

    # time

    def act(self) -> None:
        self.now += timedelta(seconds=self.dice.choice([0, 0, 0.1, 1, 5]))
        actions = [self.publish, self.deliver, self.end, self.beat, self.reap, self.die, self.meddle]
        weights = [6, 8, 8, 3, 2, 0, 0] if self.calm else [6, 8, 8, 3, 2, 1, 1]
        self.dice.choices(actions, weights)[0]()
        if not self.calm and self.leaps and self.dice.random() < 0.01:
            self.now += timedelta(seconds=self.dice.choice([-600, 60, 3600]))
        if not self.calm and self.dice.random() < 0.01:
            self.broker.clear()
        if not self.leaps:
            self.check_lanes()

    def check_lanes(self) -> None:
        """No lane holds more steps with live leases than it may."""
        busy = (
            select(STEP.c.lane, func.count(), func.max(STEP.c.lane_limit))
            .where(STEP.c.lane.is_not(None), STEP.c.status == "running", STEP.c.lease_until > self.now)
            .group_by(STEP.c.lane)
        )
        for lane, count, limit in self.db.read_now(lambda session: session.execute(busy).all()):
            assert count <= limit, f"{count} steps in the lane {lane}, which takes {limit}"
        # Whoever is held must have somebody to call them: one who runs, or one who was called and is on the way.
        may = (STEP.c.run_id == RUN.c.id, ~RUN.c.paused, ~RUN.c.cancel_requested, STEP.c.status == "ready")
        held = select(STEP.c.lane, RUN.c.lane, RUN.c.started_at, STEP.c.held).where(*may)
        running = select(STEP.c.lane).where(STEP.c.status == "running")
        going = select(RUN.c.lane).where(RUN.c.started_at.is_not(None), RUN.c.finished_at.is_(None))
        callers = {lane for (lane,) in self.db.read_now(lambda session: session.execute(running).all())}
        runs = {lane for (lane,) in self.db.read_now(lambda session: session.execute(going).all())}
        ready = self.db.read_now(lambda session: session.execute(held).all())
        callers |= {lane for lane, _, _, is_held in ready if not is_held}
        runs |= {lane for _, lane, started_at, is_held in ready if started_at is None and not is_held}
        for lane, run_lane, started_at, is_held in ready:
            if is_held and (started_at is not None or run_lane is None):
                assert lane in callers, f"nobody will ever call the next in {lane}"
            elif is_held:
                assert run_lane in runs or lane in callers, f"nobody will ever call the next run in {run_lane}"

    def settle(self) -> None:
        """Play on without faults until everything has ended."""
        self.calm = True
        for _ in range(250):
            stands = [self.db.read_now(storage.run_alone, run.project_id, run.id) for run in self.runs]
            if all(run.status.final for run in stands):
                return
            for run in stands:
                if run.paused:
                    self.db.write_now(steering.resume_run, run.project_id, run.id, self.now, 60.0)
                self.wake_parked(run)
            for _ in range(20):
                self.act()
        raise AssertionError(f"not all runs ended: {[(run.id, run.status) for run in stands if not run.status.final]}")

    def wake_parked(self, run: Run) -> None:
        """Signal the steps that wait for somebody, but not those that wait for a child run: its end must do."""
        query = select(StepRow.key, StepRow.uses).where(
            StepRow.run_id == run.id, StepRow.status == "waiting", StepRow.run_at.is_(None), StepRow.items_left == 0
        )
        for key, uses in self.db.read_now(lambda session: session.execute(query).all()):
            if uses != "nest":
                self.db.write_now(steering.wake_waiting, run.project_id, run.id, self.now, 60.0, key=key)


def play(database: Database, seed: int, *, runs: int, acts: int, leaps: bool = True) -> World:
    """Play one schedule to its end and check it; leave nothing behind."""
    world = World(database, seed, leaps=leaps)
    try:
        for _ in range(runs):
            world.start()
        for _ in range(acts):
            world.act()
        world.settle()
        for run in world.runs:
            check(world, run)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error
    with database.engine.begin() as connection:
        for table in (OUTBOX, EVENT, STEP, RUN, EventRow.__table__):
            connection.execute(delete(table))  # type: ignore[arg-type]
    return world


def check(world: World, run: Run) -> None:
    """Everything has ended, once, and as it should."""
    stands = world.db.read_now(storage.run_with_steps, run.project_id, run.id)
    query = select(StepRow).where(StepRow.run_id == run.id).order_by(StepRow.map_index)
    rows = world.db.read_now(lambda session: session.execute(query).scalars().all())
    assert all(StepStatus(row.status).final for row in rows), stands
    assert stands.progress.done == stands.progress.total
    events = world.db.read_now(storage.events_after, run.id, 0, 100_000)
    retried_at = [event.id for event in events if event.type == "run.retried"]
    ends: Counter[tuple[Any, ...]] = Counter()
    for event in events:
        if event.type in END_TYPES:
            ends[event.step_key, event.map_index, sum(event.id > since for since in retried_at)] += 1
    assert not ends or max(ends.values()) == 1, f"a step ended twice: {ends}"
    _check_outputs(stands, rows)
    finished = select(func.count()).where(StepEventRow.run_id == run.id, StepEventRow.type == "run.finished")
    told = (
        select(func.count()).select_from(EventRow).where(EventRow.subject == run.name, EventRow.type == "run.finished")
    )
    with world.db.engine.connect() as connection:
        assert connection.execute(finished).scalar_one() == 1 + len(retried_at)
        assert connection.execute(told).scalar_one() >= 1
        assert connection.execute(select(func.count()).select_from(OutboxRow)).scalar_one() >= 0


def _check_outputs(run: Run, rows: Any) -> None:
    by_key = {step.key: step for step in run.steps}
    tolerant = {row.key for row in rows if (row.options or {}).get("go_on")}
    for row in rows:
        if row.status != StepStatus.SUCCEEDED:
            continue
        if row.map_index == -1 and (row.options or {}).get("map") is not None:
            items = [item for item in rows if item.key == row.key and item.map_index >= 0]
            assert row.output == [item.output for item in items]
            assert [item.map_index for item in items] == list(range(len(row.options["map"])))
        else:
            assert row.output == {"x": 1}
        for need in row.needs:
            assert by_key[need].status.final
            assert by_key[need].status not in BROKEN or need in tolerant, f"{row.key} ran in spite of {need}"
    broken = [step for step in run.steps if step.status in BROKEN and step.key not in tolerant and step.role is None]
    assert (run.status == "succeeded") == (not broken and run.error is None and run.status != "cancelled")


def database_in(folder: Path) -> Database:
    """An empty database for schedules."""
    database = Database(f"sqlite:///{folder / 'simulated.db'}")
    Base.metadata.create_all(database.engine)
    return database


def _play_many(seeds: list[int]) -> Counter[str]:
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    database = database_in(folder)
    happened: Counter[str] = Counter()
    try:
        for seed in seeds:
            happened += play(database, seed, runs=1, acts=12, leaps=seed % 2 == 0).happened
    finally:
        database.close()
        shutil.rmtree(folder)
    return happened


def main(schedules: int, first: int = 0) -> None:
    """Play so many schedules on all cores."""
    began = time.monotonic()
    cores = multiprocessing.cpu_count()
    shares = [list(range(first + core, first + schedules, cores)) for core in range(cores)]
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        happened = sum(pool.map(_play_many, shares), Counter())
    print(f"{schedules} schedules in {time.monotonic() - began:.0f} s: {dict(happened)}")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
