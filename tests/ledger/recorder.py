"""A process that records as fast as it can and says so. Usage: recorder.py URL FOLDER THREADS [--serve]."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path

from nexus.ledger.service import Ledger
from nexus.ledger.settings import LedgerSettings
from nexus.ledger.types import Invocation
from nexus.storage.db import Database


def work(ledger: Ledger, stop: threading.Event) -> None:
    while not stop.is_set():
        one = Invocation(project_id="prj_a", principal_id="key_a", kind="chat", model="m", input_tokens=1, cost_usd=0.5)
        ledger.record(one)
        os.write(1, f"{one.id}\n".encode())


async def main(url: str, folder: str, threads: int) -> None:
    ledger = Ledger(
        database=Database(url), folder=Path(folder), settings=LedgerSettings(flush_seconds=0.05, flush_rows=100)
    )
    await ledger.start()
    stop, ended = threading.Event(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    workers = [threading.Thread(target=work, args=(ledger, stop), daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    await ended.wait()
    stop.set()
    for worker in workers:
        worker.join()
    await ledger.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
