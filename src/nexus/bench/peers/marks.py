"""What every program under `nexus bench runs` speaks, ours and the peers', on the standard library alone.

A worker writes a line to the file of marks when a step begins, and another when a step that takes time has
ended: `RUN STEP PHASE PID TIME`. A driver reads a request a line, starts the run, and answers a line of JSON:
`{"at": TIME}`, the moment just before the call that creates the run, or `{"error": WORDS}`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable


def mark(path: str, run: str, step: int, phase: str) -> None:
    """Append a line to the file of marks. Lines of many processes never mix: each is one short append."""
    line = f"{run} {step} {phase} {os.getpid()} {time.time():.6f}\n"
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def step(path: str, run: str, number: int, seconds: float) -> None:
    """Do what every measured step does: mark its begin, and take `seconds` where that is not 0."""
    mark(path, run, number, "begin")
    if seconds:
        time.sleep(seconds)
        mark(path, run, number, "end")


def ready() -> None:
    """Tell the bench that this program works."""
    print("ready", flush=True)


def drive(start: Callable[[str, int, float], float]) -> None:
    """Answer requests until there are no more; `start(run, steps, seconds)` returns the moment of its call."""
    ready()
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer: dict[str, object] = {"at": start(asked["run"], asked["steps"], asked["seconds"])}
        except Exception as error:  # noqa: BLE001  a peer's own error is an answer too, whatever it is
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), flush=True)
