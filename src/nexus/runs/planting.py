"""From the description of a run to its rows: the run, its steps, the plan for its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final

from nexus.access.types import Principal
from nexus.core.ids import new_id
from nexus.runs.graph import needed_by
from nexus.runs.records import starter_of
from nexus.runs.types import RetryPolicy, RunSpec, RunStatus, StepSpec, StepStatus

_ZEROS: Final = {"republished": 0, "attempts": 0, "failures": 0, "crashes": 0, "child_crashes": 0}
_SHARED: Final = (
    "run_id", "project_id", "position", "key", "uses", "with", "needs", "retries", "timeout", "queue", "rank",
)  # fmt: skip
FAR: Final = 600.0
"""Seconds after which a held step is looked at again though nobody called it."""


def run_values(spec: RunSpec, principal: Principal, now: datetime) -> dict[str, Any]:
    """Return the row of a new run."""
    plan: dict[str, Any] = {}
    if spec.outputs is not None:
        plan["outputs"] = spec.outputs
    if spec.on_failure:
        plan["on_failure"] = [asdict(step) for step in spec.on_failure]
    if spec.origin is not None:
        plan["origin"] = spec.origin
    return {
        "id": new_id("run"),
        "project_id": principal.project_id,
        "principal_id": principal.id,
        "starter": starter_of(principal),
        "kind": spec.kind,
        "name": spec.name,
        "version": spec.version,
        "status": RunStatus.QUEUED,
        "inputs": spec.inputs,
        "idempotency_key": spec.idempotency_key,
        "steps_total": len(spec.steps),
        "steps_left": len(spec.steps),
        "cancel_requested": False,
        "priority": spec.priority,
        "trigger": spec.trigger,
        "plan": plan or None,
        "lane": spec.lane if spec.concurrency else None,
        "lane_limit": spec.concurrency,
        "parent_run_id": spec.parent and spec.parent.run_id,
        "parent_step_id": spec.parent and spec.parent.step_id,
        "depth": spec.parent.depth if spec.parent else 0,
        "created_at": now,
        "deadline_at": None if spec.deadline is None else now + timedelta(seconds=spec.deadline),
    }


def step_values(
    run: Mapping[str, Any],
    steps: list[StepSpec],
    now: datetime,
    republish: float,
    *,
    role: str | None = None,
    first: int = 0,
) -> list[dict[str, Any]]:
    """Return the rows of the steps of `run` (id, project_id, priority), `first` being the place of the first."""
    after = needed_by(steps)
    return [
        {
            "id": new_id("stp"),
            "run_id": run["id"],
            "project_id": run["project_id"],
            "position": first + place,
            "key": step.key,
            "map_index": -1,
            "uses": step.uses,
            "with": step.with_,
            "when": step.when,
            "needs": step.needs,
            "needed_by": after[step.key],
            "retries": _policy_json(step.retries),
            "timeout": step.timeout,
            "queue": step.queue,
            "rank": -run["priority"],
            "options": _options(step, role),
            "lane": step.lane if step.concurrency else None,
            "lane_limit": step.concurrency,
            "status": StepStatus.PENDING if step.needs else StepStatus.READY,
            "epoch": 1,
            "needs_left": len(step.needs),
            "needs_skipped": 0,
            "run_at": None if step.needs else now,
            "ready_at": None if step.needs else now,
            "republish_at": None if step.needs else now + timedelta(seconds=republish),
            **_ZEROS,
        }
        for place, step in enumerate(steps)
    ]


def _policy_json(policy: RetryPolicy) -> dict[str, Any]:
    stored: dict[str, Any] = {"max": policy.max, "backoff": policy.backoff, "base": policy.base, "cap": policy.cap}
    if policy.on is not None:
        stored["on"] = policy.on
    if policy.never:
        stored["never"] = policy.never
    return stored


def _options(step: StepSpec, role: str | None) -> dict[str, Any] | None:
    wanted = {
        "map": step.map,
        "item_when": step.item_when,
        "max_parallel": step.max_parallel,
        "go_on": step.go_on or None,
        "fallback": step.fallback,
        "role": role,
    }
    return {name: value for name, value in wanted.items() if value is not None} or None


def spec_of(stored: dict[str, Any]) -> StepSpec:
    """Return a step of the plan again."""
    return StepSpec(**{**stored, "retries": RetryPolicy(**stored["retries"])})


def item_values(
    mapper: Any, items: list[Any], now: datetime, republish: float, *, paused: bool = False
) -> list[dict[str, Any]]:
    """Return the rows of the items of a mapped step, given its row.

    Beyond `max_parallel` they are held: ready, to be called by those that end; in a `paused` run all are.
    """
    options = mapper.options or {}
    limit = options.get("max_parallel")
    lane = f"{mapper.run_id}.{mapper.key}" if limit else mapper.lane
    kept = {name: value for name, value in options.items() if name in ("go_on", "fallback", "role")}
    shared = {name: mapper._mapping[name] for name in _SHARED}  # noqa: SLF001  columns named by Python's words
    held = [paused or (limit is not None and index >= limit) for index in range(len(items))]
    return [
        {
            **shared,
            "id": new_id("stp"),
            "map_index": index,
            # In a list: SQLite would take a bare number out of its JSON.
            "item": [item],
            "when": options.get("item_when"),
            "needed_by": [],
            "options": kept or None,
            "lane": lane,
            "lane_limit": limit or mapper.lane_limit,
            "held": held[index],
            "status": StepStatus.READY,
            "epoch": 1,
            "needs_left": 0,
            "needs_skipped": 0,
            "run_at": now,
            "ready_at": now,
            "republish_at": now + timedelta(seconds=FAR if held[index] else republish),
            **_ZEROS,
        }
        for index, item in enumerate(items)
    ]
