"""When something happens inside NEXUS: a run has finished, a model was promoted, a budget is used up ..."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import Field

from nexus.automation.trigger import TriggerConfig

EventType = Annotated[
    str, Field(max_length=64, pattern=r"^(\*|[a-z][a-z0-9_]*(\.[a-z0-9_]+)*(\.\*)?)$", examples=["run.finished"])
]


class EventConfig(TriggerConfig):
    """Which events, and about what."""

    types: list[EventType] = Field(min_length=1, max_length=20, description="`model.*` for all that begin so")
    subject: str | None = Field(
        None, min_length=1, max_length=255, description="What it must be about, with `*` and `?`: a workflow, a model"
    )


class EventTrigger:
    """The kind `event`."""

    kind = "event"
    summary = "When something happens inside NEXUS, `run.finished` or `model.*`."
    Config: type[TriggerConfig] = EventConfig

    def types(self, config: EventConfig) -> Sequence[str]:
        """Return the types as they were given."""
        return config.types

    def admits(self, config: EventConfig, event: Mapping[str, Any]) -> bool:
        """Tell whether the event is about what was asked for."""
        return config.subject is None or fnmatchcase(event["subject"], config.subject)

    def sample(self, config: EventConfig) -> dict[str, Any]:
        """Return an event of the first type."""
        type_ = config.types[0].replace("*", "happened").removeprefix(".")
        return {"type": type_, "subject": config.subject or "example", "data": _DATA.get(type_, {})}


_DATA: dict[str, dict[str, Any]] = {
    "run.finished": {
        "run_id": "run_01ja8w3xk5v0m2c7tqz9r4h6ye",
        "kind": "workflow",
        "name": "example",
        "version": 1,
        "status": "failed",
        "error": {"code": "request_failed", "message": "The other side did not accept the request."},
        "trigger": {"type": "manual"},
        "parent_run_id": None,
    },
    "step.dead_lettered": {
        "run_id": "run_01ja8w3xk5v0m2c7tqz9r4h6ye",
        "kind": "workflow",
        "name": "example",
        "version": 1,
        "trigger": {"type": "manual"},
        "step": "read",
        "map_index": None,
        "error": {"code": "step_dead_lettered", "message": "The step crashed 3 times and was given up."},
    },
    "model.promoted": {"model": "example", "alias": "champion", "version": 2, "previous": 1, "by": "key_example"},
    "budget.reached": {"budget_id": "bud_example", "scope": "project", "percent": 80, "amount_usd": 10.0},
    "file.uploaded": {"file_id": "file_example", "filename": "a.csv", "size": 12, "content_type": "text/csv"},
}

plug = EventTrigger()
