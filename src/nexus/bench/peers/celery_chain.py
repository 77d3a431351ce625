"""Plain Celery chains on Redis with default settings: `celery_chain.py work|drive SAID`.

SAID is JSON: `marks` (path), `broker` (URL), `concurrency`. No result backend, as nothing here asks for results.
"""

from __future__ import annotations

import json
import sys
import time

import marks
from celery import Celery, chain

SAID = json.loads(sys.argv[2])
app = Celery("bench", broker=SAID["broker"])
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True, worker_redirect_stdouts=False)


@app.task(name="step")
def step(run: str, number: int, seconds: float) -> None:
    """One step."""
    marks.step(SAID["marks"], run, number, seconds)


def start(run: str, steps: int, seconds: float) -> float:
    """Send a chain."""
    links = chain(*(step.si(run, number, seconds) for number in range(steps)))
    called = time.time()
    links.apply_async()
    return called


if __name__ == "__main__":
    if sys.argv[1] == "drive":
        marks.drive(start)
    else:
        from celery.signals import worker_ready

        worker_ready.connect(lambda **_: marks.ready(), weak=False)
        name = f"bench@{time.time_ns()}"
        app.worker_main(["worker", "-c", str(SAID["concurrency"]), "-n", name, "-l", "ERROR"])
