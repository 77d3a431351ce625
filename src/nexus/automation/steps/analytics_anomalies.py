"""Find what is unusual in series or in the rows of a table."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from nexus.analytics.schemas import AnomalyOptions
from nexus.analytics.service import AnalyticsService
from nexus.automation.step import StepModel
from nexus.automation.tabular import DataInputs, source_of
from nexus.runs.types import StepContext

_MOST_SCORES = 10_000


class AnomaliesInputs(DataInputs, AnomalyOptions):
    """A table, and how to look at it."""

    shape: Literal["series", "table"] | None = Field(None, description="By the data if not given")


class AnomaliesOutputs(StepModel):
    """What is unusual; `scores` are left out where there are very many."""

    id: str
    model: str
    chosen: str = Field(description="The detector")
    threshold: float
    count: int
    anomalies: list[dict[str, Any]] = Field(description="index of the row, score, reason, and ds in series")
    scores: list[float] | None = None


class AnalyticsAnomalies:
    """The step `analytics.anomalies`."""

    uses = "analytics.anomalies"
    summary = "Find what is unusual in series or in the rows of a table, and say why."
    queue = "cpu"
    Inputs = AnomaliesInputs
    Outputs = AnomaliesOutputs

    async def run(self, context: StepContext, inputs: AnomaliesInputs) -> AnomaliesOutputs:
        """Look for anomalies in a compute child."""
        body = await context.services.get(AnalyticsService).find_anomalies(
            context.principal,
            await source_of(context, inputs),
            inputs.spec(inputs.shape),
            run_id=context.run_id,
            step_key=context.step_key,
        )
        context.log(f"{len(body['anomalies'])} of {len(body['scores'])} are unusual")
        return AnomaliesOutputs(
            id=body["id"],
            model=body["model"],
            chosen=body["chosen"],
            threshold=body["threshold"],
            count=len(body["anomalies"]),
            anomalies=body["anomalies"],
            scores=body["scores"] if len(body["scores"]) <= _MOST_SCORES else None,
        )


plug = AnalyticsAnomalies()
