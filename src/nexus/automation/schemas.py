"""The bodies of the automation routes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from nexus.automation.approvals import Approval
from nexus.automation.secrets import StoredSecret
from nexus.automation.step import StepPlug
from nexus.automation.types import Workflow, WorkflowVersion
from nexus.core.clock import rfc3339


class StartRun(BaseModel):
    """What starts a run of a workflow."""

    model_config = ConfigDict(extra="forbid", strict=True)

    inputs: dict[str, Any] = Field(default_factory=dict, description="What the workflow takes.")
    version: int | None = Field(None, ge=1, le=2**31 - 1, description="The newest without it.")
    priority: int | None = Field(None, ge=-100, le=100, description="In place of the workflow's own.")


class Rerun(BaseModel):
    """How a new run differs from the earlier one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    inputs: dict[str, Any] = Field(default_factory=dict, description="In place of those of the same name.")
    version: int | None = Field(None, ge=1, le=2**31 - 1, description="That of the earlier run without it.")


class Decision(BaseModel):
    """What somebody says to an approval."""

    model_config = ConfigDict(extra="forbid", strict=True)

    comment: str | None = Field(None, max_length=10_000)


class LinkIn(BaseModel):
    """How long a link is good."""

    model_config = ConfigDict(extra="forbid")

    expires: int = Field(86_400, ge=60, le=7 * 86_400, description="Seconds; it ends with the question in any case")


class LinkOut(BaseModel):
    """A link to an approval, shown this once. It is a path where NEXUS does not know its own address."""

    url: str
    expires_at: str


class ApprovalOut(BaseModel):
    """A question to people and, once there is one, its answer."""

    id: str
    run_id: str
    step: str
    map_index: int | None
    status: str
    message: str
    data: Any
    roles: list[str]
    users: list[str]
    four_eyes: bool
    requested_at: str
    expires_at: str | None
    decided_at: str | None
    decided_by: str | None
    comment: str | None


class SecretValue(BaseModel):
    """A secret, on its way in; it never comes out again."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    value: str = Field(max_length=64 * 1024)


class NewSecret(SecretValue):
    """A secret with its name."""

    name: str = Field(max_length=64)


class SecretOut(BaseModel):
    """All that is told of a secret."""

    name: str
    created_at: str
    updated_at: str
    updated_by: str


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


def approval_out(approval: Approval) -> ApprovalOut:
    """Render an approval."""
    return ApprovalOut(
        id=approval.id,
        run_id=approval.run_id,
        step=approval.step_key,
        map_index=approval.map_index,
        status=approval.status,
        message=approval.message,
        data=approval.data,
        roles=approval.roles,
        users=approval.users,
        four_eyes=approval.four_eyes,
        requested_at=rfc3339(approval.requested_at) or "",
        expires_at=rfc3339(approval.expires_at),
        decided_at=rfc3339(approval.decided_at),
        decided_by=approval.decided_by,
        comment=approval.comment,
    )


def secret_out(secret: StoredSecret) -> SecretOut:
    """Render a secret, which means its name."""
    return SecretOut(
        name=secret.name,
        created_at=rfc3339(secret.created_at) or "",
        updated_at=rfc3339(secret.updated_at) or "",
        updated_by=secret.updated_by,
    )


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
