"""Following a run to its end: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from nexus.cli.instance import Client
from nexus.cli.output import errors

_FINAL = ("succeeded", "failed", "cancelled")


def follow(client: Client, run_id: str, *, every: float = 0.2) -> dict[str, Any]:
    """Return the run once it has ended, showing how far it is meanwhile."""
    if errors.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:g}"), TimeElapsedColumn())
        with Progress(*columns, console=errors, transient=True) as bar:
            task = bar.add_task(run_id, total=None)
            while (run := _run(client, run_id))["status"] not in _FINAL:
                bar.update(task, completed=run["progress"]["done"], total=run["progress"]["total"])
                time.sleep(every)
        return run
    said = ""
    while (run := _run(client, run_id))["status"] not in _FINAL:
        line = f"{run_id} {run['status']} {run['progress']['done']:g}/{run['progress']['total'] or '?'}"
        if line != said:
            errors.print(line)
            said = line
        time.sleep(every)
    errors.print(f"{run_id} {run['status']}")
    return run


def _run(client: Client, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.json("GET", f"/api/v1/runs/{run_id}")
    return found
