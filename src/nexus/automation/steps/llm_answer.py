"""The step `llm.answer`."""

from pydantic import Field

from nexus.automation.step import StepModel
from nexus.automation.texts import TextInputs, TextOutputs, TextStep
from nexus.llm.tasks.answer import AnswerParameters


class AnswerInputs(TextInputs, AnswerParameters):
    """A question, and the texts to answer it from."""


class CitedPassage(StepModel):
    """A passage that the answer cites: its number, and the caller's own name for it."""

    number: int
    id: str | None = None


class AnswerOutputs(TextOutputs):
    """The answer; `found` is false when the passages do not say."""

    found: bool
    sources: list[CitedPassage] = Field(description="The passages that the answer cites")


plug = TextStep("answer", "Answer a question from given passages, and say which ones.", AnswerInputs, AnswerOutputs)
