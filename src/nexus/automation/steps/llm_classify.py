"""The step `llm.classify`."""

from pydantic import Field

from nexus.automation.texts import TextInputs, TextOutputs, TextStep
from nexus.llm.tasks.classify import ClassifyParameters


class ClassifyInputs(TextInputs, ClassifyParameters):
    """A text, and the labels to choose from."""


class ClassifyOutputs(TextOutputs):
    """The labels that fit; `label` is the first of them, null for none."""

    label: str | None
    labels: list[str]
    repairs: int = Field(description="How often the model had to be asked again")
    truncated: bool = Field(False, description="Whether only the beginning of a long text was read")


plug = TextStep("classify", "Sort a text under labels.", ClassifyInputs, ClassifyOutputs)
