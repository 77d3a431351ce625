"""`POST /api/v1/workflows/draft`: from words to a workflow."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from nexus.access.guard import requires
from nexus.access.types import Principal, Scope
from nexus.automation.drafting import DraftService
from nexus.http.depends import service

router = APIRouter(prefix="/workflows", tags=["automation"])

Drafts = Annotated[DraftService, service(DraftService)]
Drafter = Annotated[Principal, requires(Scope.AUTOMATION_WRITE, Scope.LLM_INVOKE)]


class DraftIn(BaseModel):
    """What the workflow should do, and who writes it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    description: str = Field(min_length=1, max_length=20_000)
    model: str | None = Field(None, min_length=1, max_length=255, description="A real chat model; null: the first")


class DraftOut(BaseModel):
    """A valid definition, kept nowhere. `rounds` counts how often the model was asked."""

    workflow: dict[str, Any]
    yaml: str
    notes: list[str]
    model: str
    rounds: int
    cost_usd: float | None


@router.post("/draft", operation_id="workflows.draft")
async def draft_workflow(body: DraftIn, who: Drafter, drafts: Drafts) -> DraftOut:
    """Let a real language model write a definition; it is checked and mended, and neither kept nor started."""
    draft = await drafts.draft(who, body.description, body.model)
    return DraftOut(
        workflow=draft.definition,
        yaml=draft.yaml,
        notes=draft.notes,
        model=draft.model,
        rounds=draft.rounds,
        cost_usd=draft.cost_usd,
    )
