"""Summaries. A text beyond the model's context is cut at paragraphs, its parts summarised, then their summaries."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from nexus.llm.task import Model, TaskResult, TextTask
from nexus.llm.types import Message, Text

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
    message = Message(role="user", parts=(Text(text=f"{ask}\n\nText:\n{text}"),))
    completion = await model.ask((message,), max_tokens=words * 2 + 16)
    return completion.text.strip()


def split(text: str, size: int) -> list[str]:
    """Cut `text` into pieces of at most `size` characters: at paragraphs, else sentences, else words, else anywhere."""
    text = text.strip()
    if len(text) <= size:
        return [text]
    for pattern in (r"\n\s*\n", r"(?<=[.!?。！？])\s+", r"\s+"):  # noqa: RUF001  full-width stops end sentences too
        units = [unit for unit in re.split(pattern, text) if unit.strip()]
        if len(units) > 1:
            joint = "\n\n" if pattern.startswith(r"\n") else " "
            return _pack(units, size, joint)
    return [text[start : start + size] for start in range(0, len(text), size)]


def _pack(units: list[str], size: int, joint: str) -> list[str]:
    pieces: list[str] = []
    held = ""
    for unit in units:
        if held and len(held) + len(joint) + len(unit) > size:
            pieces.append(held)
            held = ""
        if len(unit) > size:
            *whole, held = split(unit, size)
            pieces += whole
        else:
            held = f"{held}{joint}{unit}" if held else unit
    return [*pieces, held] if held else pieces


plug = Summarize()
