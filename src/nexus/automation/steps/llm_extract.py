"""The step `llm.extract`."""

from typing import Any

from pydantic import Field

from nexus.automation.texts import TextInputs, TextOutputs, TextStep
from nexus.llm.tasks.extract import ExtractParameters


class ExtractInputs(TextInputs, ExtractParameters):
    """A text, and a JSON Schema of what to look for."""


class ExtractOutputs(TextOutputs):
    """What was found. It fits the schema; `text` is the same as JSON text."""

    data: Any
    repairs: int = Field(description="How often the model had to be asked again")


plug = TextStep("extract", "Read data out of a text, as JSON of a schema.", ExtractInputs, ExtractOutputs)
