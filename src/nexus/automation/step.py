"""The contract of a step plug: one file in `steps/`, one thing that a workflow can do.

    class Shout:
        uses = "text.shout"
        summary = "Write a text in capitals."
        Inputs, Outputs = ShoutInputs, ShoutOutputs
        queue = "default"

        async def run(self, context: StepContext, inputs: ShoutInputs) -> ShoutOutputs: ...

    plug = Shout()

`Inputs` and `Outputs` are pydantic models; what they say is published and checked. A plug that
acts on the outside sends `context.idempotency_key` along and notes files with `context.artifact`. Raise a
`NexusError`; one that is `retryable` is tried again as the step's `retries` allow. Raise `Parked` to wait.

A plug may have two methods more. `target(inputs: dict) -> str | None` names whom it will call, given its rendered
inputs: one that keeps failing is left alone for a while (`runs/breaker.py`). `targets(with_: dict)` yields
`(path below with, key)` for each step that a branch may take: it is skipped unless `output.taken` has its key.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from nexus.core.plugins import PluginFolder
from nexus.runs.types import StepContext


class StepModel(BaseModel):
    """The base of every step's inputs and outputs: nothing unknown is taken."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


@runtime_checkable
class StepPlug(Protocol):
    """One kind of step."""

    @property
    def uses(self) -> str:
        """Return the name that definitions use."""
        ...

    @property
    def summary(self) -> str:
        """Return one sentence for people."""
        ...

    @property
    def queue(self) -> str:
        """Return the queue of engines that executes it: default, llm, cpu or gpu."""
        ...

    @property
    def Inputs(self) -> type[StepModel]:  # noqa: N802  it is a class
        """Return the model of what it takes."""
        ...

    @property
    def Outputs(self) -> type[StepModel]:  # noqa: N802  it is a class
        """Return the model of what it gives."""
        ...

    async def run(self, context: StepContext, inputs: Any) -> StepModel:
        """Do it and return the output."""
        ...


STEPS: PluginFolder[StepPlug] = PluginFolder("nexus.automation.steps", StepPlug, noun="step", dotted=True)  # type: ignore[type-abstract]
