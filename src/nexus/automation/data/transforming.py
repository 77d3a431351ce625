"""Tables made of tables: by one SELECT over named inputs, or by filters and columns. Runs in a compute child."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nexus.automation.data.duck import check_expression, check_select, leashed, named, quoted, sql_errors
from nexus.automation.data.formats import rows_of
from nexus.automation.errors import QueryInvalid

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True)
class Shaping:
    """What to do to one table without writing a SELECT: expressions of SQL over its columns."""

    filter: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    select: list[str] | None = None
    order: list[str] = field(default_factory=list)
    distinct: bool = False
    limit: int | None = None


def transform(tables: Mapping[str, Path], query: str | Shaping, target: Path, most: int) -> None:
    """Write what the query gives, as Parquet. Raises `QueryInvalid`."""
    paths = list(tables.values())
    with leashed(target.parent, [*paths, target]) as connection:
        for name, path in tables.items():
            connection.execute(f"CREATE VIEW {named(name)} AS SELECT * FROM read_parquet({quoted(path)})")
        if isinstance(query, Shaping):
            select = _shaped(connection, query, next(iter(tables)))
        else:
            check_select(connection, query, field="with.sql")
            select = query.strip().rstrip(";")
        with sql_errors("with.sql", paths):
            limited = f"SELECT * FROM (\n{select}\n) LIMIT {most + 1}"
            connection.execute(f"COPY ({limited}) TO {quoted(target)} (FORMAT parquet, COMPRESSION zstd)")
    if rows_of(target) > most:
        raise QueryInvalid(f"The query gives more rows than the {most} allowed.", field="with.max_rows", limit=most)


def _shaped(connection: duckdb.DuckDBPyConnection, shaping: Shaping, table: str) -> str:
    for name, expression in shaping.columns.items():
        check_expression(connection, expression, field=f"with.columns.{name}")
    if shaping.filter is not None:
        check_expression(connection, shaping.filter, field="with.filter")
    source = named(table)
    known = {row[0] for row in connection.execute(f"DESCRIBE {source}").fetchall()}
    new = ", ".join(f"(\n{one}\n) AS {named(name)}" for name, one in shaping.columns.items() if name not in known)
    changed = ", ".join(f"(\n{one}\n) AS {named(name)}" for name, one in shaping.columns.items() if name in known)
    inner = f"SELECT *{f' REPLACE ({changed})' if changed else ''}{f', {new}' if new else ''} FROM {source}"
    where = f" WHERE (\n{shaping.filter}\n)" if shaping.filter is not None else ""
    listed = ", ".join(map(named, shaping.select)) if shaping.select else "*"
    order = f" ORDER BY {', '.join(map(_ordered, shaping.order))}" if shaping.order else ""
    limit = f" LIMIT {shaping.limit}" if shaping.limit is not None else ""
    distinct = "DISTINCT " if shaping.distinct else ""
    return f"SELECT {distinct}{listed} FROM ({inner}){where}{order}{limit}"


def _ordered(column: str) -> str:
    return f"{named(column[1:])} DESC NULLS LAST" if column.startswith("-") else f"{named(column)} NULLS LAST"
