"""An engine as a process of its own, to be killed.

The step `effect` works a while, does an effect outside (a POST to the test's stub, with the step's idempotency
key), works a while longer, and answers. `nest` waits for a child run with one effect, `ask` for a signal, and `fail`
fails.
"""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from typing import Any

from nexus.core.errors import InvalidInput
from nexus.runs.service import RunService
from nexus.runs.settings import RunsSettings
from nexus.runs.types import Parent, Parked, RunSpec, StepContext, StepSpec
from nexus.runs.worker import EngineWorker
from nexus.storage.db import Database


def post(url: str, key: str) -> None:
    request = urllib.request.Request(url, data=b"{}", headers={"Idempotency-Key": key}, method="POST")
    urllib.request.urlopen(request, timeout=20).close()


async def work(said: Any) -> None:

    async def effect(context: StepContext, inputs: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(inputs.get("before", 0.05))
        await asyncio.to_thread(post, said["stub"], context.idempotency_key)
        await asyncio.sleep(inputs.get("after", 0.05))
        return {"attempt": context.attempt}

    async def nest(context: StepContext, inputs: dict[str, Any]) -> dict[str, Any]:
        parent = Parent(context.run_id, context.step_id, 1)
        key = f"{context.idempotency_key}.{context.round}"
        steps = [StepSpec("c", "effect", inputs)]
        run = await runs.start(context.principal, RunSpec("test", "child", steps, idempotency_key=key, parent=parent))
        if not run.status.final:
            raise Parked
        return {"child": run.id, "status": run.status}

    async def ask(context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        if context.signal is None:
            raise Parked
        return context.signal

    async def fail(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
        raise InvalidInput("It fails.")

    database = Database(said["database"])
    settings = RunsSettings(**said["settings"])
    runs = RunService(database=database, settings=settings)
    handlers = {"effect": effect, "nest": nest, "ask": ask, "fail": fail}
    worker = EngineWorker(database=database, handlers=handlers, settings=settings)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await worker.start()
    print("started", flush=True)
    await stop.wait()
    await worker.drain()
    database.close()
    print("drained", json.dumps(worker.tally), flush=True)


def main(said: str) -> None:
    """Work until told to stop."""
    asyncio.run(work(json.loads(said)))
