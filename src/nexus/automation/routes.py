"""`/api/v1/workflows`: definitions, versions, runs; `/api/v1/steps`: what a step can do; approvals and secrets."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request, Response

from nexus.access.guard import requires
from nexus.access.types import Principal, Scope
from nexus.automation import (
    alert_routes,
    approval_routes,
    channel_routes,
    draft_routes,
    schedule_routes,
    secret_routes,
    trigger_routes,
)
from nexus.automation.schemas import (
    Rerun,
    StartRun,
    StepKindOut,
    VersionOut,
    WorkflowOut,
    step_kind_out,
    version_out,
    workflow_out,
)
from nexus.automation.service import AutomationService
from nexus.automation.step import STEPS
from nexus.automation.types import Definition
from nexus.core.errors import UnsupportedMedia
from nexus.http.depends import service
from nexus.http.paging import Paged, page_of
from nexus.runs.routes import accepted

router = APIRouter(prefix="/api/v1", tags=["automation"])

Automation = Annotated[AutomationService, service(AutomationService)]
Reader = Annotated[Principal, requires(Scope.AUTOMATION_READ)]
Writer = Annotated[Principal, requires(Scope.AUTOMATION_WRITE)]
Runner = Annotated[Principal, requires(Scope.AUTOMATION_RUN)]

VersionNumber = Annotated[int, Path(ge=1, le=2**31 - 1)]

_KINDS = {"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "application/json"}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "object"}} for kind in ("application/yaml", "application/json")},
    }
}


async def _definition_text(request: Request) -> bytes:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in _KINDS:
        raise UnsupportedMedia("Send the definition as application/yaml or application/json.")
    return await request.body()


@router.post("/workflows", status_code=201, operation_id="workflows.apply", openapi_extra=_BODY)
async def apply_workflow(request: Request, response: Response, who: Writer, automation: Automation) -> WorkflowOut:
    """Keep a definition (YAML or JSON) as the newest version of its name; 200 when it is that already."""
    workflow, written = await automation.apply(who, await _definition_text(request))
    response.status_code = 201 if written else 200
    response.headers["location"] = f"/api/v1/workflows/{workflow.id}"
    return workflow_out(workflow)


@router.post("/workflows/validate", operation_id="workflows.validate", openapi_extra=_BODY)
async def validate_workflow(request: Request, _who: Reader, automation: Automation) -> dict[str, Any]:
    """Check a definition without keeping it."""
    definition = automation.check(await _definition_text(request))
    return {"valid": True, "name": definition.name, "steps": [step.key for step in definition.steps]}


@router.get("/workflows", operation_id="workflows.list")
async def list_workflows(page: Paged, who: Reader, automation: Automation) -> dict[str, Any]:
    """List the workflows of the project."""
    found = await automation.list(who, after=page.after_id, limit=page.fetch, descending=page.descending)
    return page_of(found, page, render=workflow_out)


@router.get("/workflows/schema", operation_id="workflows.schema")
async def workflow_schema(_who: Reader) -> dict[str, Any]:
    """Return the JSON Schema of a definition."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Definition.model_json_schema(by_alias=True)}


@router.get("/workflows/{workflow}", operation_id="workflows.get")
async def get_workflow(workflow: str, who: Reader, automation: Automation) -> WorkflowOut:
    """Return a workflow by its id or name."""
    return workflow_out(await automation.get(who, workflow))


@router.delete("/workflows/{workflow}", status_code=204, operation_id="workflows.delete")
async def delete_workflow(workflow: str, who: Writer, automation: Automation) -> None:
    """Take a workflow out of use; its runs stay."""
    await automation.delete(who, workflow)


@router.get("/workflows/{workflow}/versions", operation_id="workflows.versions")
async def list_versions(workflow: str, who: Reader, automation: Automation) -> dict[str, Any]:
    """List every version, the newest first."""
    return {"data": [version_out(version) for version in await automation.versions(who, workflow)]}


@router.get("/workflows/{workflow}/versions/{version}", operation_id="workflows.version")
async def get_version(workflow: str, version: VersionNumber, who: Reader, automation: Automation) -> VersionOut:
    """Return one version with its definition."""
    return version_out(await automation.version(who, workflow, version))


@router.post("/workflows/{workflow}/runs", status_code=202, operation_id="workflows.run")
async def run_workflow(
    workflow: str,
    body: StartRun,
    request: Request,
    who: Runner,
    automation: Automation,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Response:
    """Start a run: 202 with its place, or its end when `Prefer: wait=N` is long enough."""
    run = await automation.start(
        who,
        workflow,
        body.inputs,
        version=body.version,
        idempotency_key=idempotency_key,
        trigger={"type": "manual" if who.kind == "session" else "api"},
        priority=body.priority,
    )
    return await accepted(run, request)


@router.post("/runs/{run_id}/rerun", status_code=202, operation_id="runs.rerun", summary="Run again with edits")
async def rerun(
    run_id: str,
    request: Request,
    who: Runner,
    automation: Automation,
    body: Rerun | None = None,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Response:
    """Start a new run like an earlier one, with other inputs or of another version."""
    wish = body or Rerun()
    run = await automation.rerun(who, run_id, wish.inputs, version=wish.version, idempotency_key=idempotency_key)
    return await accepted(run, request)


@router.get("/steps", operation_id="steps.list")
async def list_steps(_who: Reader) -> dict[str, list[StepKindOut]]:
    """List what a step of a workflow can do."""
    return {"data": [step_kind_out(plug) for plug in STEPS.all().values()]}


router.include_router(approval_routes.router)
router.include_router(schedule_routes.router)
router.include_router(trigger_routes.router)
router.include_router(secret_routes.router)
router.include_router(alert_routes.router)
router.include_router(channel_routes.router)
router.include_router(draft_routes.router)
