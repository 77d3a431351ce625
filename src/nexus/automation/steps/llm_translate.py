"""The step `llm.translate`."""

from nexus.automation.texts import PartsOutputs, TextInputs, TextStep
from nexus.llm.tasks.translate import TranslateParameters


class TranslateInputs(TextInputs, TranslateParameters):
    """A text, the language it is wanted in, and words that are to be translated in one way."""


class TranslateOutputs(PartsOutputs):
    """The translation."""

    target: str


plug = TextStep("translate", "Translate a text of any length, with a glossary.", TranslateInputs, TranslateOutputs)
