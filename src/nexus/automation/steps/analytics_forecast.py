"""Forecast the series of a table."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from nexus.analytics.schemas import ForecastOptions
from nexus.analytics.service import AnalyticsService
from nexus.automation.step import StepModel
from nexus.automation.tabular import DataInputs, source_of
from nexus.runs.types import StepContext


class ForecastInputs(DataInputs, ForecastOptions):
    """A table of series, and how far they are to be continued."""


class ForecastOutputs(StepModel):
    """The forecast, in the shape of `POST /api/v1/forecasts`."""

    id: str
    model: str
    chosen: dict[str, str] = Field(description="The forecaster of each series")
    frequency: str
    season: int
    series: list[dict[str, Any]] = Field(description="unique_id, ds, forecast and the bounds of each interval")
    backtest: dict[str, Any] | None = None


class AnalyticsForecast:
    """The step `analytics.forecast`."""

    uses = "analytics.forecast"
    summary = "Forecast the series of a table, with intervals and a back-test."
    queue = "cpu"
    Inputs = ForecastInputs
    Outputs = ForecastOutputs

    async def run(self, context: StepContext, inputs: ForecastInputs) -> ForecastOutputs:
        """Forecast in a compute child."""
        body = await context.services.get(AnalyticsService).forecast(
            context.principal,
            await source_of(context, inputs),
            inputs.spec(),
            run_id=context.run_id,
            step_key=context.step_key,
        )
        context.log(f"{len(body['series'])} series, {inputs.horizon} steps ahead")
        return ForecastOutputs(**body)


plug = AnalyticsForecast()
