"""Bring a table to where it is wanted: a file, a table of a database, or a web API.

    - key: store
      uses: data.load
      with:
        file_id: "{{ steps.totals.output.file_id }}"
        sql: {url: "{{ secrets.SHOP_DB }}", table: totals, key: [shop]}

A repeated attempt doubles nothing: rows are written by their key, chunks that are only appended leave a mark beside
them, and each batch sent to an API has an Idempotency-Key of its own. An attempt after a crash goes on behind the last
chunk that was written.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Annotated, Literal

import orjson
from pydantic import Field, StringConstraints, model_validator

from nexus.automation.data import formats
from nexus.automation.data.answers import failure_of
from nexus.automation.data.databases import SqliteFile, Target, address_of
from nexus.automation.data.formats import Format
from nexus.automation.data.values import plain
from nexus.automation.data.workshop import PARQUET, TableSource, Workshop, workshop
from nexus.automation.data.writing import Load, load_chunk
from nexus.automation.errors import DataInvalid
from nexus.automation.step import StepModel
from nexus.http.fetch import safe_fetch
from nexus.runs.types import StepContext

TableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?$")]
_TYPES = {"csv": "text/csv", "json": "application/json", "jsonl": "application/x-ndjson", "parquet": PARQUET}
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "idempotency-key"})


class FileTo(StepModel):
    """A file of the project."""

    name: str = Field(min_length=1, max_length=200)
    format: Format = "csv"


class SqlTo(StepModel):
    """A table of a database. A SQLite database is written as a new file; `sqlite://` makes one."""

    url: str = Field(min_length=1, max_length=4_096, description="postgresql://... or sqlite:///file_...; a secret")
    table: TableName
    mode: Literal["upsert", "append", "replace"] = "upsert"
    key: list[str] = Field(default_factory=list, max_length=20, description="Columns that name a row, for upsert")
    create: bool = Field(True, description="Make the table where it is not there")
    chunk: int = Field(5_000, ge=1, le=100_000, description="Rows of one transaction")
    name: str = Field("database.sqlite", min_length=1, max_length=200, description="Name of a SQLite file")

    @model_validator(mode="after")
    def _keyed(self) -> SqlTo:
        if (self.mode == "upsert") != bool(self.key):
            raise ValueError("upsert needs a key, and only upsert takes one")
        return self


class HttpTo(StepModel):
    """A web API that takes batches of rows as JSON."""

    url: str = Field(min_length=1, max_length=4_096)
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    headers: dict[str, str] = Field(default_factory=dict, max_length=50)
    batch: int = Field(100, ge=1, le=10_000, description="Rows of one request")
    wrap: str | None = Field(None, max_length=100, description="Send {wrap: [rows]}, not a bare list")
    timeout: float = Field(60, gt=0, le=300, description="Seconds for one request")


class LoadInputs(TableSource):
    """A table, and exactly one of `file`, `sql` and `http`."""

    file: FileTo | None = None
    sql: SqlTo | None = None
    http: HttpTo | None = None
    timeout: float = Field(600, gt=0, le=7_200, description="Seconds for one piece of work")

    @model_validator(mode="after")
    def _one_way(self) -> LoadInputs:
        if sum(one is not None for one in (self.file, self.sql, self.http)) != 1:
            raise ValueError("give exactly one of file, sql and http")
        return self


class LoadOutputs(StepModel):
    """How many rows went how; `file_id` is the file that was written, a SQLite database included."""

    rows: int
    chunks: int = Field(description="Transactions or requests")
    file_id: str | None = None


class DataLoad:
    """The step `data.load`."""

    uses = "data.load"
    summary = "Write a table to a file, a database or a web API, without doubling anything."
    queue = "cpu"
    Inputs = LoadInputs
    Outputs = LoadOutputs

    async def run(self, context: StepContext, inputs: LoadInputs) -> LoadOutputs:
        """Write it."""
        async with workshop(context, inputs.timeout) as bench:
            table = await bench.table(TableSource(file_id=inputs.file_id, rows=inputs.rows))
            total = await bench.run(formats.rows_of, table)
            if inputs.file is not None:
                return await _to_file(bench, table, inputs.file, total)
            if inputs.http is not None:
                return await _to_http(bench, table, inputs.http, total)
            assert inputs.sql is not None
            return await _to_sql(bench, table, inputs.sql, total, inputs.timeout)


async def _to_file(bench: Workshop, table: Path, wanted: FileTo, total: int) -> LoadOutputs:
    made = bench.place(wanted.format)
    await bench.run(formats.from_parquet, table, wanted.format, made)
    file_id = await bench.keep(made, wanted.name, _TYPES[wanted.format])
    return LoadOutputs(rows=total, chunks=1, file_id=file_id)


async def _to_sql(bench: Workshop, table: Path, wanted: SqlTo, total: int, seconds: float) -> LoadOutputs:
    load = Load(wanted.table, wanted.mode, wanted.key, wanted.create, seconds)
    if wanted.key:
        await _check_key(bench, table, wanted.key)
    address = await address_of(wanted.url, field="with.sql.url")
    if not isinstance(address, SqliteFile):
        chunks = await _chunked(bench, address, table, load, wanted.chunk, total)
        return LoadOutputs(rows=total, chunks=chunks)
    database = bench.place("sqlite")
    if address.file_id is not None:
        await asyncio.to_thread(shutil.copyfile, await bench.path(address.file_id), database)
    # It starts anew with each attempt: there is no file before it is whole.
    chunks = 0
    for offset in range(0, max(total, 1), wanted.chunk):
        await bench.run(load_chunk, database, load, table, offset, wanted.chunk, _mark(bench.context, offset))
        chunks += 1
        if wanted.mode == "replace":
            break
    file_id = await bench.keep(database, wanted.name, "application/vnd.sqlite3")
    return LoadOutputs(rows=total, chunks=chunks, file_id=file_id)


async def _check_key(bench: Workshop, table: Path, key: list[str]) -> None:
    known = [name for name, _ in (await bench.run(formats.describe, table)).columns]
    missing = [name for name in key if name not in known]
    if missing:
        raise DataInvalid(f"The table has no column {missing[0][:80]}.", field="with.sql.key", columns=known[:50])


async def _chunked(bench: Workshop, target: Target, table: Path, load: Load, size: int, total: int) -> int:
    context = bench.context
    done, chunks = _behind(context)
    while done < total or chunks == 0:
        mark = _mark(context, done)
        rows = await bench.run(load_chunk, target, load, table, done, size, mark)
        done, chunks = (total if load.mode == "replace" else done + rows), chunks + 1
        await _note(context, done, chunks, total)
        if not rows:
            break
    return chunks


async def _to_http(bench: Workshop, table: Path, wanted: HttpTo, total: int) -> LoadOutputs:
    context = bench.context
    headers = {name.lower(): value for name, value in wanted.headers.items() if name.lower() not in _OWN_HEADERS}
    headers.setdefault("content-type", "application/json")
    done, chunks = _behind(context)
    while done < total:
        rows = [
            {name: plain(value) for name, value in row.items()}
            for row in await bench.run(formats.read_rows, table, done, wanted.batch)
        ]
        fetched = await safe_fetch(
            wanted.url,
            method=wanted.method,
            headers={**headers, "idempotency-key": _mark(context, done)},
            body=orjson.dumps({wanted.wrap: rows} if wanted.wrap else rows),
            timeout=wanted.timeout,
        )
        if not fetched.ok:
            raise failure_of(fetched)
        done, chunks = done + len(rows), chunks + 1
        await _note(context, done, chunks, total)
    return LoadOutputs(rows=total, chunks=chunks)


def _behind(context: StepContext) -> tuple[int, int]:
    """Return how many rows and chunks the attempts before this one have written."""
    state = context.state or {}
    if state.get("done"):
        context.log(f"goes on behind {state['done']} rows")
    return state.get("done", 0), state.get("chunks", 0)


async def _note(context: StepContext, done: int, chunks: int, total: int) -> None:
    await context.save({"done": done, "chunks": chunks})
    context.progress(done, total, "rows")


def _mark(context: StepContext, offset: int) -> str:
    """Return the name of a chunk: the same in every attempt, another one where the run was retried on purpose."""
    return f"{context.idempotency_key}.{context.round}.{offset}"


plug = DataLoad()
