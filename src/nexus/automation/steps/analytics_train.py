"""Train a model on a table and keep it as the next version of its name.

The plug takes over the job of the same name (`analytics/jobs.py`), which training runs of the API are made of.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from nexus.analytics.dataset_service import DatasetService
from nexus.analytics.jobs import train
from nexus.analytics.schemas import ColumnName, Method, ModelName
from nexus.analytics.types import Task
from nexus.automation.data.values import plain
from nexus.automation.data.workshop import TableSource, workshop
from nexus.automation.step import StepModel
from nexus.automation.tabular import DataInputs
from nexus.files.service import FileService
from nexus.runs.types import StepContext


class TrainInputs(DataInputs):
    """A table, and what is to be learned from it. A file or rows become a data set first."""

    name: ModelName = Field(description="Name of the model; a further training makes its next version")
    target: ColumnName = Field(description="Column to learn")
    task: Task | None = Field(None, description="By the target if not given")
    predictor: Method = "lightgbm"
    features: list[ColumnName] | None = Field(None, min_length=1, max_length=2000, description="All if not given")
    seed: int = Field(0, ge=0, le=2**31 - 1)


class TrainOutputs(StepModel):
    """The version that was kept, and how good it is beside the baseline."""

    model: str
    version: int
    task: str
    metrics: dict[str, float]
    baseline: dict[str, float]
    features: list[dict[str, Any]]
    ignored: dict[str, str]
    rows: int
    dataset_id: str


class AnalyticsTrain:
    """The step `analytics.train`."""

    uses = "analytics.train"
    summary = "Train a model on a table and keep it as the next version of its name."
    queue = "cpu"
    Inputs = TrainInputs
    Outputs = TrainOutputs

    async def run(self, context: StepContext, inputs: TrainInputs) -> TrainOutputs:
        """Train in a compute child. A second attempt finds what the first one kept."""
        dataset_id = inputs.dataset_id or await _dataset(context, inputs)
        asked = inputs.model_dump(exclude={"file_id", "rows", "dataset_id"}, exclude_none=True)
        result = await train(context, {**asked, "dataset_id": dataset_id})
        return TrainOutputs(**result, dataset_id=dataset_id)


async def _dataset(context: StepContext, inputs: TrainInputs) -> str:
    """Keep the table as a data set, once for all attempts."""
    if context.state and context.state.get("dataset_id"):
        return str(context.state["dataset_id"])
    async with workshop(context, 600) as bench:
        if inputs.file_id is not None:
            file = await context.services.get(FileService).get(context.principal, inputs.file_id)
            path, filename = await bench.path(inputs.file_id), file.filename
        else:
            rows = [plain(row) for row in inputs.rows or []]
            path, filename = await bench.table(TableSource(rows=rows)), "rows.parquet"
        dataset = await context.services.get(DatasetService).add(
            context.principal, bench.pieces(path), filename=filename, name=inputs.name
        )
    await context.save({"dataset_id": dataset.id})
    return dataset.id


plug = AnalyticsTrain()
