"""Run another workflow and take its result.

    - {key: pay, uses: workflow, with: {name: pay-invoice, inputs: {amount: "{{ inputs.amount }}"}}}

The step holds no worker while it waits. Cancelling or pausing the run does the same to the child run; its failure
is the step's.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from nexus.automation.errors import ChildFailed, InputsInvalid, NestedTooDeep
from nexus.automation.service import AutomationService
from nexus.automation.step import StepModel
from nexus.runs.service import RunService
from nexus.runs.types import Parent, Parked, Run, RunStatus, StepContext

DEEPEST = 10


class WorkflowInputs(StepModel):
    """Which workflow, by name or id, and what it is given."""

    name: str = Field(min_length=1, max_length=100)
    inputs: dict[str, Any] = Field(default_factory=dict)
    version: int | None = Field(None, ge=1, le=2**31 - 1, description="The newest without it")


class WorkflowOutputs(StepModel):
    """How it ended."""

    run_id: str
    version: int | None
    result: Any


class WorkflowStep:
    """The step `workflow`."""

    uses = "workflow"
    summary = "Run another workflow and take its result."
    queue = "default"
    Inputs = WorkflowInputs
    Outputs = WorkflowOutputs

    async def run(self, context: StepContext, inputs: WorkflowInputs) -> WorkflowOutputs:
        """Start the child run, or find it when it was started before, and wait for its end."""
        run = await self._child(context, inputs)
        if not run.status.final:
            # The end of the child run wakes this step; what is missed while it parks is not lost.
            raise Parked(state={"run_id": run.id})
        if run.status is not RunStatus.SUCCEEDED:
            said = run.error.message if run.error else f"it was {run.status}"
            raise ChildFailed(f"The run {run.id} of {run.name} did not succeed: {said}")
        return WorkflowOutputs(run_id=run.id, version=run.version, result=run.result)

    async def _child(self, context: StepContext, inputs: WorkflowInputs) -> Run:
        if context.state and context.state.get("run_id"):
            return await context.services.get(RunService).get(context.principal, context.state["run_id"])
        if context.depth >= DEEPEST:
            raise NestedTooDeep(f"Workflows nest at most {DEEPEST} levels.", field="uses")
        if context.hide(inputs.inputs) != inputs.inputs:
            # The inputs of a run are kept and shown.
            raise InputsInvalid("A secret is no input of a run; name it as secrets.NAME there.", field="inputs")
        run = await context.services.get(AutomationService).start(
            context.principal,
            inputs.name,
            inputs.inputs,
            version=inputs.version,
            idempotency_key=f"{context.idempotency_key}.{context.round}",
            trigger={"type": "workflow", "run_id": context.run_id, "step": context.step_key},
            parent=Parent(context.run_id, context.step_id, context.depth + 1),
        )
        context.log(f"waits for {run.id}")
        return run


plug = WorkflowStep()
