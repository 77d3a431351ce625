"""Rows into a table of a database, so that doing it twice doubles nothing. Runs in a compute child.

upsert    by key: a row that is there is replaced
append    a chunk leaves its mark in the table `nexus_loads`, in the same transaction, and is not added again
replace   all rows in one transaction in place of those that were there
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy import Column, Connection, DateTime, MetaData, String, Table, delete, func, inspect, types
from sqlalchemy.dialects import postgresql, sqlite

from nexus.automation.data.databases import Target, connected
from nexus.automation.data.formats import describe, read_rows
from nexus.automation.data.values import plain
from nexus.automation.errors import DatabaseRefused, DataInvalid

Mode = Literal["upsert", "append", "replace"]
MARKS: Final = "nexus_loads"
_AT_ONCE: Final = 500
_KINDS: Final[dict[str, types.TypeEngine[Any]]] = {
    "BOOLEAN": types.Boolean(),
    "TINYINT": types.SmallInteger(),
    "SMALLINT": types.SmallInteger(),
    "INTEGER": types.Integer(),
    "BIGINT": types.BigInteger(),
    "UTINYINT": types.SmallInteger(),
    "USMALLINT": types.Integer(),
    "UINTEGER": types.BigInteger(),
    "FLOAT": types.Double(),
    "DOUBLE": types.Double(),
    "DATE": types.Date(),
    "TIME": types.Time(),
    "TIMESTAMP": types.DateTime(),
    "TIMESTAMP WITH TIME ZONE": types.DateTime(timezone=True),
    "BLOB": types.LargeBinary(),
}


@dataclass(frozen=True, slots=True)
class Load:
    """Where rows go: a table, by its name or `schema.name`, and the columns that name a row."""

    table: str
    mode: Mode
    key: list[str] = field(default_factory=list)
    create: bool = True
    seconds: float = 600


def load_chunk(target: Target, load: Load, rows_at: Path, offset: int, limit: int, mark: str) -> int:
    """Write up to `limit` rows in one transaction; return how many there were. `mark` names the chunk for ever."""
    columns = describe(rows_at).columns
    with connected(target, field="with.sql", writing=True, seconds=load.seconds) as connection:
        table = _table(connection, load, columns)
        if load.mode == "replace":
            return _replaced(connection, table, load, rows_at, limit)
        rows = read_rows(rows_at, offset, limit)
        if rows and (load.mode == "upsert" or _marked(connection, mark)):
            _insert(connection, table, load, rows)
        return len(rows)


def _replaced(connection: Connection, table: Table, load: Load, rows_at: Path, limit: int) -> int:
    connection.execute(delete(table))
    done = 0
    while rows := read_rows(rows_at, done, limit):
        _insert(connection, table, load, rows)
        done += len(rows)
    return done


def _table(connection: Connection, load: Load, columns: Sequence[tuple[str, str]]) -> Table:
    """Return the table as it is, or as it is made. Raises `DataInvalid` for columns that it has not."""
    schema, _, name = load.table.rpartition(".")
    metadata = MetaData()
    if not inspect(connection).has_table(name, schema=schema or None):
        if not load.create:
            raise DatabaseRefused("There is no table of this name.", field="with.sql.table")
        keyed = load.key if load.mode == "upsert" else []
        made = [Column(one, _kind(kind), primary_key=one in keyed, autoincrement=False) for one, kind in columns]
        table = Table(name, metadata, *made, schema=schema or None)
        table.create(connection, checkfirst=True)
        return table
    table = Table(name, metadata, schema=schema or None, autoload_with=connection)
    unknown = [one for one, _ in columns if one not in table.columns]
    if unknown:
        raise DataInvalid(f"The table {name} has no column {unknown[0][:80]}.", field="with.sql.table")
    return table


def _kind(kind: str) -> types.TypeEngine[Any]:
    if kind.startswith("DECIMAL("):
        precision, scale = kind[8:-1].split(",")
        return types.Numeric(int(precision), int(scale))
    return _KINDS.get(kind, types.Text())


def _insert(connection: Connection, table: Table, load: Load, rows: Sequence[dict[str, Any]]) -> None:
    simple = [{name: _bound(value) for name, value in row.items()} for row in rows]
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    names = list(simple[0])
    statement: Any = make(table)
    if load.mode == "upsert":
        others = {name: statement.excluded[name] for name in names if name not in load.key}
        statement = (
            statement.on_conflict_do_update(index_elements=load.key, set_=others)
            if others
            else statement.on_conflict_do_nothing(index_elements=load.key)
        )
        # One statement may not touch a row twice: the last of two rows with one key counts.
        simple = list({tuple(row[name] for name in load.key): row for row in simple}.values())
    for start in range(0, len(simple), _AT_ONCE):
        connection.execute(statement, simple[start : start + _AT_ONCE])


def _bound(value: Any) -> Any:
    return plain(value) if isinstance(value, list | dict) else value


def _marked(connection: Connection, mark: str) -> bool:
    """Leave the mark of a chunk; False where it was left before."""
    marks = Table(
        MARKS,
        MetaData(),
        Column("chunk", String(300), primary_key=True),
        Column("loaded_at", DateTime(timezone=True), server_default=func.now()),
    )
    marks.create(connection, checkfirst=True)
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    left = make(marks).values(chunk=mark).on_conflict_do_nothing().returning(marks.c.chunk)
    return connection.execute(left).first() is not None
