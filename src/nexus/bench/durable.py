"""NEXUS as `nexus bench runs` starts it: an engine, or a caller of it, as a process of its own.

`python -m nexus.bench.durable work|drive SAID`; SAID is JSON: `marks` (path), `database` (URL), `data_dir`, and
`broker` (URL, or null for the one inside the engine). Everything else stands on its defaults.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from nexus.access.types import Principal
from nexus.bench.peers import marks
from nexus.runs.service import RunService
from nexus.runs.settings import RunsSettings
from nexus.runs.types import RunSpec, StepContext, StepSpec
from nexus.runs.worker import EngineWorker
from nexus.storage.db import Base, Database

WHO: Final = Principal("system", "bench", "prj_bench")


def chain(run: str, steps: int, seconds: float) -> RunSpec:
    """Return a run of steps one after the other that take `seconds` each."""
    made = [
        StepSpec(f"s{n}", "step", {"run": run, "number": n, "seconds": seconds}, needs=[f"s{n - 1}"] if n else [])
        for n in range(steps)
    ]
    return RunSpec("bench", "chain", made)


def settings_of(said: dict[str, Any]) -> RunsSettings:
    """Return the settings of the engine that `said` describes."""
    return RunsSettings(data_dir=Path(said["data_dir"]), broker_url=said["broker"])


async def work(said: dict[str, Any]) -> None:
    """Execute steps until SIGTERM."""
    path = said["marks"]

    async def step(_context: StepContext, inputs: dict[str, Any]) -> dict[str, Any]:
        marks.mark(path, inputs["run"], inputs["number"], "begin")
        if inputs["seconds"]:
            await asyncio.sleep(inputs["seconds"])
            marks.mark(path, inputs["run"], inputs["number"], "end")
        return {}

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    database = Database(said["database"])
    Base.metadata.create_all(database.engine)
    worker = EngineWorker(database=database, handlers={"step": step}, settings=settings_of(said))
    await worker.start()
    marks.ready()
    await stop.wait()
    await worker.drain(1)
    database.close()


def drive(said: dict[str, Any]) -> None:
    """Start the runs that the bench asks for."""
    database = Database(said["database"])
    runs = RunService(database=database, settings=settings_of(said))
    with asyncio.Runner() as runner:

        def start(run: str, steps: int, seconds: float) -> float:
            spec = chain(run, steps, seconds)
            called = time.time()
            runner.run(runs.start(WHO, spec))
            return called

        marks.drive(start)
    database.close()


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    if sys.argv[1] == "drive":
        drive(given)
    else:
        asyncio.run(work(given))
