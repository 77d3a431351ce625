"""How fast the durable engine is: to the start of a step, through a chain, and in bulk.

The engine is a process of its own, as under `nexus serve`, on a fresh SQLite database with the in-process
broker. Targets and the peers' figures: research, automation section 9 (2 quiet cores).
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, ClassVar, Final

from nexus.access.types import Principal
from nexus.bench.bench import Figure
from nexus.runs.service import RunService
from nexus.runs.settings import RunsSettings
from nexus.runs.types import RunSpec, RunStatus, StepContext, StepSpec
from nexus.runs.worker import EngineWorker
from nexus.storage.db import Base, Database

_WHO: Final = Principal("system", "bench", "prj_bench")
_CHAIN: Final = 10


def _chain(steps: int) -> RunSpec:
    made = [StepSpec(f"s{n}", "noop", needs=[f"s{n - 1}"] if n else []) for n in range(steps)]
    return RunSpec("bench", "chain", made)


async def _noop(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
    return {"at": time.time()}


def _engine(url: str, settings: RunsSettings, ready: Event, stop: Event) -> None:
    async def work() -> None:
        database = Database(url)
        worker = EngineWorker(database=database, handlers={"noop": _noop}, settings=settings)
        await worker.start()
        ready.set()
        await asyncio.to_thread(stop.wait)
        await worker.drain(5)
        database.close()

    asyncio.run(work())


async def _measure(runs: RunService, *, quick: bool) -> list[Figure]:
    async def ended(spec: RunSpec) -> Any:
        run = await runs.start(_WHO, spec)
        run = await runs.wait(_WHO, run.id, 60)
        assert run.status is RunStatus.SUCCEEDED, run
        return run

    await ended(_chain(_CHAIN))
    starts, chains = [], []
    for _ in range(20 if quick else 200):
        called = time.time()
        run = await ended(_chain(1))
        starts.append((run.result["at"] - called) * 1000)
    for _ in range(5 if quick else 30):
        called = time.perf_counter()
        await ended(_chain(_CHAIN))
        chains.append((time.perf_counter() - called) * 1000)
    many = 20 if quick else 200
    called = time.perf_counter()
    started = [await runs.start(_WHO, _chain(_CHAIN)) for _ in range(many)]
    for run in started:
        await runs.wait(_WHO, run.id, 120)
    rate = many * _CHAIN / (time.perf_counter() - called)
    slowest = sorted(starts)[int(len(starts) * 0.99)]
    return [
        Figure("run start to first step, p50", statistics.median(starts), "ms", 10, peer="DBOS queue 37, Prefect 1860"),
        Figure("run start to first step, p99", slowest, "ms", 50, peer="DBOS queue 68, Prefect 2750"),
        Figure("10 sequential steps", statistics.median(chains), "ms", 60, peer="DBOS queue 61, Prefect 2140"),
        Figure("no-op steps", rate, "1/s", 400, lower_is_better=False, peer="DBOS 312-336, Prefect 7"),
    ]


class RunsBench:
    """Start latency, sequential steps and throughput of the embedded engine."""

    summary: ClassVar[str] = "the durable engine: start latency, 10 sequential steps, steps per second"

    def run(self, *, quick: bool) -> list[Figure]:
        """Measure on a fresh SQLite database, with the engine in a process of its own."""
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{Path(folder) / 'bench.db'}"
            database = Database(url)
            Base.metadata.create_all(database.engine)
            settings = RunsSettings(data_dir=Path(folder))
            context = multiprocessing.get_context("spawn")
            ready, stop = context.Event(), context.Event()
            engine = context.Process(target=_engine, args=(url, settings, ready, stop))
            engine.start()
            try:
                if not ready.wait(60):
                    raise RuntimeError("the engine does not start")
                return asyncio.run(_measure(RunService(database=database, settings=settings), quick=quick))
            finally:
                stop.set()
                engine.join(20)
                database.close()


plug = RunsBench()
