"""Prefect flows by `serve()`: `prefect_flows.py work|drive SAID`.

SAID is JSON: `marks` (path), `limit` (flow runs at once). The server's address and the poll of the runner are in
the environment (PREFECT_API_URL, PREFECT_RUNNER_POLL_FREQUENCY). The server now and then answers 503 on SQLite:
the call is made again after half a second, and the time of the first call counts.
"""

from __future__ import annotations

import json
import sys
import time

import marks
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

TRIES = 10


@task
def step(path: str, run: str, number: int, seconds: float) -> None:
    """One step."""
    marks.step(path, run, number, seconds)


@flow(name="chained")
def chained(path: str, run: str, steps: int, seconds: float) -> None:
    """Steps one after the other."""
    for number in range(steps):
        step(path, run, number, seconds)


def drive(path: str) -> None:
    """Start runs of the deployment that the worker serves."""
    with get_client(sync_client=True) as client:
        for left in reversed(range(TRIES * 6)):
            try:
                deployment = client.read_deployment_by_name("chained/bench")
                break
            except ObjectNotFound:
                # The worker registers it while it starts.
                if not left:
                    raise
                time.sleep(0.5)

        def start(run: str, steps: int, seconds: float) -> float:
            given = {"path": path, "run": run, "steps": steps, "seconds": seconds}
            called = time.time()
            for left in reversed(range(TRIES)):
                try:
                    client.create_flow_run_from_deployment(deployment.id, parameters=given)
                    break
                except PrefectHTTPStatusError:
                    if not left:
                        raise
                    time.sleep(0.5)
            return called

        marks.drive(start)


if __name__ == "__main__":
    said = json.loads(sys.argv[2])
    if sys.argv[1] == "drive":
        drive(said["marks"])
    else:
        marks.ready()
        chained.serve(name="bench", limit=said["limit"], print_starting_message=False)
