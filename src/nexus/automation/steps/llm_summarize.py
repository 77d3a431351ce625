"""The step `llm.summarize`."""

from nexus.automation.texts import PartsOutputs, TextInputs, TextStep
from nexus.llm.tasks.summarize import SummarizeParameters


class SummarizeInputs(TextInputs, SummarizeParameters):
    """A text, and how its summary should be."""


plug = TextStep("summarize", "Summarise a text of any length.", SummarizeInputs, PartsOutputs)
