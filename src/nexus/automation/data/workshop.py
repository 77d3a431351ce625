"""Where a step works on tables: files by id become paths, compute children do the work, results become files.

Tables travel between steps as the ids of Parquet files; an output holds counts, columns and a few rows to look at.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import Field, model_validator

from nexus.automation.data import formats
from nexus.automation.data.formats import FileForm
from nexus.automation.step import StepModel
from nexus.compute.pool import ComputePool
from nexus.core.clock import Clock
from nexus.core.errors import NotFound
from nexus.files.service import FileService
from nexus.runs.types import StepContext

R = TypeVar("R")
PARQUET: Final = "application/vnd.apache.parquet"
MOST_ROWS: Final = 20_000_000
_PIECE: Final = 1024 * 1024
_PART_KEPT: Final = timedelta(days=7)


class ColumnOut(StepModel):
    """A column of a table."""

    name: str
    type: str = Field(description="As DuckDB names it: BIGINT, DOUBLE, VARCHAR, DATE ...")


class TableOutputs(StepModel):
    """A table that the step has made: the id of its Parquet file, and what it holds."""

    file_id: str
    rows: int
    columns: list[ColumnOut]
    preview: list[dict[str, Any]] = Field(description="The first rows, long texts cut")


class TableSource(StepModel):
    """A table to work on: a file (CSV, JSON, JSON Lines or Parquet, found by its first bytes), or rows."""

    file_id: str | None = Field(None, max_length=40)
    rows: list[dict[str, Any]] | None = Field(None, min_length=1, max_length=10_000)

    @model_validator(mode="after")
    def _exactly_one(self) -> TableSource:
        if (self.file_id is None) == (self.rows is None):
            raise ValueError("give exactly one of file_id and rows")
        return self


class Workshop:
    """The bench of one step: a folder that ends with it."""

    def __init__(self, context: StepContext, folder: Path, seconds: float) -> None:
        """Work in `folder`; every piece of work in a child may take `seconds`."""
        self.context = context
        self.folder = folder
        self._seconds = seconds
        self._count = 0
        self._files = context.services.get(FileService)
        self._pool = context.services.get(ComputePool)

    async def run(self, function: Callable[..., R], /, *args: Any) -> R:
        """Run a function in a compute child."""
        return await self._pool.run(function, *args, timeout=self._seconds)

    def place(self, ending: str = "parquet") -> Path:
        """Return the path of a file that is not there yet."""
        self._count += 1
        return self.folder / f"{self._count}.{ending}"

    async def path(self, file_id: str) -> Path:
        """Return where a file of the project lies. Raises `FileNotFound`."""
        return await self._files.path(self.context.principal, file_id)

    async def table(
        self, source: TableSource, *, form: FileForm | None = None, most: int = MOST_ROWS, field: str = "file_id"
    ) -> Path:
        """Return a table as Parquet, turned into it where it is none. Raises `DataUnreadable`, `FileNotFound`."""
        if source.rows is not None:
            made = self.place()
            await asyncio.to_thread(formats.rows_to_parquet, source.rows, made)
            return made
        path = await self.path(str(source.file_id))
        if form is None and await asyncio.to_thread(formats.format_of, path) == ("parquet", False):
            return path
        made = self.place()
        await self.run(formats.to_parquet, path, form or FileForm(), made, most)
        return made

    async def pieces(self, path: Path) -> AsyncIterator[bytes]:
        """Yield the content of a file of this bench."""
        with path.open("rb") as file:
            while piece := await asyncio.to_thread(file.read, _PIECE):
                yield piece

    async def keep(self, path: Path, name: str, content_type: str = PARQUET) -> str:
        """Keep a file as an artefact of the run and return its id."""
        file = await self._files.add(self.context.principal, self.pieces(path), name, content_type, "workflow")
        self.context.artifact(file.id, name, file.size, content_type)
        return file.id

    async def keep_part(self, path: Path) -> str:
        """Keep a part of what is still being made, so that a later attempt need not make it again."""
        expires = self.context.services.get(Clock).now() + _PART_KEPT  # type: ignore[type-abstract]
        file = await self._files.add(
            self.context.principal, self.pieces(path), "part.parquet", PARQUET, "workflow_part", expires_at=expires
        )
        return file.id

    async def drop_parts(self, file_ids: Sequence[str]) -> None:
        """Remove parts that are no longer needed."""
        for file_id in file_ids:
            with suppress(NotFound):
                await self._files.delete(self.context.principal, file_id)

    async def told(self, path: Path, name: str) -> TableOutputs:
        """Keep a table and tell what it holds."""
        described = await self.run(formats.describe, path)
        file_id = await self.keep(path, name)
        self.context.log(f"{described.rows} rows of {len(described.columns)} columns are kept as {file_id}")
        columns = [ColumnOut(name=column, type=kind) for column, kind in described.columns]
        return TableOutputs(file_id=file_id, rows=described.rows, columns=columns, preview=described.preview)


@asynccontextmanager
async def workshop(context: StepContext, seconds: float) -> AsyncIterator[Workshop]:
    """Yield the bench of a step."""
    folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="nexus-data-")
    try:
        yield Workshop(context, Path(folder), seconds)
    finally:
        await asyncio.to_thread(_remove, Path(folder))


def _remove(folder: Path) -> None:
    import shutil

    # A child that was given up a moment ago may still write here; what it leaves goes with the machine's own sweep.
    shutil.rmtree(folder, ignore_errors=True)
