"""Turn texts into vectors: a few that come along, or a column of a table."""

from __future__ import annotations

import struct
from typing import Any

from pydantic import Field, model_validator

from nexus.automation.data import formats
from nexus.automation.data.values import write_records
from nexus.automation.data.workshop import TableSource, Workshop, workshop
from nexus.automation.errors import DataUnreadable
from nexus.automation.step import StepModel
from nexus.llm.service import LLMService
from nexus.llm.types import EmbeddingRequest
from nexus.runs.types import StepContext

_AT_ONCE = 64
_MOST_INLINE = 1_000
_MOST_ROWS = 1_000_000
_PART = 2_048


class EmbedInputs(StepModel):
    """Texts, or the text column of a table. The vectors of a table go into a file, those of texts if it has a name."""

    model: str = Field("minilm-l6-v2", min_length=1, max_length=200)
    texts: str | list[str] | None = Field(None, min_length=1, max_length=_MOST_INLINE * 1_000)
    file_id: str | None = Field(None, max_length=40)
    column: str | None = Field(None, min_length=1, max_length=1_024, description="The texts of the table")
    dimensions: int | None = Field(None, ge=1, description="Where the model can choose")
    name: str | None = Field(None, min_length=1, max_length=200, description="Write a Parquet file of this name")

    @model_validator(mode="after")
    def _one_source(self) -> EmbedInputs:
        if (self.texts is None) == (self.file_id is None):
            raise ValueError("give either texts or file_id")
        if (self.file_id is None) != (self.column is None):
            raise ValueError("column goes with file_id")
        if isinstance(self.texts, list) and len(self.texts) > _MOST_INLINE:
            raise ValueError(f"at most {_MOST_INLINE} texts come along; more are a file")
        return self


class EmbedOutputs(StepModel):
    """The vectors in order, or the file that holds them in the column `vector` beside what was there."""

    model: str
    dimensions: int
    count: int
    vectors: list[list[float]] | None = None
    file_id: str | None = None
    input_tokens: int
    cost_usd: float | None = None


class LlmEmbed:
    """The step `llm.embed`."""

    uses = "llm.embed"
    summary = "Turn texts, or the text column of a table, into vectors."
    queue = "llm"
    Inputs = EmbedInputs
    Outputs = EmbedOutputs

    def target(self, inputs: dict[str, Any]) -> str | None:
        """Return the model that is asked."""
        model = inputs.get("model")
        return model if isinstance(model, str) else None

    async def run(self, context: StepContext, inputs: EmbedInputs) -> EmbedOutputs:
        """Embed in batches. Of a table, finished parts are kept, so that a later attempt pays for the rest only."""
        asked = _Asked(context, inputs)
        if inputs.texts is not None:
            texts = [inputs.texts] if isinstance(inputs.texts, str) else inputs.texts
            vectors = await asked.vectors(texts)
            if inputs.name is None:
                return asked.told(len(texts), vectors=vectors)
            async with workshop(context, 600) as bench:
                made = bench.place()
                records = [{"text": text, "vector": vector} for text, vector in zip(texts, vectors, strict=True)]
                await bench.run(write_records, records, ["text", "vector"], made)
                return asked.told(len(texts), file_id=await bench.keep(made, inputs.name))
        async with workshop(context, 600) as bench:
            return await _table(bench, inputs, asked)


async def _table(bench: Workshop, inputs: EmbedInputs, asked: _Asked) -> EmbedOutputs:
    table = await bench.table(TableSource(file_id=inputs.file_id), most=_MOST_ROWS)
    described = await bench.run(formats.describe, table)
    names, column = [name for name, _ in described.columns], str(inputs.column)
    if column not in names:
        raise DataUnreadable(f"The table has no column {column[:80]}.", field="with.column", columns=names[:50])
    names = [*(name for name in names if name != "vector"), "vector"]
    parts: list[str] = list((bench.context.state or {}).get("parts", []))
    for offset in range(len(parts) * _PART, described.rows, _PART):
        rows = await bench.run(formats.read_rows, table, offset, _PART)
        # No provider takes an empty text; a blank stands for it.
        vectors = await asked.vectors([str(row[column] or " ") for row in rows])
        made = bench.place()
        await bench.run(
            write_records, [row | {"vector": one} for row, one in zip(rows, vectors, strict=True)], names, made
        )
        parts.append(await bench.keep_part(made))
        await bench.context.save({"parts": parts, **asked.sums()})
        bench.context.progress(offset + len(rows), described.rows, "rows")
    made = bench.place()
    paths = [await bench.path(part) for part in parts]
    await bench.run(*((formats.merged, paths, names, made) if paths else (formats.empty, names, made)))
    file_id = await bench.keep(made, inputs.name or "vectors.parquet")
    await bench.drop_parts(parts)
    return asked.told(described.rows, file_id=file_id)


class _Asked:
    """The model, and the sum of what it used in all attempts."""

    def __init__(self, context: StepContext, inputs: EmbedInputs) -> None:
        state = context.state or {}
        self._context, self._inputs = context, inputs
        self._model: str = state.get("model", inputs.model)
        self._dimensions: int = state.get("dimensions", 0)
        self._tokens: int = state.get("tokens", 0)
        self._cost: float | None = state.get("cost", 0.0)

    async def vectors(self, texts: list[str]) -> list[list[float]]:
        """Return the vector of each text."""
        made: list[list[float]] = []
        for start in range(0, len(texts), _AT_ONCE):
            request = EmbeddingRequest(
                model=self._inputs.model,
                input=tuple(texts[start : start + _AT_ONCE]),
                dimensions=self._inputs.dimensions,
            )
            done = await self._context.services.get(LLMService).embed(
                self._context.principal, request, run_id=self._context.run_id, step_key=self._context.step_key
            )
            made += [list(struct.unpack(f"<{len(vector) // 4}f", vector)) for vector in done.vectors]
            self._model, self._dimensions = done.model, done.dimensions or len(made[-1])
            self._tokens += done.usage.input_tokens if done.usage else 0
            known = self._cost is not None and done.cost_usd is not None
            self._cost = self._cost + done.cost_usd if known else None  # type: ignore[operator]
        return made

    def sums(self) -> dict[str, Any]:
        """Return what the state of the step keeps."""
        return {"model": self._model, "dimensions": self._dimensions, "tokens": self._tokens, "cost": self._cost}

    def told(self, count: int, *, vectors: list[list[float]] | None = None, file_id: str | None = None) -> EmbedOutputs:
        """Return the output."""
        self._context.log(f"{self._model} embedded {count} texts, {self._tokens} tokens")
        return EmbedOutputs(
            model=self._model,
            dimensions=self._dimensions,
            count=count,
            vectors=vectors,
            file_id=file_id,
            input_tokens=self._tokens,
            cost_usd=self._cost,
        )


plug = LlmEmbed()
