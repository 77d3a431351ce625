"""An engine as a process of its own, to be killed: `python engine_process.py SETTINGS_JSON`.

Its one kind of step, `effect`, works a while, does an effect outside (a POST to the test's stub, with the
step's idempotency key), works a while longer, and answers.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import urllib.request
from typing import Any

from nexus.runs.settings import RunsSettings
from nexus.runs.types import StepContext
from nexus.runs.worker import EngineWorker
from nexus.storage.db import Database


def post(url: str, key: str) -> None:
    request = urllib.request.Request(url, data=b"{}", headers={"Idempotency-Key": key}, method="POST")
    urllib.request.urlopen(request, timeout=20).close()


async def main() -> None:
    said = json.loads(sys.argv[1])

    async def effect(context: StepContext, inputs: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(inputs.get("before", 0.05))
        await asyncio.to_thread(post, said["stub"], context.idempotency_key)
        await asyncio.sleep(inputs.get("after", 0.05))
        return {"attempt": context.attempt}

    database = Database(said["database"])
    worker = EngineWorker(database=database, handlers={"effect": effect}, settings=RunsSettings(**said["settings"]))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await worker.start()
    print("started", flush=True)
    await stop.wait()
    await worker.drain()
    database.close()
    print("drained", json.dumps(worker.tally), flush=True)


asyncio.run(main())
