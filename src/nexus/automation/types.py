"""What a workflow definition says. The models are the published JSON Schema of `/api/v1/workflows`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Key = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Expression = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
ErrorName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
InputType = Literal["string", "number", "integer", "boolean", "file", "url", "list", "object", "any"]

_EXAMPLE: dict[str, Any] = {
    "name": "receipts-to-notes",
    "description": "Read receipts, sum each one up, tell another system.",
    "inputs": {"images": {"type": "list", "description": "Ids of uploaded files"}, "hook": {"type": "url"}},
    "steps": [
        {
            "key": "read",
            "uses": "vision.ocr",
            "map": "{{ inputs.images }}",
            "max_parallel": 4,
            "with": {"image": "{{ item }}"},
            "retries": {"max": 3, "backoff": "exponential"},
            "timeout": 60,
        },
        {
            "key": "note",
            "uses": "llm.summarize",
            "with": {"text": "{{ join(pluck(steps.read.output, 'text')) }}"},
            "when": "len(steps.read.output) > 0",
        },
        {
            "key": "tell",
            "uses": "http.request",
            "with": {"method": "POST", "url": "{{ inputs.hook }}", "json": {"note": "{{ steps.note.output.text }}"}},
        },
    ],
    "on_failure": [
        {
            "key": "warn",
            "uses": "http.request",
            "with": {"method": "POST", "url": "{{ inputs.hook }}", "json": {"error": "{{ failure.message }}"}},
        }
    ],
    "outputs": {"note": "{{ steps.note.output.text }}"},
    "timeout": 3600,
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, strict=True)


class InputSpec(_Strict):
    """One input of a workflow: its type, and whether and how it may be left out."""

    type: InputType = Field("any", description="What may be given. A file is the id of an upload.")
    description: str = Field("", max_length=2_000, description="A sentence for people.")
    optional: bool = Field(False, description="May be left out; it is null then.")
    default: Any = Field(None, description="What it is when it is left out.")
    enum: list[Any] | None = Field(None, min_length=1, max_length=1_000, description="The only values there are.")
    minimum: float | None = Field(None, description="The smallest number.")
    maximum: float | None = Field(None, description="The largest number.")
    max_length: int | None = Field(None, ge=0, description="The most letters of a text, or items of a list.")


class Retries(_Strict):
    """How often a failing step is tried again; times in seconds, each spread by a half to one and a half."""

    max: int = Field(0, ge=0, le=50, description="Attempts after the first. A crash of an engine is not one.")
    backoff: Literal["exponential", "linear", "fixed"] = Field("exponential", description="How the rests grow.")
    base: float = Field(1.0, gt=0, le=3_600, description="The first rest.")
    cap: float = Field(60.0, gt=0, le=86_400, description="The longest rest; a Retry-After may be longer.")
    on: list[ErrorName] | None = Field(
        None,
        min_length=1,
        max_length=50,
        description="Which errors are tried again: codes, or timeout, rate_limited, unavailable, internal, "
        "invalid, any. Without it those that are known to pass.",
        examples=[["timeout", "rate_limited", "request_failed"]],
    )
    never: list[ErrorName] = Field(
        default_factory=list, max_length=50, description="Which errors are never tried again, whatever `on` says."
    )


class StepDefinition(_Strict):
    """One step: what it uses, with what, after which others, and whether at all."""

    key: Key = Field(description="Its name in this workflow.", examples=["read"])
    uses: str = Field(
        min_length=1, max_length=100, description="What it does; see /api/v1/steps.", examples=["vision.ocr"]
    )
    description: str = Field("", max_length=2_000, description="A sentence for people.")
    with_: dict[str, Any] = Field(
        default_factory=dict,
        alias="with",
        description="Its inputs, templates among them. They know inputs, steps.<key>.output, steps.<key>.status, "
        "run and secrets; under `map` also item and index; in `on_failure` also failure.",
        examples=[{"image": "{{ inputs.image }}"}],
    )
    needs: list[Key] = Field(
        default_factory=list,
        max_length=100,
        description="Steps that come before. Those whose outputs the templates name need not be listed.",
    )
    when: Expression | None = Field(
        None, description="The step is skipped unless this holds.", examples=["len(steps.read.output.text) > 20"]
    )
    map: str | list[Any] | None = Field(
        None,
        description="Do it for each item of a list, 10,000 at most. The output is the list of outputs, in order.",
        examples=["{{ inputs.images }}"],
    )
    max_parallel: int | None = Field(None, ge=1, le=10_000, description="The most items at once.")
    retries: Retries = Field(default_factory=Retries)
    fallback: dict[str, Any] | None = Field(
        None,
        description="Inputs that replace those of the same name in the last attempt, and while the other side of "
        "the first choice is known to be away.",
        examples=[{"model": "claude-sonnet"}],
    )
    timeout: float | None = Field(None, gt=0, le=86_400, description="Seconds for one attempt.")
    concurrency: int | None = Field(
        None, ge=1, le=10_000, description="The most of this step at once, in all runs of the workflow together."
    )
    continue_: bool = Field(
        False,
        alias="continue",
        description="The run goes on when the step fails, with a null output; under `map`, without the failed items.",
    )


class Definition(_Strict):
    """A whole workflow."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]}, title="Workflow")

    name: Slug = Field(description="Its name in the project. Another definition of the name is its next version.")
    description: str = Field("", max_length=10_000, description="What it is for.")
    inputs: dict[Key, InputSpec] = Field(default_factory=dict, max_length=100, description="What a run is given.")
    steps: list[StepDefinition] = Field(min_length=1, max_length=500, description="In any order.")
    on_failure: list[StepDefinition] = Field(
        default_factory=list,
        max_length=50,
        description="Steps for when the run has failed or run out of time, with failure.code, failure.message and "
        "failure.step in their templates. The run stays failed.",
    )
    outputs: dict[Key, Any] | None = Field(
        None,
        max_length=100,
        description="The result of a run, as templates. Without it, the output of its last step.",
        examples=[{"note": "{{ steps.note.output.text }}"}],
    )
    timeout: float | None = Field(None, gt=0, le=30 * 86_400, description="Seconds for a whole run")
    concurrency: int | None = Field(None, ge=1, le=10_000, description="The most runs at once; the others queue.")
    priority: int = Field(0, ge=-100, le=100, description="Runs of a higher priority go first in their project.")


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
