"""DBOS workflows: `dbos_runs.py work|drive|both SAID`; `both` starts runs in the process that executes them.

SAID is JSON: `marks` (path), `database` (URL), `poll` (seconds between looks at the queue).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time

import marks
from dbos import DBOS, DBOSClient, DBOSConfig

SAID = json.loads(sys.argv[2])
QUEUE = "bench"


@DBOS.step()
def step(run: str, number: int, seconds: float) -> None:
    """One step."""
    marks.step(SAID["marks"], run, number, seconds)


@DBOS.workflow()
def chained(run: str, steps: int, seconds: float) -> None:
    """Steps one after the other."""
    for number in range(steps):
        step(run, number, seconds)


def start_here(run: str, steps: int, seconds: float) -> float:
    """Start a workflow in this process."""
    called = time.time()
    DBOS.start_workflow(chained, run, steps, seconds)
    return called


def start_there(run: str, steps: int, seconds: float) -> float:
    """Enqueue a workflow for another process."""
    options = {"workflow_name": chained.__qualname__, "queue_name": QUEUE, "app_version": "1"}
    called = time.time()
    client.enqueue(options, run, steps, seconds)
    return called


if __name__ == "__main__":
    if sys.argv[1] == "drive":
        client = DBOSClient(system_database_url=SAID["database"])
        marks.drive(start_there)
        client.destroy()
        sys.exit()
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": SAID["database"],
        "executor_id": f"bench-{os.getpid()}",
        "application_version": "1",
        "log_level": "ERROR",
        "run_admin_server": False,
    }
    DBOS(config=config)
    DBOS.launch()
    if sys.argv[1] == "work":
        DBOS.register_queue(QUEUE, polling_interval_sec=SAID["poll"])
    logging.getLogger("dbos").setLevel(logging.ERROR)
    if sys.argv[1] == "both":
        marks.drive(start_here)
        DBOS.destroy()
    else:
        marks.ready()
        signal.pause()
