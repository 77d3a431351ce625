"""Many engines on one database in simulated time, with everything going wrong, by seed.

The real queries are driven by a single thread that decides by dice who acts next: engines claim, die, freeze and
thaw, lose the answers of the database and say things twice, the broker loses, doubles and mixes up messages, people
cancel, pause, retry and signal, clocks leap. Runs have maps, lanes, child runs and steps for a failure. Only who has
something to do may act, and when nobody has, time goes on to the next thing that is due; so a schedule has no idle
turns, and a step that nobody will ever call is seen at once. In the end every run must have ended, its history
must be without a fault (`history`), and what came out must be what the graph says.

    python -m tests.runs.simulated 10000        # so many schedules, on all cores; prints how long it took
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import select
from tests.runs.history import Asked, Place, check_history

from nexus.access.types import Principal
from nexus.runs import engine_storage as queries
from nexus.runs import steering, storage
from nexus.runs.completion import finish, give_back
from nexus.runs.engine_storage import Claimed, Message, Terms
from nexus.runs.errors import RunFinished, RunNotFinished, RunNotWaiting
from nexus.runs.preparation import Preparation
from nexus.runs.tables import EVENT, OUTBOX, RUN, STEP
from nexus.runs.transitions import Failed, Outcome, Skipped, Spread, Succeeded, Waits
from nexus.runs.types import Failure, Parent, PlainRenderer, RetryPolicy, Run, RunEvent, RunSpec, StepSpec
from nexus.storage.db import Base, Database
from nexus.storage.tables import EventRow

WHO = Principal("key", "key_a", "prj_a")
FAULTS = (
    "message lost", "message doubled", "message published again", "broker emptied", "engine killed", "engine frozen",
    "claim's answer lost", "end written twice", "end rolled back", "clock leapt", "attempt failed",
    "cancel", "pause", "retry", "from",
)  # fmt: skip
"""What counts as a fault among all that has happened."""

# When the next thing is due: a message, a lease that ends, a step that nobody took, a deadline; and orphans.
_AHEAD = """
SELECT (SELECT min(due_at) FROM outbox),
       (SELECT min(lease_until) FROM step WHERE status = 'running'),
       (SELECT min(republish_at) FROM step WHERE status IN ('ready', 'waiting') AND run_at IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM outbox WHERE step_id = step.id AND epoch = step.epoch)),
       (SELECT min(deadline_at) FROM run WHERE finished_at IS NULL AND NOT cancel_requested),
       EXISTS (SELECT 1 FROM run JOIN run AS parent ON parent.id = run.parent_run_id WHERE run.finished_at IS NULL
               AND NOT run.cancel_requested AND (parent.finished_at IS NOT NULL OR parent.cancel_requested))
"""
_CROWDED = """
SELECT lane, count(*), max(lane_limit) FROM step
WHERE lane IS NOT NULL AND status = 'running' AND lease_until > ? GROUP BY lane HAVING count(*) > max(lane_limit)
"""
_HELD = """
SELECT step.id, step.epoch, step.lane, run.lane, run.started_at,
       step.held AND NOT EXISTS (SELECT 1 FROM outbox WHERE step_id = step.id AND epoch = step.epoch)
FROM step JOIN run ON run.id = step.run_id
WHERE step.status = 'ready' AND NOT run.paused AND NOT run.cancel_requested
"""


_PARKED = """
SELECT DISTINCT key FROM step
WHERE run_id = ? AND status = 'waiting' AND run_at IS NULL AND items_left = 0 AND uses != 'nest'
"""
_STANDS = """
SELECT paused, finished_at, EXISTS (SELECT 1 FROM step WHERE run_id = run.id AND status = 'waiting' AND items_left = 0)
FROM run WHERE id = ?
"""


class RolledBack(Exception):
    """The connection broke before the commit."""


class Peephole:
    """Looks into the database past the code under test, at a hundredth of the cost of a transaction."""

    def __init__(self, database: Database) -> None:
        self.db = sqlite3.connect(str(database.url.database), isolation_level=None)
        self.ask = self.db.execute

    def empty(self) -> None:
        """Forget everything: the next schedule begins with an empty database."""
        self.ask("BEGIN IMMEDIATE")
        for table in (OUTBOX, EVENT, STEP, RUN, EventRow.__table__):
            self.ask(f"DELETE FROM {table.name}")  # type: ignore[attr-defined]
        self.ask("COMMIT")

    def close(self) -> None:
        """Empty the database and go."""
        self.empty()
        self.db.close()


def stored(moment: datetime) -> str:
    """Return a time as SQLite has it."""
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")


def read(moment: str | None) -> datetime | None:
    """Return a time that SQLite had."""
    return None if moment is None else datetime.fromisoformat(moment).replace(tzinfo=UTC)


class World:
    """A database, a broker that may not be trusted, and engines that hold what they have claimed."""

    def __init__(self, database: Database, peephole: Peephole, seed: int, *, leaps: bool = True, most: int = 5) -> None:
        self.db = database
        self.most = most
        self.peephole = peephole
        self.dice = random.Random(seed)
        self.now = datetime(2026, 11, 23, tzinfo=UTC)
        self.broker: list[Message] = []
        self.held: dict[str, list[tuple[Claimed, Outcome | None]]] = {f"engine{n}": [] for n in range(3)}
        self.frozen: dict[str, list[tuple[Claimed, Outcome | None]]] = {}
        self.runs: list[Run] = []
        self.specs: dict[str, RunSpec] = {}
        self.asked: defaultdict[str, list[Asked]] = defaultdict(list)
        self.calm = False
        self.leaps = leaps
        self.honest = True
        self.lost: set[tuple[str, int]] = set()
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
        keys = [f"s{n}" for n in range(dice.randint(1, self.most if depth == 0 else 2))]
        steps = [self.step(key, dice.sample(keys[:n], dice.randint(0, min(n, 3))), depth) for n, key in enumerate(keys)]
        late = [StepSpec("warn", "work"), StepSpec("more", "work", needs=["warn"])] if dice.random() < 0.4 else []
        lane = "runs" if depth == 0 and (self.most == 2 or dice.random() < 0.5) else None
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
        self.add(self.spec())

    def add(self, spec: RunSpec) -> None:
        run = self.db.write_now(storage.add_run, spec, WHO, self.now, 60.0)[0]
        self.runs.append(run)
        self.specs[run.id] = spec

    # what engines and the broker do

    def fault(self, what: str, chance: float = 1.0) -> bool:
        """Tell whether this fault is to happen now, and count it."""
        happens = not self.calm and self.dice.random() < chance
        self.happened[what] += happens
        return happens

    def publish(self) -> None:
        found = self.db.read_now(queries.due_messages, self.now, 5)
        for message in found:
            if self.fault("message lost", 0.08):
                self.lose(message)
                continue
            self.broker += [message] * (2 if self.fault("message doubled", 0.15) else 1)
        if not self.fault("message published again", 0.1):
            self.db.write_now(queries.delete_messages, [message.outbox_id for message in found])

    def deliver(self) -> None:
        message = self.broker.pop(self.dice.randrange(len(self.broker)))
        owner = self.dice.choice([owner for owner in self.held if owner not in self.frozen])
        claimed = self.db.write_now(queries.claim, message.step_id, message.epoch, owner, self.now, self.terms)
        self.happened["claimed" if claimed else "dropped"] += 1
        if claimed and not self.fault("claim's answer lost", 0.02):
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
            self.add(spec)
            self.happened["nested"] += 1
            return Waits(None, None)
        run = self.db.read_now(storage.run_alone, WHO.project_id, child)
        if not run.status.final:
            return Waits(None, None)
        return Succeeded({"x": 1}) if run.status == "succeeded" else Failed(Failure("child_failed", "It failed."))

    def end(self) -> None:
        owner = self.dice.choice([owner for owner, claims in self.held.items() if claims])
        claimed, outcome = self.held[owner].pop(self.dice.randrange(len(self.held[owner])))
        if outcome is None:
            outcome = self.outcome(claimed)
            self.happened["attempt failed"] += isinstance(outcome, Failed)
            if not self.calm and self.dice.random() < 0.3:
                # Decided now, written later: what happens in between must not be lost.
                self.held[owner].append((claimed, outcome))
                return
        go_on = self.dice.random() < 0.5
        if self.fault("end rolled back", 0.02):
            self.roll_back(claimed, outcome, owner, go_on=go_on)
        ended = self.db.write_now(finish, claimed, outcome, self.now, self.terms, owner=owner, go_on=go_on)
        self.happened["fenced" if ended.fenced else "ended"] += 1
        if self.fault("end written twice", 0.04):
            again = self.db.write_now(finish, claimed, outcome, self.now, self.terms, owner=owner, go_on=go_on)
            assert again.fenced, f"the end of {claimed.key} was taken twice"
        if ended.next:
            self.held[owner].append((ended.next, None))

    def roll_back(self, claimed: Claimed, outcome: Outcome, owner: str, *, go_on: bool) -> None:
        def fail(session: Any) -> None:
            finish(session, claimed, outcome, self.now, self.terms, owner=owner, go_on=go_on)
            raise RolledBack

        with contextlib.suppress(RolledBack):
            self.db.write_now(fail)

    def beat(self) -> None:
        for owner, claims in self.held.items():
            if claims and (self.calm or self.dice.random() < 0.6):
                self.renew(owner)

    def renew(self, owner: str) -> None:
        ids = [claimed.step_id for claimed, _ in self.held[owner]]
        kept = self.db.write_now(queries.renew, owner, ids, self.now, 30.0)
        self.held[owner] = [pair for pair in self.held[owner] if kept.get(pair[0].step_id) == pair[0].epoch]

    def die(self) -> None:
        owner = self.dice.choice([owner for owner, claims in self.held.items() if claims])
        self.happened["engine killed"] += 1
        self.held[owner] = []

    def freeze(self) -> None:
        """Stop an engine in the middle of its steps, for longer than its leases; the others go on."""
        owner = self.dice.choice([owner for owner, claims in self.held.items() if claims])
        if len(self.frozen) == len(self.held) - 1:
            return
        self.frozen[owner], self.held[owner] = self.held[owner], []
        self.now += timedelta(seconds=20)
        for other in [other for other, claims in self.held.items() if claims]:
            self.renew(other)
        self.now += timedelta(seconds=20)
        self.happened["engine frozen"] += 1

    def thaw(self) -> None:
        owner = self.dice.choice(list(self.frozen))
        self.held[owner] += self.frozen.pop(owner)

    def lose(self, *messages: Message) -> None:
        self.honest = False
        self.lost |= {(message.step_id, message.epoch) for message in messages}

    def empty_broker(self) -> None:
        self.lose(*self.broker)
        self.broker.clear()
        self.happened["broker emptied"] += 1

    def leap(self) -> None:
        self.now += timedelta(seconds=self.dice.choice([-600, 60, 3600]))
        self.honest = False
        self.happened["clock leapt"] += 1

    def reap(self, due: str = "") -> None:
        """Do one of the things a reaper does: that which is due, or any."""
        due = due or self.dice.choice(["lease", "forgotten", "deadline", "orphan"])
        if due == "lease":
            if self.leaps:
                self.db.write_now(queries.mend_leases, self.now, 30.0)
            for run_id, step_id, epoch in self.db.read_now(queries.lost_steps, self.now, 20):
                self.db.write_now(give_back, run_id, step_id, epoch, self.now, self.terms)
                self.happened["given back"] += 1
        elif due == "forgotten":
            self.happened["republished"] += self.db.write_now(queries.republish, self.now, 60.0, 20)
        elif due == "deadline":
            for project_id, run_id in self.db.read_now(queries.overdue_runs, self.now, 20):
                self.cancel(project_id, run_id, Failure("late", "Late."))
        else:
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
        paused, finished, waits = self.peephole.ask(_STANDS, [run.id]).fetchone()
        fitting = {
            "cancel": 2 if finished is None else 0.3,
            "pause": 2 if finished is None else 0.1,
            "resume": 4 if paused else 0.4,
            "wake": 3 if waits else 0.4,
            "retry": 0.3 if finished is None else 2,
            "from": 0.3 if finished is None else 2,
        }
        what = self.dice.choices(list(fitting), list(fitting.values()))[0]
        self.ask(run, what, self.dice.choice(run.steps).key)

    def ask(self, run: Run, what: str, key: str = "") -> None:
        """Ask for something, and note what came of it."""
        named = (run.project_id, run.id, self.now)
        calls: dict[str, Callable[[], Any]] = {
            "cancel": lambda: self.db.write_now(steering.request_cancel, *named, 60.0),
            "retry": lambda: self.db.write_now(steering.retry_run, *named, 60.0),
            "from": lambda: self.db.write_now(steering.retry_run, *named, 60.0, key),
            "pause": lambda: self.db.write_now(steering.pause_run, *named),
            "resume": lambda: self.db.write_now(steering.resume_run, *named, 60.0),
            "wake": lambda: self.db.write_now(steering.wake_waiting, *named, 60.0),
        }
        after, done = self.last_event(run), True
        try:
            calls[what]()
        except (RunNotFinished, RunNotWaiting, RunFinished):
            done = False
        self.asked[run.id].append(Asked(what, done, after, self.last_event(run)))
        self.happened[what if done else f"{what} refused"] += 1

    def last_event(self, run: Run) -> int:
        return int(self.peephole.ask("SELECT max(id) FROM step_event WHERE run_id = ?", [run.id]).fetchone()[0])

    # time

    def act(self) -> bool:
        """Let somebody do something; False when there is nothing to do now."""
        self.now += timedelta(seconds=self.dice.choice([0, 0, 0.1, 1, 5]))
        due, lease, forgotten, deadline, orphans = self.peephole.ask(_AHEAD).fetchone()
        now, holding = stored(self.now), any(self.held.values())
        weights: dict[Callable[[], None], float] = {
            self.publish: 2.5 * (due is not None and due <= now),
            self.deliver: 8.0 * bool(self.broker),
            self.end: 8.0 * holding,
            self.beat: 1.5 * holding,
            self.thaw: 1.0 * bool(self.frozen),
        }
        overdue = {"lease": lease, "forgotten": forgotten, "deadline": deadline, "orphan": "" if orphans else None}
        for name, moment in overdue.items():
            if moment is not None and moment < now:
                weights[lambda name=name: self.reap(name)] = 3.0  # type: ignore[misc]
        idle = not any(weights.values())
        if not self.calm:
            faults = {self.die: holding, self.freeze: 0.5 * holding, self.empty_broker: 0.2 * bool(self.broker)}
            weights |= {**faults, self.meddle: 0.4, self.leap: 0.3 * self.leaps, self.reap: 0.15}
        if idle and (self.calm or self.dice.random() < 0.5):
            return False
        self.dice.choices(list(weights), list(weights.values()))[0]()
        if not self.leaps:
            self.check_lanes()
        return True

    def go_on(self) -> bool:
        """Let time pass until something is due; False if nothing ever will be."""
        due, lease, forgotten, deadline, _ = self.peephole.ask(_AHEAD).fetchone()
        moments = [moment for moment in (due, lease, forgotten, deadline) if moment is not None]
        if not moments:
            return False
        if self.calm and self.honest and self.leaps is False:
            # Nothing got lost, so whoever is ready has been called.
            assert min(moments) != forgotten, "a step is ready and nobody has called it"
        self.now = max(self.now, read(min(moments)) or self.now) + timedelta(milliseconds=1)
        return True

    def check_lanes(self) -> None:
        """No lane holds more steps with live leases than it may, and whoever is held will be called."""
        for lane, count, limit in self.peephole.ask(_CROWDED, [stored(self.now)]):
            raise AssertionError(f"{count} steps in the lane {lane}, which takes {limit}")
        # Whoever is held must have somebody to call them: one who runs, or one who was called and is on the way.
        called = {(message.step_id, message.epoch) for message in self.broker} | self.lost
        ready = [
            (lane, run_lane, started_at, is_held and (step_id, epoch) not in called)
            for step_id, epoch, lane, run_lane, started_at, is_held in self.peephole.ask(_HELD)
        ]
        if not any(is_held for _, _, _, is_held in ready):
            return
        callers = {lane for (lane,) in self.peephole.ask("SELECT lane FROM step WHERE status = 'running'")}
        going = "SELECT lane FROM run WHERE started_at IS NOT NULL AND finished_at IS NULL"
        runs = {lane for (lane,) in self.peephole.ask(going)}
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
        for _ in range(20_000):
            if self.act():
                continue
            left = {run_id for (run_id,) in self.peephole.ask("SELECT id FROM run WHERE finished_at IS NULL")}
            if not left:
                return
            answered = [self.answer(run) for run in self.runs if run.id in left]
            if not any(answered) and not self.go_on():
                raise AssertionError(f"nothing will ever happen, and these have not ended: {sorted(left)}")
        raise AssertionError("there is no end to it")

    def answer(self, run: Run) -> bool:
        """Resume a paused run, and signal those who wait for somebody, but not those that wait for a child run."""
        answered = False
        if self.peephole.ask("SELECT paused FROM run WHERE id = ?", [run.id]).fetchone()[0]:
            self.ask(run, "resume")
            answered = True
        for (key,) in self.peephole.ask(_PARKED, [run.id]).fetchall():
            self.db.write_now(steering.wake_waiting, run.project_id, run.id, self.now, 60.0, key=key)
            answered = True
        return answered


def play(database: Database, seed: int, *, runs: int, acts: int, most: int = 5) -> World:
    """Play one schedule of so many runs of at most so many steps to its end and check it; leave nothing behind.

    So many acts are troubled ones. With an even seed clocks leap; with an odd one every act ends with a look at
    the lanes, which make no promises to a clock that leaps.
    """
    peephole = Peephole(database)
    world = World(database, peephole, seed, leaps=seed % 2 == 0, most=most)
    try:
        for _ in range(runs):
            world.start()
        for _ in range(acts):
            if not world.act():
                world.go_on()
        world.settle()
        for run in world.runs:
            check(world, run)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error
    finally:
        peephole.close()
    return world


def play_short(database: Database, seed: int) -> World:
    """Play one of the schedules that are played by the thousand: of one run, or of two small ones in one lane."""
    two = seed % 4 == 3
    return play(database, seed, runs=1 + two, acts=14, most=2 if two else 4)


def check(world: World, run: Run) -> None:
    """Everything has ended, once, and as it should."""
    lines = world.peephole.ask(
        "SELECT id, step_key, type, at, data, map_index FROM step_event WHERE run_id = ? ORDER BY id", [run.id]
    )
    events = [
        RunEvent(id_, run.id, key, type_, read(at) or world.now, orjson.loads(data), index)
        for id_, key, type_, at, data, index in lines
    ]
    ends = check_history(world.specs[run.id], events, world.asked[run.id])
    check_rows(world, run, ends)
    query = "SELECT count(*) FROM event WHERE subject = ? AND type = 'run.finished'"
    assert world.peephole.ask(query, [run.name]).fetchone()[0] >= 1


def check_rows(world: World, run: Run, ends: dict[Place, str]) -> None:
    """What is stored is what the history says, and the outputs are those of their own steps."""
    status, error, left, total = world.peephole.ask(
        "SELECT status, error, steps_left, steps_total FROM run WHERE id = ?", [run.id]
    ).fetchone()
    rows = world.peephole.ask(
        "SELECT key, map_index, status, output, options FROM step WHERE run_id = ? ORDER BY key, map_index", [run.id]
    ).fetchall()
    assert {(key, index): ended for key, index, ended, _, _ in rows} == ends
    assert left == 0
    assert total == sum(index < 0 for _, index, _, _, _ in rows)
    assert (error is None) == (status != "failed"), (status, error)
    items: defaultdict[str, list[Any]] = defaultdict(list)
    for key, index, _, output, _ in rows:
        if index >= 0:
            assert index == len(items[key])
            items[key].append(output and orjson.loads(output))
    for key, index, ended, output, options in rows:
        mapped = orjson.loads(options or "{}").get("map") if index < 0 else None
        if ended == "succeeded":
            assert orjson.loads(output) == ({"x": 1} if mapped is None else items[key]), (key, index, output)
            assert mapped is None or len(items[key]) == len(mapped)


def database_in(folder: Path) -> Database:
    """An empty database for schedules."""
    database = Database(f"sqlite:///{folder / 'simulated.db'}")
    Base.metadata.create_all(database.engine)
    return database


def _play_many(seeds: list[int]) -> tuple[Counter[str], float]:
    """Play these schedules; return what has happened, and the seconds of CPU it took."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    database = database_in(folder)
    happened: Counter[str] = Counter()
    gc.freeze()
    gc.set_threshold(50_000)
    try:
        for seed in seeds:
            happened += play_short(database, seed).happened
    finally:
        database.close()
        shutil.rmtree(folder)
    return happened, time.process_time()


def main(schedules: int, first: int = 0) -> None:
    """Play so many schedules on all cores."""
    began = time.monotonic()
    cores = multiprocessing.cpu_count()
    shares = [list(range(first + core, first + schedules, cores)) for core in range(cores)]
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        played = pool.map(_play_many, shares)
    happened = sum((of for of, _ in played), Counter[str]())
    faults = {what: happened[what] for what in FAULTS}
    print(
        f"{schedules} schedules in {time.monotonic() - began:.0f} s, {sum(spent for _, spent in played):.0f} s of CPU"
    )
    print(f"{sum(faults.values()) / schedules:.2f} faults in each: {faults}")
    print(f"what else happened: { {what: count for what, count in happened.items() if what not in faults} }")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
