"""The memory row of `nexus bench runs`: an engine and a caller beside very many queued runs."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil
from sqlalchemy.orm import Session

from nexus.bench import durable
from nexus.bench.bench import Figure
from nexus.bench.crew import Crew, crew
from nexus.bench.engines import Engine
from nexus.core.clock import SystemClock
from nexus.runs import storage
from nexus.runs.settings import RunsSettings
from nexus.storage.db import Database

RUNS: Final = 100_000
_WARM: Final = 40
_ASKED: Final = 50
_BATCH: Final = 500
_LIMIT: Final = 60.0
_GROWTH: Final = 25.0


def backlog(ours: Engine, runs: int = RUNS, seconds: float = 10.0) -> list[Figure]:
    """Return by how many MB an engine and a caller grow beside so many queued runs, on SQLite.

    Both are compared with themselves after some work on an empty queue; the engine works on the backlog for `seconds`
    and its highest reading counts. Raises `CrewFailed`.
    """
    with tempfile.TemporaryDirectory(prefix="nexus-bench-") as name:
        folder = Path(name)
        with ours.programs(folder) as programs:
            with crew(programs, folder) as fresh:
                engine, caller = _work(fresh, 0.0)
            plant(folder, runs - _ASKED)
            with crew(programs, folder) as loaded:
                engine_after, caller_after = _work(loaded, seconds)
    words = f"{runs:,} queued runs"
    return [
        Figure(f"engine memory, grown by, beside {words}", engine_after - engine, "MB", _GROWTH),
        Figure(f"caller memory, grown by, beside {words}", caller_after - caller, "MB", _GROWTH),
    ]


def plant(folder: Path, runs: int) -> None:
    """Queue so many runs of one step in the database of an engine's folder."""
    database = Database(f"sqlite:///{folder / 'nexus.db'}")
    spec, republish = durable.chain("planted", 1, 0.0), RunsSettings().republish

    def batch(session: Session, count: int) -> None:
        for _ in range(count):
            storage.add_run(session, spec, durable.WHO, SystemClock().now(), republish)

    for done in range(0, runs, _BATCH):
        database.write_now(batch, min(_BATCH, runs - done))
    database.close()


def _work(started: Crew, seconds: float) -> tuple[float, float]:
    started.ask(_ASKED, 1)
    started.until(_WARM, _LIMIT)
    end = time.monotonic() + seconds
    highest = _memory(started.workers[0])
    while time.monotonic() < end:
        time.sleep(0.1)
        highest = max(highest, _memory(started.workers[0]))
    return highest, _memory(started.driver)


def _memory(process: subprocess.Popen[str]) -> float:
    return float(psutil.Process(process.pid).memory_info().rss / 1e6)
