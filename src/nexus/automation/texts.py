"""The steps of text tasks: one class, one file in `steps/` for each task.

The inputs of a step are those of its task and the model that does it; a null is as if it were left out, so
that a template may hand an optional input of the workflow on.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from nexus.automation.step import StepModel
from nexus.llm.text import TextTasks
from nexus.runs.types import StepContext


class TextInputs(StepModel):
    """What every text task takes beside its own parameters."""

    model: str | None = Field(None, min_length=1, max_length=200, description="The default chat model without it")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given


class TextOutputs(StepModel):
    """What every text task gives: its text, who made it, and what it used. `cost_usd` is null without a price."""

    text: str
    model: str
    calls: int = Field(description="How often the model was asked")
    input_tokens: int
    output_tokens: int
    cost_usd: float | None = None


class PartsOutputs(TextOutputs):
    """A text that was made part by part; `parts` is into how many pieces a long one was cut."""

    parts: int


class TextStep:
    """The step `llm.<task>`."""

    queue = "llm"

    def __init__(self, task: str, summary: str, inputs: type[TextInputs], outputs: type[TextOutputs]) -> None:
        """Stand for one task of `nexus.llm.tasks`; `inputs` has the fields of its parameters too."""
        self.task = task
        self.uses = f"llm.{task}"
        self.summary = summary
        self.Inputs = inputs
        self.Outputs = outputs

    def target(self, inputs: dict[str, Any]) -> str | None:
        """Return the model that is asked."""
        model = inputs.get("model")
        return model if isinstance(model, str) else None

    async def run(self, context: StepContext, inputs: TextInputs) -> TextOutputs:
        """Do the task. What the task says beside its text becomes the outputs of the same names."""
        done = await context.services.get(TextTasks).run(
            context.principal,
            self.task,
            inputs.model_dump(exclude={"model"}, exclude_unset=True, by_alias=True),
            model=inputs.model,
            run_id=context.run_id,
            step_key=context.step_key,
        )
        context.log(f"{done.model} did {self.task} in {done.calls} calls")
        told = {name: value for name, value in done.result.fields.items() if name in self.Outputs.model_fields}
        return self.Outputs(
            text=done.result.text,
            model=done.model,
            calls=done.calls,
            input_tokens=done.usage.input_tokens,
            output_tokens=done.usage.output_tokens,
            cost_usd=done.cost_usd,
            **told,
        )
