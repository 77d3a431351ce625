"""Rows out of a database, whole or in chunks by a key that grows. Runs in a compute child."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, text

from nexus.automation.data.databases import Target, connected
from nexus.automation.data.formats import empty, merged
from nexus.automation.data.values import write_records
from nexus.automation.errors import QueryInvalid

_BATCH: Final = 10_000


@dataclass(frozen=True, slots=True)
class Query:
    """One SELECT with `:named` parameters. `key` is a column that is unique, never null, and sorts."""

    sql: str
    parameters: dict[str, Any]
    key: str | None = None
    seconds: float = 600


@dataclass(frozen=True, slots=True)
class Chunk:
    """What was read: how many rows, which columns, and the key of the last row as JSON."""

    rows: int
    names: list[str]
    last: Any = None


def read_chunk(target: Target, query: Query, after: Any, limit: int, place: Path) -> Chunk:
    """Write the next rows, at most `limit`, as Parquet to `place`. Raises `QueryInvalid` and what connecting raises."""
    sql = query.sql.strip().rstrip(";")
    parameters = {**query.parameters, "nexus_limit": limit}
    with connected(target, field="with.sql", writing=False, seconds=query.seconds) as connection:
        # As a part of a SELECT it can be nothing else, and with a parameter it is sent as one statement.
        statement = f"SELECT * FROM (\n{sql}\n) AS extracted"
        if query.key is not None:
            column = connection.dialect.identifier_preparer.quote(query.key)
            if after is not None:
                statement += f" WHERE {column} > :nexus_after"
                parameters["nexus_after"] = _key(after)
            statement += f" ORDER BY {column}"
        return _written(connection, f"{statement} LIMIT :nexus_limit", parameters, query.key, place)


def _written(connection: Connection, statement: str, parameters: dict[str, Any], key: str | None, place: Path) -> Chunk:
    streamed = connection.execution_options(stream_results=True, yield_per=_BATCH)
    found = streamed.execute(text(statement), parameters)
    names = list(found.keys())
    if len(set(names)) < len(names):
        raise QueryInvalid("Two columns of the query have the same name.", field="with.sql.query")
    if key is not None and key not in names:
        raise QueryInvalid(f"The query gives no column {key[:80]}.", field="with.sql.key")
    parts: list[Path] = []
    rows, last = 0, None
    for batch in found.mappings().partitions(_BATCH):
        part = place.with_name(f"{place.stem}-{len(parts)}.parquet")
        write_records([dict(row) for row in batch], names, part)
        parts.append(part)
        rows += len(batch)
        last = batch[-1][key] if key is not None else None
    if parts:
        merged(parts, names, place)
    else:
        empty(names, place)
    for part in parts:
        part.unlink()
    return Chunk(rows, names, _said(last))


def _said(key: Any) -> Any:
    """Return a key as JSON that `_key` can read back."""
    if isinstance(key, datetime):
        return {"datetime": key.isoformat()}
    if isinstance(key, date):
        return {"date": key.isoformat()}
    if isinstance(key, Decimal):
        return {"decimal": str(key)}
    return key if isinstance(key, str | int | float | type(None)) else str(key)


def _key(said: Any) -> Any:
    if not isinstance(said, dict):
        return said
    ((kind, value),) = said.items()
    if kind == "decimal":
        return Decimal(value)
    return datetime.fromisoformat(value) if kind == "datetime" else date.fromisoformat(value)
