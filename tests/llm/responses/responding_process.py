"""An engine that makes responses in the background, as a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

from nexus.core.clock import SystemClock
from nexus.core.services import Services
from nexus.ledger.service import Ledger
from nexus.llm.jobs import HANDLERS
from nexus.llm.responses.service import ResponsesService, responses_form
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings
from nexus.runs.service import RunService
from nexus.runs.settings import RunsSettings
from nexus.runs.worker import EngineWorker
from nexus.storage.db import Database


async def work(said: Any) -> None:
    database, settings = Database(said["database"]), RunsSettings(**said["runs"])
    ledger = Ledger(database=database, folder=Path(said["ledger"]))
    llm = LLMService(settings=LLMSettings(**said["llm"]), record=ledger.record)
    store = ResponsesService(
        database=database,
        llm=llm,
        runs=RunService(database=database, settings=settings),
        form=responses_form(),
        clock=SystemClock(),
        days=30,
    )
    services = Services()
    for service in (llm, store, ledger):
        services.put(service)
    worker = EngineWorker(database=database, handlers=HANDLERS, settings=settings, services=services)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await ledger.start()
    await worker.start()
    print("started", flush=True)
    await stop.wait()
    await worker.drain()
    await ledger.stop()
    database.close()


def main(said: str) -> None:
    """Work until told to stop."""
    asyncio.run(work(json.loads(said)))
