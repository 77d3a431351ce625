"""Ask a trained model about rows: a few that come along, or a whole file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from nexus.analytics.service import AnalyticsService
from nexus.automation.data import formats
from nexus.automation.data.values import plain, write_records
from nexus.automation.data.workshop import ColumnOut, TableSource, Workshop, workshop
from nexus.automation.step import StepModel
from nexus.runs.types import StepContext

_AT_ONCE = 5_000


class PredictInputs(TableSource):
    """A model, and the rows it is asked about."""

    model: str = Field(min_length=1, max_length=200)
    alias: str | None = Field(None, min_length=1, max_length=63, description="`champion` without it")
    version: int | None = Field(None, ge=1)
    name: str = Field("predictions.parquet", min_length=1, max_length=200, description="Name of the file that is made")

    @model_validator(mode="after")
    def _not_both(self) -> PredictInputs:
        if self.alias is not None and self.version is not None:
            raise ValueError("give an alias or a version, not both")
        return self


class PredictOutputs(StepModel):
    """The answers: in order for rows that came along; for a file, a new one with the columns of the answer added."""

    model: str
    version: int
    rows: int
    predictions: list[dict[str, Any]] = Field(default_factory=list, description="For rows that came along")
    file_id: str | None = None
    columns: list[ColumnOut] = Field(default_factory=list)
    preview: list[dict[str, Any]] = Field(default_factory=list)


class AnalyticsPredict:
    """The step `analytics.predict`."""

    uses = "analytics.predict"
    summary = "Ask a trained model about rows or a whole file."
    queue = "cpu"
    Inputs = PredictInputs
    Outputs = PredictOutputs

    async def run(self, context: StepContext, inputs: PredictInputs) -> PredictOutputs:
        """Predict in a compute child, a file in pieces."""
        if inputs.rows is not None:
            body = await _asked(context, inputs, inputs.rows, inputs.version)
            return PredictOutputs(
                model=body["model"], version=body["version"], rows=len(inputs.rows), predictions=body["predictions"]
            )
        async with workshop(context, 600) as bench:
            return await _whole(bench, inputs)


async def _asked(
    context: StepContext, inputs: PredictInputs, rows: list[dict[str, Any]], version: int | None
) -> dict[str, Any]:
    return await context.services.get(AnalyticsService).predict(
        context.principal,
        inputs.model,
        rows,
        alias=None if version is not None else inputs.alias,
        version=version,
        run_id=context.run_id,
        step_key=context.step_key,
    )


async def _whole(bench: Workshop, inputs: PredictInputs) -> PredictOutputs:
    table = await bench.table(TableSource(file_id=inputs.file_id))
    total = await bench.run(formats.rows_of, table)
    parts: list[Path] = []
    names: dict[str, None] = {}
    version = inputs.version
    for offset in range(0, total, _AT_ONCE):
        rows = await bench.run(formats.read_rows, table, offset, _AT_ONCE)
        body = await _asked(bench.context, inputs, [plain(row) for row in rows], version)
        # A version that is promoted meanwhile does not answer half of a file.
        version = body["version"]
        records = [row | _columns(answer) for row, answer in zip(rows, body["predictions"], strict=True)]
        names |= dict.fromkeys(records[0])
        parts.append(bench.place())
        await bench.run(write_records, records, list(names), parts[-1])
        bench.context.progress(offset + len(rows), total, "rows")
    made = bench.place()
    await bench.run(*((formats.merged, parts, list(names), made) if parts else (formats.empty, ["prediction"], made)))
    told = await bench.told(made, inputs.name)
    return PredictOutputs(
        model=inputs.model,
        version=version or 0,
        rows=told.rows,
        file_id=told.file_id,
        columns=told.columns,
        preview=told.preview,
    )


def _columns(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer as columns: `prediction`, and how sure or how wide."""
    if "label" in answer:
        return {"prediction": answer["label"], "probability": max(answer["probabilities"].values())}
    return {"prediction": answer["value"], **{name: value for name, value in answer.items() if name != "value"}}


plug = AnalyticsPredict()
