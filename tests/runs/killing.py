"""What the kill tests share: engines as processes, and a stub outside that counts effects by key.

python -m tests.runs.killing 200                                            # seeds on SQLite
python -m tests.runs.killing 200 postgresql://... redis://localhost:6379/0   # on PostgreSQL and Redis
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from tests.forked import Forked
from tests.runs.history import check_history

from nexus.access.types import Principal
from nexus.core.clock import SystemClock
from nexus.runs import steering, storage
from nexus.runs.errors import RunNotWaiting, StepNotFound
from nexus.runs.failpoints import NAMES
from nexus.runs.records import event_of
from nexus.runs.settings import RunsSettings
from nexus.runs.signals import Bell
from nexus.runs.tables import StepEventRow, StepRow
from nexus.runs.types import Run, RunSpec, StepSpec
from nexus.storage.db import Base, Database

ENGINE = "tests.runs.engine_process"
WHO = Principal("key", "key_a", "prj_a")


class Stub:
    """A service outside that does an effect once for each Idempotency-Key, as good services do."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.answers = threading.Event()
        self.answers.set()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                stub.asked[self.headers["Idempotency-Key"]] += 1
                stub.answers.wait(60)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


class Yard:
    """A database, a stub, and as many engines as one likes to start and kill."""

    def __init__(self, database: Database, folder: Path, **settings: Any) -> None:
        self.db = database
        self.folder = folder
        self.settings = {
            "data_dir": str(folder),
            "lease": 3.0,
            "heartbeat": 0.8,
            "reap": 0.3,
            "concurrency": 4,
            "republish": 4.0,
            **settings,
        }
        self.stub = Stub()
        self.specs: dict[str, RunSpec] = {}
        self.engines: list[Forked] = []
        self.bell = Bell(folder)

    def engine(self, *, wait: bool = True, **settings: Any) -> Forked:
        said = {
            "database": self.db.url.render_as_string(hide_password=False),
            "stub": self.stub.url,
            "settings": RunsSettings(**{**self.settings, **settings}).model_dump(mode="json"),
        }
        engine = Forked(ENGINE, json.dumps(said), self.folder / "engine.log")
        self.engines.append(engine)
        if wait:
            assert engine.stdout.readline() == "started\n", (self.folder / "engine.log").read_text()
        return engine

    def start(self, count: int, steps: int = 3, **inputs: float) -> list[Run]:
        made = [StepSpec(f"s{n}", "effect", inputs, needs=[f"s{n - 1}"] if n else []) for n in range(steps)]
        spec = RunSpec("test", "kill", made)
        runs = [self.add(spec) for _ in range(count)]
        self.bell.ring("outbox")
        return runs

    def add(self, spec: RunSpec) -> Run:
        run = self.db.write_now(storage.add_run, spec, WHO, SystemClock().now(), self.settings["republish"])[0]
        self.specs[run.id] = spec
        return run

    def start_flows(self) -> list[Run]:
        """Start one run of everything at once, and one that fails and is told of it."""
        quick = {"before": 0.01, "after": 0.01}
        everything = RunSpec(
            "test",
            "everything",
            [
                StepSpec("a", "effect", quick),
                StepSpec("each", "effect", quick, needs=["a"], map=[1, 2, 3], max_parallel=2),
                StepSpec("nest", "nest", quick, needs=["a"]),
                StepSpec("ask", "ask", needs=["each"]),
                StepSpec("z", "effect", quick, needs=["ask", "nest"]),
            ],
        )
        late = [StepSpec("warn", "effect", quick)]
        failing = RunSpec(
            "test", "failing", [StepSpec("a", "effect", quick), StepSpec("f", "fail", needs=["a"])], on_failure=late
        )
        runs = [self.add(everything), self.add(failing)]
        self.bell.ring("outbox")
        return runs

    def answer(self, runs: list[Run]) -> None:
        """Signal every step that asks."""
        for run in runs:
            with contextlib.suppress(RunNotWaiting, StepNotFound):
                named = (run.project_id, run.id, SystemClock().now(), self.settings["republish"])
                self.db.write_now(steering.wake_waiting, *named, key="ask", signal={"yes": 1})
                self.bell.ring("outbox")

    def all_answered(self, runs: list[Run]) -> bool:
        self.answer(runs)
        return self.all_ended(runs)

    def check_flows(self, runs: list[Run]) -> None:
        """Everything has ended as it should, each step once, and no effect was done without its key."""
        everything, failing = (self.db.read_now(storage.run_with_steps, run.project_id, run.id) for run in runs)
        assert everything.status == "succeeded", (everything, self.picture())
        assert failing.status == "failed", (failing, self.picture())
        assert failing.error is not None
        assert failing.error.step == "f"
        nested = next(step for step in everything.steps if step.key == "nest").output
        assert nested["status"] == "succeeded"
        keys = [f"{everything.id}.{key}" for key in ("a", "each.0", "each.1", "each.2", "z")]
        expected = {*keys, f"{nested['child']}.c", f"{failing.id}.a", f"{failing.id}.warn"}
        assert set(self.stub.asked) == expected
        ended = select(func.count()).where(StepEventRow.type == "step.succeeded")
        place = (StepEventRow.run_id, StepEventRow.step_key, StepEventRow.map_index)
        counts = self.db.read_now(lambda s: s.execute(ended.group_by(*place)).scalars().all())
        assert set(counts) == {1}
        assert self.count(StepRow.status.in_(("ready", "running", "waiting", "pending"))) == 0

        self.check_histories(runs)
        self.check_history_of(nested["child"], RunSpec("test", "child", [StepSpec("c", "effect")]))

    def check_histories(self, runs: list[Run]) -> None:
        """No history has a fault (`history`), and no effect was done before those of the steps that it needs."""
        for run in runs:
            self.check_history_of(run.id, self.specs[run.id])
            place = {key: number for number, key in enumerate(self.stub.asked)}
            for step in self.specs[run.id].steps:
                done = place.get(f"{run.id}.{step.key}")
                for need in step.needs:
                    before = place.get(f"{run.id}.{need}")
                    assert done is None or before is None or before < done, (step.key, need, place)

    def check_history_of(self, run_id: str, spec: RunSpec) -> None:
        rows = self.db.read_now(storage.events_after, run_id, 0, 100_000)
        check_history(spec, [event_of(row) for row in rows])

    def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{what}\n{self.picture()}"
            time.sleep(0.05)

    def all_ended(self, runs: list[Run]) -> bool:
        return all(self.db.read_now(storage.run_status, run.project_id, run.id).final for run in runs)

    def count(self, what: Any) -> int:
        return self.db.read_now(lambda session: session.execute(select(func.count()).where(what)).scalar_one())

    def running(self) -> int:
        return self.count(StepRow.status == "running")

    def picture(self) -> str:
        counts = self.db.read_now(
            lambda s: s.execute(select(StepRow.status, func.count()).group_by(StepRow.status)).all()
        )
        left = select(StepRow.key, StepRow.map_index, StepRow.status, StepRow.held, StepRow.run_at, StepRow.republished)
        rows = self.db.read_now(lambda s: s.execute(left.where(StepRow.finished_at.is_(None))).all())
        return f"steps {counts}, left {rows}, log: {(self.folder / 'engine.log').read_text()[-3000:]}"

    def check(self, runs: list[Run]) -> None:
        """Nothing is lost, no step has ended twice, and no effect was done without its key."""
        expected = {f"{run.id}.{step.key}" for run in runs for step in run.steps}
        for run in runs:
            stands = self.db.read_now(storage.run_with_steps, run.project_id, run.id)
            assert stands.status == "succeeded", (stands, self.picture())
        ended = select(StepEventRow.run_id, StepEventRow.step_key, func.count()).where(
            StepEventRow.type == "step.succeeded"
        )
        rows = self.db.read_now(lambda s: s.execute(ended.group_by(StepEventRow.run_id, StepEventRow.step_key)).all())
        assert {f"{run_id}.{key}" for run_id, key, _ in rows} == expected
        assert {count for _, _, count in rows} == {1}
        assert set(self.stub.asked) == expected
        self.check_histories(runs)

    def close(self) -> None:
        for engine in self.engines:
            engine.kill()
            engine.stdout.close()
        self.stub.answers.set()
        self.stub.server.shutdown()
        self.stub.server.server_close()
        self.bell.close()


@contextmanager
def yard(database: Database, folder: Path, **settings: Any) -> Iterator[Yard]:
    made = Yard(database, folder, **settings)
    try:
        yield made
    finally:
        made.close()


def kill_in_a_loop(made: Yard, runs: list[Run], kills: int, dice: random.Random) -> int:
    """Kill the engine while steps run, again and again; return how many steps ran at those moments."""
    hit = 0
    for _ in range(kills):
        engine = made.engine()
        if made.all_ended(runs):
            break
        made.until(lambda: made.running() > 0 or made.all_ended(runs), 30, "no step ever ran")
        time.sleep(dice.uniform(0, 0.3))
        hit += made.running()
        engine.kill()
    return hit


def kill_at_a_failpoint(made: Yard, seed: int, **settings: Any) -> str:
    """Let engines die at places that the seed chooses while everything is done; return where.

    The last engine lives, and everything must have ended within a minute of its start.
    """
    dice = random.Random(seed)
    made.stub.asked.clear()
    runs = made.start_flows()
    died = []
    for _ in range(dice.randint(1, 2)):
        name = dice.choice(NAMES)
        engine = made.engine(wait=False, failpoints={name: dice.randint(1, 6)}, **settings)
        made.until(lambda e=engine: e.poll() is not None or made.all_answered(runs), 60, f"stuck before dying {name}")  # type: ignore[misc]
        died.append(name if engine.poll() is not None else f"({name})")
        engine.kill()
    last = made.engine(**settings)
    made.until(lambda: made.all_answered(runs), 60, f"runs are left after dying {died}")
    made.check_flows(runs)
    last.kill()
    return " ".join(died)


def main(seeds: int, url: str = "", redis: str = "") -> None:
    """Play so many seeds on SQLite, or on the PostgreSQL and Redis at these addresses."""
    import tempfile

    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            database = Database(url or f"sqlite:///{folder}/nexus.db")
            Base.metadata.drop_all(database.engine)
            Base.metadata.create_all(database.engine)
            began = time.monotonic()
            with yard(database, Path(folder)) as made:
                died = kill_at_a_failpoint(made, seed, **({"broker_url": redis} if redis else {}))
            database.close()
            print(f"seed {seed}: died {died}, all well after {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
