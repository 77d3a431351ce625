"""Fetch a table: from a file, a database, or a web API.

    - key: orders
      uses: data.extract
      with:
        sql:
          url: "{{ secrets.SHOP_DB }}"
          query: SELECT id, total, ordered_at FROM orders WHERE ordered_at >= :day
          parameters: {day: "{{ inputs.day }}"}
          key: id

With a `key` a query is read in chunks, and an API by pages; each chunk is kept, so that an attempt after a crash
goes on with the next one.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from nexus.automation.data import formats
from nexus.automation.data.answers import failure_of
from nexus.automation.data.databases import SqliteFile, Target, address_of
from nexus.automation.data.formats import FileForm, Format, Kind
from nexus.automation.data.paging import Paging, first_url, next_url, records_of
from nexus.automation.data.reading import Query, read_chunk
from nexus.automation.data.values import write_records
from nexus.automation.data.workshop import MOST_ROWS, TableOutputs, TableSource, Workshop, workshop
from nexus.automation.errors import DatabaseNotAllowed, DataUnreadable
from nexus.automation.step import StepModel
from nexus.http.fetch import safe_fetch
from nexus.runs.types import StepContext

_PAGE_LIMIT = 50 * 2**20
_MOST_PAGES = 100_000


class FileFrom(StepModel):
    """A file of the project."""

    file_id: str = Field(max_length=40)
    format: Format | None = Field(None, description="Found by the first bytes without it; gzip is unpacked")
    delimiter: str | None = Field(None, min_length=1, max_length=1)
    header: bool = True
    encoding: Literal["utf-8", "utf-16", "latin-1"] = "utf-8"
    types: dict[str, Kind] = Field(default_factory=dict, max_length=500, description="Of columns of a CSV file")


class SqlFrom(StepModel):
    """A query to a database. `query` is one SELECT; values come as `:named` parameters, never as text in it."""

    url: str = Field(min_length=1, max_length=4_096, description="postgresql://... or sqlite:///file_...; a secret")
    query: str = Field(min_length=1, max_length=100_000)
    parameters: dict[str, str | int | float | bool | None] = Field(default_factory=dict, max_length=200)
    key: str | None = Field(
        None, min_length=1, max_length=200, description="A unique, growing column: read in chunks by it"
    )
    chunk: int = Field(50_000, ge=1, le=1_000_000, description="Rows of a chunk")


class HttpFrom(StepModel):
    """A web API that answers with JSON."""

    url: str = Field(min_length=1, max_length=4_096)
    headers: dict[str, str] = Field(default_factory=dict, max_length=50)
    records: str | None = Field(None, max_length=500, description="Where the records lie in the answer: data.items")
    paging: Paging | None = None
    chunk: int = Field(5_000, ge=1, le=100_000, description="Records that are kept at once")
    timeout: float = Field(60, gt=0, le=300, description="Seconds for one page")


class ExtractInputs(StepModel):
    """Exactly one of `file`, `sql` and `http`."""

    file: FileFrom | None = None
    sql: SqlFrom | None = None
    http: HttpFrom | None = None
    name: str = Field("extracted.parquet", min_length=1, max_length=200, description="Name of the file that is made")
    max_rows: int = Field(1_000_000, ge=1, le=MOST_ROWS, description="More of them are an error")
    timeout: float = Field(600, gt=0, le=7_200, description="Seconds for one piece of work")

    @model_validator(mode="after")
    def _exactly_one(self) -> ExtractInputs:
        if sum(one is not None for one in (self.file, self.sql, self.http)) != 1:
            raise ValueError("give exactly one of file, sql and http")
        return self


class DataExtract:
    """The step `data.extract`."""

    uses = "data.extract"
    summary = "Fetch a table from a file, a database or a web API."
    queue = "cpu"
    Inputs = ExtractInputs
    Outputs = TableOutputs

    async def run(self, context: StepContext, inputs: ExtractInputs) -> TableOutputs:
        """Fetch it and keep it as Parquet."""
        async with workshop(context, inputs.timeout) as bench:
            if inputs.file is not None:
                table = await _from_file(bench, inputs.file, inputs.max_rows)
                return await bench.told(table, inputs.name)
            parts = _Parts(bench, inputs.max_rows)
            if inputs.sql is not None:
                await _from_sql(bench, parts, inputs.sql, inputs)
            elif inputs.http is not None:
                await _from_http(bench, parts, inputs.http)
            told = await bench.told(await parts.together(), inputs.name)
            await bench.drop_parts(parts.file_ids)
            return told


class _Parts:
    """The chunks that have been kept, in this attempt and in those before it."""

    def __init__(self, bench: Workshop, most: int) -> None:
        state = bench.context.state or {}
        self._bench = bench
        self._most = most
        self.file_ids: list[str] = list(state.get("parts", []))
        self.names: dict[str, None] = dict.fromkeys(state.get("names", []))
        self.rows: int = state.get("rows", 0)
        self.at: Any = state.get("at")
        self.complete: bool = state.get("complete", False)
        if self.file_ids:
            bench.context.log(f"goes on behind {self.rows} rows of {len(self.file_ids)} chunks")

    def check(self, rows: int) -> None:
        """Raise `DataUnreadable` where so many rows are more than allowed."""
        if rows > self._most:
            raise DataUnreadable(f"There are more rows than the {self._most} allowed.", field="with.max_rows")

    @property
    def room(self) -> int:
        """Return how many rows may still come, and one more that tells of too many."""
        return self._most - self.rows + 1

    async def add(self, part: Any, rows: int, names: list[str], at: Any, *, complete: bool) -> None:
        """Keep a chunk and note where the next one begins."""
        self.check(self.rows + rows)
        self.file_ids.append(await self._bench.keep_part(part))
        self.names |= dict.fromkeys(names)
        self.rows, self.at, self.complete = self.rows + rows, at, complete
        context = self._bench.context
        await context.save(
            {"parts": self.file_ids, "names": list(self.names), "rows": self.rows, "at": at, "complete": complete}
        )
        context.progress(self.rows, None, "rows")

    async def together(self) -> Any:
        """Return all chunks as one table."""
        made = self._bench.place()
        paths = [await self._bench.path(file_id) for file_id in self.file_ids]
        if paths:
            await self._bench.run(formats.merged, paths, list(self.names), made)
        else:
            await self._bench.run(formats.empty, list(self.names), made)
        return made


async def _from_file(bench: Workshop, wanted: FileFrom, most: int) -> Any:
    form = FileForm(wanted.format, wanted.delimiter, wanted.header, wanted.encoding, wanted.types)
    return await bench.table(TableSource(file_id=wanted.file_id), form=form, most=most)


async def _from_sql(bench: Workshop, parts: _Parts, wanted: SqlFrom, inputs: ExtractInputs) -> None:
    target: Target
    address = await address_of(wanted.url, field="with.sql.url")
    if not isinstance(address, SqliteFile):
        target = address
    elif address.file_id is None:
        raise DatabaseNotAllowed("Name the file of the database: sqlite:///file_...", field="with.sql.url")
    else:
        target = await bench.path(address.file_id)
    query = Query(wanted.query, dict(wanted.parameters), wanted.key, inputs.timeout)
    while not parts.complete:
        limit = min(wanted.chunk, parts.room) if wanted.key is not None else parts.room
        place = bench.place()
        chunk = await bench.run(read_chunk, target, query, parts.at, limit, place)
        complete = wanted.key is None or chunk.rows < limit
        await parts.add(place, chunk.rows, chunk.names, chunk.last, complete=complete)


async def _from_http(bench: Workshop, parts: _Parts, wanted: HttpFrom) -> None:
    url: str | None = parts.at or first_url(wanted.url, wanted.paging)
    records: list[dict[str, Any]] = []
    for _ in range(_MOST_PAGES):
        if url is None or parts.complete:
            break
        fetched = await safe_fetch(url, headers=wanted.headers, limit=_PAGE_LIMIT, timeout=wanted.timeout)
        if not fetched.ok:
            raise failure_of(fetched)
        answer, found = records_of(fetched.body, wanted.records)
        following = next_url(url, fetched, answer, len(found), wanted.paging)
        if following == url:
            raise DataUnreadable("The answer names itself as the next page.", field="with.http.paging")
        records += found
        url = following
        parts.check(parts.rows + len(records))
        if records and (url is None or len(records) >= wanted.chunk):
            names = list(dict.fromkeys(name for record in records for name in record))
            place = bench.place()
            await bench.run(write_records, records, names, place)
            await parts.add(place, len(records), names, url, complete=url is None)
            records = []


plug = DataExtract()
