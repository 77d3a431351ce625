"""Keep a result as a file of the project."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import Field

from nexus.automation.step import StepModel
from nexus.files.service import FileService
from nexus.runs.types import StepContext


class FileWriteInputs(StepModel):
    """What to keep: text as it is, anything else as JSON."""

    name: str = Field(min_length=1, max_length=200)
    content: Any
    content_type: str | None = Field(None, max_length=100)


class FileWriteOutputs(StepModel):
    """Where it lies."""

    file_id: str
    size: int = Field(description="Bytes")
    sha256: str


class FileWrite:
    """The step `file.write`."""

    uses = "file.write"
    summary = "Keep a text or JSON result as a file."
    queue = "default"
    Inputs = FileWriteInputs
    Outputs = FileWriteOutputs

    async def run(self, context: StepContext, inputs: FileWriteInputs) -> FileWriteOutputs:
        """Store the content. The same content of a repeated attempt is the same blob."""
        is_text = isinstance(inputs.content, str)
        content = inputs.content.encode() if is_text else orjson.dumps(inputs.content, option=orjson.OPT_INDENT_2)
        content_type = inputs.content_type or ("text/plain; charset=utf-8" if is_text else "application/json")
        file = await context.services.get(FileService).add(
            context.principal, content, filename=inputs.name, content_type=content_type, purpose="workflow"
        )
        context.artifact(file.id, inputs.name, file.size, content_type)
        context.log(f"kept {file.size} bytes as {file.id}")
        return FileWriteOutputs(file_id=file.id, size=file.size, sha256=file.sha256)


plug = FileWrite()
