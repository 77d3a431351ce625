"""Background work of this slice: the step `analytics.train`."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from nexus.analytics.schemas import TrainingIn
from nexus.analytics.service import TRAIN, AnalyticsService
from nexus.http.handlers import issues_of
from nexus.http.problem import ValidationFailed
from nexus.runs.types import Handler, StepContext


async def train(context: StepContext, inputs: dict[str, Any]) -> dict[str, Any]:
    """Train a model on a data set (`TrainingIn`); the output names the version and its scores."""
    try:
        wanted = TrainingIn.model_validate(inputs)
    except ValidationError as error:
        raise ValidationFailed(issues_of(error.errors())) from None
    context.log(f"training {wanted.name} to tell {wanted.target} by {wanted.predictor}")
    result = await context.services.get(AnalyticsService).train_now(
        context.principal,
        wanted.dataset_id,
        wanted.name,
        wanted.spec(),
        run_id=context.run_id,
        step_key=context.step_key,
    )
    context.log(f"kept as version {result['version']}: {result['metrics']}, the baseline has {result['baseline']}")
    return result


HANDLERS: dict[str, Handler] = {TRAIN: train}
