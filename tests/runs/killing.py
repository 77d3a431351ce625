"""What the kill tests share: engines as processes, and a stub outside that counts effects by key."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
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

from nexus.access.types import Principal
from nexus.core.clock import SystemClock
from nexus.runs import storage
from nexus.runs.settings import RunsSettings
from nexus.runs.signals import Bell
from nexus.runs.tables import StepEventRow, StepRow
from nexus.runs.types import Run, RunSpec, StepSpec
from nexus.storage.db import Database

SCRIPT = Path(__file__).with_name("engine_process.py")
WHO = Principal("key", "key_a", "prj_a")


class Stub:
    """A service outside that does an effect once for each Idempotency-Key, as good services do."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                stub.asked[self.headers["Idempotency-Key"]] += 1
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


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
        self.engines: list[subprocess.Popen[str]] = []
        self.bell = Bell(folder)

    def engine(self, *, wait: bool = True, **settings: Any) -> subprocess.Popen[str]:
        said = {
            "database": self.db.url.render_as_string(hide_password=False),
            "stub": self.stub.url,
            "settings": RunsSettings(**{**self.settings, **settings}).model_dump(mode="json"),
        }
        engine = subprocess.Popen(
            [sys.executable, str(SCRIPT), json.dumps(said)],
            stdout=subprocess.PIPE,
            stderr=(self.folder / "engine.log").open("a"),
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.engines.append(engine)
        if wait:
            assert engine.stdout is not None
            assert engine.stdout.readline() == "started\n", (self.folder / "engine.log").read_text()
        return engine

    def start(self, count: int, steps: int = 3, **inputs: float) -> list[Run]:
        made = [StepSpec(f"s{n}", "effect", inputs, needs=[f"s{n - 1}"] if n else []) for n in range(steps)]
        spec = RunSpec("test", "kill", made)
        runs = [
            self.db.write_now(storage.add_run, spec, WHO, SystemClock().now(), self.settings["republish"])[0]
            for _ in range(count)
        ]
        self.bell.ring("outbox")
        return runs

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
        return f"steps {counts}, log: {(self.folder / 'engine.log').read_text()[-3000:]}"

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

    def close(self) -> None:
        for engine in self.engines:
            if engine.poll() is None:
                os.killpg(engine.pid, signal.SIGKILL)
            engine.wait()
            assert engine.stdout is not None
            engine.stdout.close()
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
        os.killpg(engine.pid, signal.SIGKILL)
        engine.wait()
    return hit
