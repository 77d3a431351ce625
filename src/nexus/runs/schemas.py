"""The JSON of runs: what the outside sees (design: contract.md, "run")."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from nexus.core.clock import rfc3339
from nexus.runs.records import failure_json
from nexus.runs.types import Failure, Progress, Run, RunEvent, Step


class ResumeBody(BaseModel):
    """What may be said when a waiting run is resumed."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    step: str | None = Field(default=None, max_length=64, description="The waiting step; all of them without it.")
    signal: dict[str, Any] | None = Field(default=None, description="What the waiting step is told.")


class RetryBody(BaseModel):
    """Where to begin again."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)

    from_: str | None = Field(
        default=None, alias="from", max_length=64, description="A step to execute again though it succeeded."
    )


def _failure_out(failure: Failure | None) -> dict[str, Any] | None:
    return None if failure is None else failure_json(failure)


def _progress_out(progress: Progress | None) -> dict[str, Any] | None:
    return None if progress is None else asdict(progress)


def step_out(step: Step) -> dict[str, Any]:
    """Return the JSON of a step."""
    shown = {
        "id": step.id,
        "key": step.key,
        "uses": step.uses,
        "status": step.status,
        "attempts": step.attempts,
        "needs": step.needs,
        "started_at": rfc3339(step.started_at),
        "finished_at": rfc3339(step.finished_at),
        "next_attempt_at": rfc3339(step.next_attempt_at),
        "progress": _progress_out(step.progress),
        "output": step.output,
        "error": _failure_out(step.error),
    }
    if step.map_index is not None:
        shown["map_index"] = step.map_index
    if step.items_total is not None:
        shown["items"] = {"done": step.items_total - (step.items_left or 0), "total": step.items_total}
    if step.role is not None:
        shown["role"] = step.role
    return shown


def run_row_out(run: Run) -> dict[str, Any]:
    """Return the JSON of a run in a list: without inputs, result and steps."""
    return {
        "id": run.id,
        "kind": run.kind,
        "name": run.name,
        "version": run.version,
        "status": run.status,
        "progress": _progress_out(run.progress),
        "priority": run.priority,
        "paused": run.paused,
        "trigger": run.trigger,
        "parent_run_id": run.parent_run_id,
        "created_at": rfc3339(run.created_at),
        "started_at": rfc3339(run.started_at),
        "finished_at": rfc3339(run.finished_at),
        "error": _failure_out(run.error),
    }


def run_out(run: Run) -> dict[str, Any]:
    """Return the JSON of a run with its steps."""
    return {
        **run_row_out(run),
        "inputs": run.inputs,
        "result": run.result,
        "steps": [step_out(step) for step in run.steps],
    }


def event_out(event: RunEvent) -> dict[str, Any]:
    """Return the JSON of one line of a timeline."""
    return {**_line_out(event), "type": event.type, **event.data}


def log_out(event: RunEvent) -> dict[str, Any]:
    """Return the JSON of one log line."""
    return {**_line_out(event), **event.data}


def artifact_out(event: RunEvent) -> dict[str, Any]:
    """Return the JSON of a file that a step has written."""
    return {**_line_out(event), **event.data}


def _line_out(event: RunEvent) -> dict[str, Any]:
    line: dict[str, Any] = {"id": event.id, "step": event.step_key, "at": rfc3339(event.at)}
    return line if event.map_index is None else {**line, "map_index": event.map_index}
