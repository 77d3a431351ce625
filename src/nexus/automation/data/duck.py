"""DuckDB on a leash: it sees the files that it is given and nothing else, neither disk nor network.

What users write is run here only after it was found to be one SELECT. Runs in a compute child.
Settings: https://duckdb.org/docs/stable/operations_manual/securing_duckdb/overview
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nexus.automation.errors import DataUnreadable, QueryInvalid

if TYPE_CHECKING:
    import duckdb

MEMORY: Final = "256MB"
_LINE: Final = re.compile(r"CSV Error on Line: (\d+)")
_LONGEST_QUERY: Final = 100_000


@contextmanager
def leashed(folder: Path, files: Sequence[Path]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection that may read and write `files` and spill into `folder`, with its settings locked."""
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY,
        "threads": "2",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",
    }
    with duckdb.connect(":memory:", config=config) as connection:
        connection.execute(f"SET temp_directory={quoted(folder / 'spill')}")
        connection.execute("SET TimeZone='UTC'")
        connection.execute(f"SET allowed_paths=[{', '.join(quoted(path) for path in files)}]")
        connection.execute("SET enable_external_access=false")
        connection.execute("SET lock_configuration=true")
        yield connection


def quoted(text: object) -> str:
    """Return a text literal of SQL."""
    return "'" + str(text).replace("'", "''") + "'"


def named(name: str) -> str:
    """Return an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def check_select(connection: duckdb.DuckDBPyConnection, query: str, *, field: str) -> None:
    """Raise `QueryInvalid` for what is anything but one SELECT."""
    import duckdb

    if len(query) > _LONGEST_QUERY or "\0" in query:
        raise QueryInvalid(f"A query has at most {_LONGEST_QUERY} characters.", field=field)
    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as error:
        raise QueryInvalid(told(error), field=field) from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise QueryInvalid("Write one SELECT and nothing else.", field=field)


def check_expression(connection: duckdb.DuckDBPyConnection, expression: str, *, field: str) -> None:
    """Raise `QueryInvalid` for what is no expression of SQL by itself, such as one that closes a bracket."""
    check_select(connection, f"SELECT {expression}\n", field=field)
    check_select(connection, f"SELECT (\n{expression}\n)", field=field)


@contextmanager
def sql_errors(field: str, hidden: Sequence[Path] = ()) -> Iterator[None]:
    """Turn what DuckDB says about a user's query into `QueryInvalid`, without the paths of this machine."""
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException:
        raise QueryInvalid(f"The query needs more memory than {MEMORY}.", field=field) from None
    except duckdb.Error as error:
        raise QueryInvalid(told(error, hidden), field=field) from None


@contextmanager
def file_errors(field: str) -> Iterator[None]:
    """Turn what DuckDB says about a file into `DataUnreadable`."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        line = _LINE.search(str(error))
        where = f"Line {line[1]} of the file does not fit the others." if line else "The file is not a readable table."
        raise DataUnreadable(where, field=field) from None


def told(error: Exception, hidden: Sequence[Path] = ()) -> str:
    """Return the first line of an error of DuckDB, fit to be shown."""
    text = str(error).strip()
    for path in hidden:
        text = text.replace(str(path), "the table")
    first = text.partition("\n")[0]
    return re.sub(r'"?/[^\s"]*/[^\s"]*"?', "a file", first)[:300]
