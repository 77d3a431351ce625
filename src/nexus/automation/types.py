"""What a workflow definition says. The models are the published JSON Schema of `/api/v1/workflows`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Key = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Expression = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
InputType = Literal["string", "number", "integer", "boolean", "file", "url", "list", "object", "any"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, strict=True)


class InputSpec(_Strict):
    """One input of a workflow: its type, and whether and how it may be left out."""

    type: InputType = "any"
    description: str = Field("", max_length=2_000)
    optional: bool = False
    default: Any = None


class Retries(_Strict):
    """How often a failing step is tried again; times in seconds."""

    max: int = Field(0, ge=0, le=50)
    backoff: Literal["exponential", "linear", "fixed"] = "exponential"
    base: float = Field(1.0, gt=0, le=3_600)
    cap: float = Field(60.0, gt=0, le=86_400)


class StepDefinition(_Strict):
    """One step: what it uses, with what, after which others, and whether at all."""

    key: Key
    uses: str = Field(min_length=1, max_length=100)
    description: str = Field("", max_length=2_000)
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")
    needs: list[Key] = Field(default_factory=list, max_length=100)
    when: Expression | None = None
    retries: Retries = Field(default_factory=Retries)
    timeout: float | None = Field(None, gt=0, le=86_400)


class Definition(_Strict):
    """A whole workflow."""

    name: Slug
    description: str = Field("", max_length=10_000)
    inputs: dict[Key, InputSpec] = Field(default_factory=dict, max_length=100)
    steps: list[StepDefinition] = Field(min_length=1, max_length=500)
    timeout: float | None = Field(None, gt=0, le=30 * 86_400, description="Seconds for a whole run")


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow of a project with its newest version."""

    id: str
    name: str
    description: str
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class WorkflowVersion:
    """One immutable version of a workflow."""

    workflow_id: str
    version: int
    definition: Definition
    sha256: str
    created_at: datetime
    created_by: str
