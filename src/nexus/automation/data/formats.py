"""Files of tables (CSV, JSON, JSON Lines, Parquet), read into Parquet and written from it. Runs in a compute child."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from nexus.automation.data.duck import file_errors, leashed, named, quoted
from nexus.automation.data.values import shown, write_records
from nexus.automation.errors import DataUnreadable

Format: TypeAlias = Literal["csv", "json", "jsonl", "parquet"]
Kind: TypeAlias = Literal["text", "integer", "number", "decimal", "boolean", "date", "timestamp"]
PREVIEW: Final = 10
_KINDS: Final[dict[Kind, str]] = {
    "text": "VARCHAR",
    "integer": "BIGINT",
    "number": "DOUBLE",
    "decimal": "DECIMAL(38, 9)",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
}
_HEAD: Final = 4096
_SAMPLE: Final = 64 * 1024
_DELIMITERS: Final = ",;\t|"
# Not BOOLEAN: it would take yes and no for true and false, and write them so.
_GUESSED: Final = "['NULL', 'BIGINT', 'DOUBLE', 'DATE', 'TIMESTAMP', 'TIMESTAMPTZ', 'VARCHAR']"
_LARGEST_RECORD: Final = 16 * 2**20


@dataclass(frozen=True, slots=True)
class FileForm:
    """How a file is to be read; `format` of None is found by its first bytes."""

    format: Format | None = None
    delimiter: str | None = None
    header: bool = True
    encoding: str = "utf-8"
    types: dict[str, Kind] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Described:
    """What a table holds: rows, the columns in order with their types, and its first rows as JSON."""

    rows: int
    columns: list[tuple[str, str]]
    preview: list[dict[str, Any]]


def format_of(path: Path) -> tuple[Format, bool]:
    """Return the format of a file by its first bytes, and whether it is compressed by gzip."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    packed = head[:2] == b"\x1f\x8b"
    if packed:
        try:
            with gzip.open(path) as file:
                head = file.read(_HEAD)
        except (OSError, EOFError, zlib.error):
            raise DataUnreadable("The gzip file is damaged.", field="file_id") from None
    if head[:4] == b"PAR1":
        return "parquet", packed
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return ("json" if text[:1] == b"[" else "jsonl" if text[:1] == b"{" else "csv"), packed


def to_parquet(path: Path, form: FileForm, target: Path, most: int, *, field: str = "file_id") -> None:
    """Read a file of at most `most` rows. Raises `DataUnreadable`, naming the line where it is known."""
    found, packed = format_of(path)
    source = _source(path, form.format or found, form, packed=packed)
    with leashed(target.parent, [path, target]) as connection, file_errors(field):
        connection.execute(f"COPY (SELECT * FROM {source} LIMIT {most + 1}) TO {quoted(target)} (FORMAT parquet)")
    if rows_of(target) > most:
        raise DataUnreadable(f"The table has more rows than the {most} allowed.", field=field, limit=most)


def _source(path: Path, format_: Format, form: FileForm, *, packed: bool) -> str:
    compression = "gzip" if packed else "none"
    place = quoted(path)
    if format_ == "parquet":
        return f"read_parquet({place})"
    if format_ == "csv":
        delimiter = form.delimiter or _delimiter(path, form.encoding, packed=packed)
        # What a sniffer may not guess: it would read a damaged file as another dialect.
        options = [f"delim={quoted(delimiter)}", "quote='\"'", "escape='\"'", "skip=0", "strict_mode=true"]
        options += [
            f"header={form.header}",
            "sample_size=-1",
            f"compression='{compression}'",
            f"auto_type_candidates={_GUESSED}",
        ]
        options += [f"encoding={quoted(form.encoding)}"] if form.encoding != "utf-8" else []
        if form.types:
            said = ", ".join(f"{quoted(name)}: {quoted(_KINDS[kind])}" for name, kind in form.types.items())
            options.append(f"types={{{said}}}")
        return f"read_csv({place}, {', '.join(options)})"
    lines = "array" if format_ == "json" else "auto"
    return (
        f"read_json({place}, format='{lines}', sample_size=-1, compression='{compression}',"
        f" maximum_object_size={_LARGEST_RECORD})"
    )


def _delimiter(path: Path, encoding: str, *, packed: bool) -> str:
    """Return what parts the cells of the first lines into the most columns, equally many in each."""
    with gzip.open(path) if packed else path.open("rb") as file:
        lines = file.read(_SAMPLE).decode(encoding, "replace").splitlines()
    sample = [line for line in lines[:20] if line.strip()]
    best, most = ",", 1
    for delimiter in _DELIMITERS:
        counts = [len(row) for row in csv.reader(sample, delimiter=delimiter)]
        # The last line may be cut, and one damaged line must not hide the delimiter of the header.
        if counts and counts[0] > most and sum(count == counts[0] for count in counts) * 2 > len(counts):
            best, most = delimiter, counts[0]
    return best


def rows_to_parquet(rows: Sequence[dict[str, Any]], target: Path) -> None:
    """Write rows that came with the inputs of a step."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:
        raise DataUnreadable("The table has no columns.", field="rows")
    write_records(rows, names, target)


def merged(parts: Sequence[Path], names: Sequence[str], target: Path) -> None:
    """Write the rows of all parts in order, their columns by name with the types that hold them all."""
    with leashed(target.parent, [*parts, target]) as connection, file_errors("file_id"):
        listed = ", ".join(quoted(part) for part in parts)
        source = f"read_parquet([{listed}], union_by_name=true)"
        there = {row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
        columns = [named(name) if name in there else f"NULL::VARCHAR AS {named(name)}" for name in names]
        query = f"SELECT {', '.join(columns)} FROM {source}"
        connection.execute(f"COPY ({query}) TO {quoted(target)} (FORMAT parquet, COMPRESSION zstd)")


def empty(names: Sequence[str], target: Path) -> None:
    """Write a table of these columns and no rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({name: pa.array([], pa.string()) for name in names or ["empty"]}), target)


def describe(path: Path) -> Described:
    """Return what a Parquet file holds."""
    with leashed(path.parent, [path]) as connection, file_errors("file_id"):
        source = f"SELECT * FROM read_parquet({quoted(path)})"
        columns = [(row[0], row[1].strip('"')) for row in connection.execute(f"DESCRIBE {source}").fetchall()]
        first = connection.execute(f"{source} LIMIT {PREVIEW}").fetchall()
    names = [name for name, _ in columns]
    return Described(rows_of(path), columns, [shown(dict(zip(names, row, strict=True))) for row in first])


def rows_of(path: Path) -> int:
    """Return how many rows a Parquet file holds, by its footer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError):
        raise DataUnreadable("The file is not a readable table.", field="file_id") from None


def read_rows(path: Path, offset: int, limit: int) -> list[dict[str, Any]]:
    """Return some rows of a Parquet file with Python's own values."""
    with leashed(path.parent, [path]) as connection, file_errors("file_id"):
        found = connection.execute(f"SELECT * FROM read_parquet({quoted(path)}) LIMIT {limit} OFFSET {offset}")
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def from_parquet(path: Path, format_: Format, target: Path) -> None:
    """Write a Parquet file in another format."""
    options = {
        "csv": "FORMAT csv, HEADER true",
        "json": "FORMAT json, ARRAY true",
        "jsonl": "FORMAT json",
        "parquet": "FORMAT parquet, COMPRESSION zstd",
    }[format_]
    with leashed(target.parent, [path, target]) as connection, file_errors("file_id"):
        connection.execute(f"COPY (SELECT * FROM read_parquet({quoted(path)})) TO {quoted(target)} ({options})")
