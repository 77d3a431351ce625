"""The step `llm.rewrite`."""

from nexus.automation.texts import PartsOutputs, TextInputs, TextStep
from nexus.llm.tasks.rewrite import RewriteParameters


class RewriteInputs(TextInputs, RewriteParameters):
    """A text, and how it is to be said anew."""


class RewriteOutputs(PartsOutputs):
    """The new text."""

    style: str


plug = TextStep("rewrite", "Say a text anew: clearer, shorter, friendlier, corrected.", RewriteInputs, RewriteOutputs)
