"""The contract of a step plug: one file in `steps/`, one thing that a workflow can do.

    class Shout:
        uses = "text.shout"
        summary = "Write a text in capitals."
        Inputs, Outputs = ShoutInputs, ShoutOutputs
        queue = "default"

        async def run(self, context: StepContext, inputs: ShoutInputs) -> ShoutOutputs: ...

    plug = Shout()

`Inputs` and `Outputs` are pydantic models; what they say is published and checked. A plug that
acts on the outside sends `context.idempotency_key` along. Raise a `NexusError`; one that is
`retryable` is tried again as the step's `retries` allow.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, ValidationError

from nexus.automation.errors import InputsInvalid
from nexus.core.plugins import PluginFolder
from nexus.runs.types import Handler, StepContext


class StepModel(BaseModel):
    """The base of every step's inputs and outputs: nothing unknown is taken."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


@runtime_checkable
class StepPlug(Protocol):
    """One kind of step."""

    uses: ClassVar[str]
    summary: ClassVar[str]
    queue: ClassVar[str]
    Inputs: ClassVar[type[StepModel]]
    Outputs: ClassVar[type[StepModel]]

    async def run(self, context: StepContext, inputs: Any) -> StepModel:
        """Do it and return the output."""
        ...


STEPS: PluginFolder[StepPlug] = PluginFolder("nexus.automation.steps", StepPlug, noun="step", dotted=True)  # type: ignore[type-abstract]


def handler_of(plug: StepPlug) -> Handler:
    """Return what the engine calls: inputs checked before, output turned into JSON data after."""

    async def handle(context: StepContext, inputs: dict[str, Any]) -> dict[str, Any]:
        output = await plug.run(context, checked_inputs(plug, inputs))
        return output.model_dump(mode="json", by_alias=True)

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
