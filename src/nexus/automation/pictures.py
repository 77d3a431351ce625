"""The steps of vision: one class, one file in `steps/` for each task."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import ConfigDict, Field

from nexus.automation.step import StepModel
from nexus.files.service import FileService
from nexus.runs.types import StepContext
from nexus.vision.service import Trace, VisionService


class VisionInputs(StepModel):
    """A picture and what to do with it; further fields are the task's own parameters."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    image: str = Field(description="The id of an uploaded file")
    model: str | None = None


class VisionOutputs(StepModel):
    """The answer in the shape of `POST /api/v1/vision/{task}`; `text` is empty for tasks that read none."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    model: str
    version: int
    results: list[dict[str, Any]]
    text: str = ""


class VisionStep:
    """The step `vision.<task>`."""

    queue = "cpu"
    Inputs = VisionInputs
    Outputs = VisionOutputs

    def __init__(self, task: str, summary: str) -> None:
        """Stand for one task of `nexus.vision.tasks`."""
        self.task = task
        self.uses = f"vision.{task}"
        self.summary = summary

    async def run(self, context: StepContext, inputs: VisionInputs) -> VisionOutputs:
        """Run the task on the file's picture."""
        image = await context.services.get(FileService).read(context.principal, inputs.image)
        given = inputs.model_dump(exclude={"image"}, exclude_none=True)
        trace = Trace(run_id=context.run_id, step_key=context.step_key)
        result = await context.services.get(VisionService).run(context.principal, self.task, image, given, trace)
        context.log(f"{len(result.results)} results by {result.model}")
        data = msgspec.to_builtins(result)
        return VisionOutputs.model_validate({**data, "text": data.get("text") or ""})
