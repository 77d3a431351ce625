"""Summaries. A text beyond the model's context is cut at paragraphs, its parts summarised, then their summaries."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from nexus.llm.splitting import split
from nexus.llm.task import Model, TaskResult, TextTask, asking

_STYLES = {
    "paragraph": "as one short paragraph",
    "bullets": "as a short list of bullet points",
    "headline": "as one headline",
}
_ROUNDS = 6
_MOST_PARTS = 256


class SummarizeParameters(BaseModel):
    """What may be asked of a summary."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(min_length=1, max_length=2_000_000)
    style: Literal["paragraph", "bullets", "headline"] = "paragraph"
    max_words: int = Field(80, ge=5, le=1000)
    language: str | None = Field(None, min_length=2, max_length=40, pattern=r"^[\w -]+$")


class Summarize(TextTask[SummarizeParameters]):
    """The `summarize` task."""

    summary = "Summarise a text of any length."
    parameters = SummarizeParameters

    async def run(self, model: Model, given: SummarizeParameters) -> TaskResult:
        """Summarise; `parts` says into how many pieces the text had to be cut."""
        room = model.input_characters
        parts = split(given.text, room)[:_MOST_PARTS]
        count = len(parts)
        for _ in range(_ROUNDS):
            if len(parts) == 1:
                break
            # Each part gets room in proportion, so that one round is enough for most texts.
            words = max(15, min(60, room // (len(parts) * 8)))
            shorter = [await _summary(model, part, "as one short paragraph", words, None) for part in parts]
            parts = split("\n\n".join(shorter), room)
        text = await _summary(model, parts[0], _STYLES[given.style], given.max_words, given.language)
        return TaskResult(text=text, fields={"parts": count})


async def _summary(model: Model, text: str, style: str, words: int, language: str | None) -> str:
    ask = f"Summarize the following text {style}, in at most {words} words"
    ask += f", in {language}." if language else ", in the language of the text."
    ask += " Use only what the text says. Reply with the summary only."
    completion = await model.ask(asking(f"{ask}\n\nText:\n{text}"), max_tokens=words * 2 + 16)
    return completion.text.strip()


plug = Summarize()
