"""Summarise a text of any length."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from nexus.automation.step import StepModel
from nexus.llm.text import TextTasks
from nexus.runs.types import StepContext


class SummarizeInputs(StepModel):
    """A text, and how its summary should be."""

    text: str = Field(min_length=1, max_length=2_000_000)
    model: str | None = Field(None, max_length=200)
    style: str | None = None
    max_words: int | None = None
    language: str | None = None


class SummarizeOutputs(StepModel):
    """The summary; `parts` is into how many pieces a long text was cut."""

    text: str
    model: str
    parts: int
    cost_usd: float | None = None


class LlmSummarize:
    """The step `llm.summarize`."""

    uses = "llm.summarize"
    summary = "Summarise a text of any length."
    queue = "llm"
    Inputs = SummarizeInputs
    Outputs = SummarizeOutputs

    def target(self, inputs: dict[str, Any]) -> str | None:
        """Return the model that is asked."""
        model = inputs.get("model")
        return model if isinstance(model, str) else None

    async def run(self, context: StepContext, inputs: SummarizeInputs) -> SummarizeOutputs:
        """Summarise with the model, by map and reduce beyond its context."""
        given: dict[str, Any] = inputs.model_dump(exclude={"model"}, exclude_none=True)
        done = await context.services.get(TextTasks).run(
            context.principal,
            "summarize",
            given,
            model=inputs.model,
            run_id=context.run_id,
            step_key=context.step_key,
        )
        context.log(f"{done.model} summarised {len(inputs.text)} characters in {done.calls} calls")
        return SummarizeOutputs(
            text=done.result.text,
            model=done.model,
            parts=int(done.result.fields.get("parts", 1)),
            cost_usd=done.cost_usd,
        )


plug = LlmSummarize()
