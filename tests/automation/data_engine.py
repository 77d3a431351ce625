"""An engine as a process of its own that works on tables, to be killed."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import nexus.access.tables
import nexus.files.tables  # noqa: F401  the database knows what has been imported
from nexus.automation.handlers import step_handlers
from nexus.compute.pool import ComputePool
from nexus.core.clock import Clock, SystemClock
from nexus.core.services import Services
from nexus.files.service import FileService
from nexus.http import fetch
from nexus.runs.settings import RunsSettings
from nexus.runs.worker import EngineWorker
from nexus.storage.blobs.local import LocalBlobs
from nexus.storage.db import Database


async def work(said: Any) -> None:
    fetch.configure(["127.0.0.0/8"])
    database, services, pool = Database(said["database"]), Services(), ComputePool(children=1)
    for service in (
        database,
        pool,
        FileService(database=database, blobs=LocalBlobs(Path(said["settings"]["data_dir"]) / "files")),
    ):
        services.put(service)
    services.put(SystemClock(), as_type=Clock)
    worker = EngineWorker(
        database=database, handlers=step_handlers(), services=services, settings=RunsSettings(**said["settings"])
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await worker.start()
    print("started", flush=True)
    await stop.wait()
    await worker.drain()
    pool.stop_now()
    database.close()


def main(said: str) -> None:
    """Work until told to stop."""
    asyncio.run(work(json.loads(said)))
