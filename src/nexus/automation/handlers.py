"""From a step plug to what the engine calls: inputs checked before, output turned into JSON data after."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from nexus.automation.errors import InputsInvalid
from nexus.automation.step import STEPS, StepModel, StepPlug
from nexus.runs.types import Handler, StepContext


def handler_of(plug: StepPlug) -> Handler:
    """Return the handler of a plug."""

    async def handle(context: StepContext, inputs: dict[str, Any]) -> dict[str, Any]:
        output = await plug.run(context, checked_inputs(plug, inputs))
        return output.model_dump(mode="json", by_alias=True)

    target = getattr(plug, "target", None)
    if target is not None:
        handle.target = target  # type: ignore[attr-defined]  # read by the executor, see `runs.types.Handler`
    return handle


def checked_inputs(plug: StepPlug, inputs: dict[str, Any]) -> StepModel:
    """Return the step's inputs as its model. Raises `InputsInvalid` naming the first that does not fit."""
    try:
        return plug.Inputs.model_validate(inputs)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(["with", *(str(part) for part in first["loc"])])
        raise InputsInvalid(f"{field}: {first['msg']}.", field=field) from None


def step_handlers() -> dict[str, Handler]:
    """Return the handler of every step plug by its `uses`."""
    return {name: handler_of(plug) for name, plug in STEPS.all().items()}
