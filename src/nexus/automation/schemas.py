"""The bodies of the automation routes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from nexus.automation.step import StepPlug
from nexus.automation.types import Workflow, WorkflowVersion
from nexus.core.clock import rfc3339


class StartRun(BaseModel):
    """What starts a run of a workflow."""

    model_config = ConfigDict(extra="forbid", strict=True)

    inputs: dict[str, Any] = Field(default_factory=dict)
    version: int | None = Field(None, ge=1, le=2**31 - 1)


class WorkflowOut(BaseModel):
    """A workflow."""

    id: str
    name: str
    description: str
    version: int
    created_at: str
    updated_at: str


class VersionOut(BaseModel):
    """A version of a workflow with its definition."""

    workflow_id: str
    version: int
    definition: dict[str, Any]
    sha256: str
    created_at: str
    created_by: str


class StepKindOut(BaseModel):
    """A kind of step, with the JSON Schema of its inputs and outputs."""

    uses: str
    summary: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]


def workflow_out(workflow: Workflow) -> WorkflowOut:
    """Render a workflow."""
    return WorkflowOut(
        id=workflow.id,
        name=workflow.name,
        description=workflow.description,
        version=workflow.version,
        created_at=rfc3339(workflow.created_at) or "",
        updated_at=rfc3339(workflow.updated_at) or "",
    )


def version_out(version: WorkflowVersion) -> VersionOut:
    """Render a version."""
    return VersionOut(
        workflow_id=version.workflow_id,
        version=version.version,
        definition=version.definition.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        sha256=version.sha256,
        created_at=rfc3339(version.created_at) or "",
        created_by=version.created_by,
    )


def step_kind_out(plug: StepPlug) -> StepKindOut:
    """Render a step plug."""
    return StepKindOut(
        uses=plug.uses,
        summary=plug.summary,
        inputs=plug.Inputs.model_json_schema(),
        outputs=plug.Outputs.model_json_schema(),
    )
