"""Where the steps of analytics find their data: a file, a data set, or rows that came along."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from nexus.analytics.types import Source
from nexus.automation.step import StepModel
from nexus.files.service import FileService
from nexus.runs.types import StepContext

MOST_ROWS = 10_000


class DataInputs(StepModel):
    """Exactly one of a file (CSV or Parquet), a data set, and rows."""

    file_id: str | None = Field(None, max_length=40)
    dataset_id: str | None = Field(None, max_length=40)
    rows: list[dict[str, Any]] | None = Field(None, min_length=1, max_length=MOST_ROWS)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _one_source(self) -> DataInputs:
        if sum(one is not None for one in (self.file_id, self.dataset_id, self.rows)) != 1:
            raise ValueError("give exactly one of file_id, dataset_id and rows")
        return self


async def source_of(context: StepContext, inputs: DataInputs) -> Source | str:
    """Return what the analytics service reads. Raises `FileNotFound`."""
    if inputs.dataset_id is not None:
        return inputs.dataset_id
    if inputs.rows is not None:
        return Source(rows=inputs.rows)
    return Source(path=await context.services.get(FileService).path(context.principal, str(inputs.file_id)))
