"""Rows into the values of `types`, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from nexus.access.types import Principal, Scope
from nexus.runs.tables import StepEventRow
from nexus.runs.types import Failure, Progress, Run, RunEvent, RunStatus, Step, StepStatus


def starter_of(principal: Principal) -> dict[str, Any]:
    """Return what is stored of the principal who starts a run."""
    return {
        "id": principal.id,
        "scopes": sorted(principal.scopes),
        "user_id": principal.user_id,
        "key_id": principal.key_id,
        "models": principal.models,
    }


def principal_of(project_id: str, starter: dict[str, Any]) -> Principal:
    """Return the principal a step acts as: NEXUS itself, with the starter's project and rights."""
    known = {scope.value for scope in Scope}
    return Principal(
        kind="system",
        id=starter["id"],
        project_id=project_id,
        scopes=frozenset(Scope(scope) for scope in starter["scopes"] if scope in known),
        user_id=starter["user_id"],
        key_id=starter["key_id"],
        models=None if starter.get("models") is None else tuple(starter["models"]),
    )


def failure_json(failure: Failure) -> dict[str, Any]:
    """Return a failure as it is stored and shown."""
    return {name: value for name, value in asdict(failure).items() if value is not None}


def _failure(stored: dict[str, Any] | None) -> Failure | None:
    return None if stored is None else Failure(**stored)


def _progress(stored: dict[str, Any] | None) -> Progress | None:
    return None if stored is None else Progress(**stored)


def step_of(row: Any) -> Step:
    """Return a step as it stands, from anything with the attributes of a `StepRow`."""
    resting = row.status == StepStatus.WAITING or (row.status == StepStatus.READY and row.failures + row.crashes > 0)
    return Step(
        id=row.id,
        key=row.key,
        uses=row.uses,
        status=StepStatus(row.status),
        attempts=row.attempts,
        started_at=row.started_at,
        finished_at=row.finished_at,
        output=row.output,
        error=_failure(row.error),
        needs=row.needs,
        progress=_progress(row.progress),
        next_attempt_at=row.run_at if resting else None,
        map_index=None if row.map_index < 0 else row.map_index,
        items_total=_items(row),
        items_left=row.items_left if _items(row) is not None else None,
        role=(row.options or {}).get("role"),
    )


def _items(row: Any) -> int | None:
    """Return how many items a mapped step has, once that is known."""
    mapped = row.map_index < 0 and (row.options or {}).get("map") is not None
    return (row.state or {}).get("items") if mapped else None


def run_of(row: Any, steps: Sequence[Any] = ()) -> Run:
    """Return a run as it stands, from anything with the attributes of a `RunRow`.

    A run of one step that reports progress has that progress.
    """
    progress = Progress(row.steps_total - row.steps_left, row.steps_total, "steps")
    if len(steps) == 1 and steps[0].progress is not None:
        progress = Progress(**steps[0].progress)
    return Run(
        id=row.id,
        project_id=row.project_id,
        principal_id=row.principal_id,
        kind=row.kind,
        name=row.name,
        version=row.version,
        status=RunStatus(row.status),
        progress=progress,
        inputs=row.inputs,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        error=_failure(row.error),
        result=row.result,
        steps=[step_of(step) for step in steps],
        priority=row.priority,
        paused=row.paused,
        trigger=row.trigger,
        parent_run_id=row.parent_run_id,
        origin=(row.plan or {}).get("origin"),
    )


def event_of(row: StepEventRow) -> RunEvent:
    """Return one line of a timeline."""
    return RunEvent(row.id, row.run_id, row.step_key, row.type, row.at, row.data, row.map_index)


def event_row(
    run_id: str, step_key: str | None, type_: str, at: datetime, map_index: int | None = None, **data: Any
) -> dict[str, Any]:
    """Return the values of a line of a timeline, for a bulk insert. A negative `map_index` is none."""
    index = None if map_index is None or map_index < 0 else map_index
    return {"run_id": run_id, "step_key": step_key, "map_index": index, "type": type_, "at": at, "data": data}
