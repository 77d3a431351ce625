"""Reads a file or rows into a table of columns, strictly and within limits. Runs in a compute child.

CSV (any usual delimiter and encoding, gzip too), Parquet, and JSON rows. Nothing is guessed about
values here: the cells of a CSV stay text until `values` is asked for numbers or times.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nexus.analytics.errors import ColumnNotFound, InvalidTable, InvalidValue, TableTooLarge, shown
from nexus.analytics.types import Limits, Source

if TYPE_CHECKING:
    import pyarrow as pa

_BOMS: Final = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_DELIMITERS: Final = ",;\t|"
_GZIP_LIMIT: Final = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Table:
    """Columns by name, in order. `decimal_comma` says that numbers may be written `1,5`."""

    columns: dict[str, pa.ChunkedArray]
    rows: int
    decimal_comma: bool = False

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column. Raises `ColumnNotFound`, naming those that are there."""
        if name not in self.columns:
            known = [shown(column) for column in list(self.columns)[:50]]
            raise ColumnNotFound(f"The table has no column {shown(name)}.", field=shown(name), columns=known)
        return self.columns[name]


def read_table(source: Source, limits: Limits) -> Table:
    """Read the source. Raises `InvalidTable`, `InvalidValue` or `TableTooLarge`."""
    if source.rows is not None:
        return _from_rows(source.rows, limits)
    content = source.content if source.content is not None else _read(source)
    if content[:2] == b"\x1f\x8b":
        content = _gunzip(content)
    if content[:4] == b"PAR1":
        return _from_parquet(content, limits)
    return _from_csv(content, limits)


def _read(source: Source) -> bytes:
    assert source.path is not None
    return source.path.read_bytes()


def _gunzip(content: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            plain = file.read(_GZIP_LIMIT + 1)
    except (OSError, EOFError, zlib.error):
        raise InvalidTable("The gzip file is damaged.", field="file") from None
    if len(plain) > _GZIP_LIMIT:
        raise TableTooLarge("The file is too large once unpacked.", field="file")
    return plain


def check_shape(rows: int, columns: int, limits: Limits) -> None:
    """Raise `TableTooLarge` for too many rows, columns or cells, and `InvalidTable` for none."""
    if columns == 0 or rows == 0:
        raise InvalidTable("The table has no rows.", field="file")
    for what, count, most in (
        ("columns", columns, limits.columns),
        ("rows", rows, limits.rows),
        ("cells", rows * columns, limits.cells),
    ):
        if count > most:
            raise TableTooLarge(f"The table has {count} {what}; {most} are allowed.", field="file", limit=most)


# ---------------------------------------------------------------- CSV


def _from_csv(content: bytes, limits: Limits) -> Table:
    import pyarrow as pa
    import pyarrow.csv as arrow_csv

    text = _utf8(content).lstrip(b"\r\n")
    delimiter = _delimiter(text)
    names = _header(text, delimiter, limits)
    broken: list[int] = []

    def remember(row: Any) -> str:
        broken.append(int(row.number or 0))
        return "error"

    try:
        table = arrow_csv.read_csv(
            io.BytesIO(text),
            read_options=arrow_csv.ReadOptions(
                use_threads=False, block_size=min(len(text) + 1, 2**31 - 1), column_names=names, skip_rows=0
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=remember
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, null_values=[]
            ),
        )
    except pa.ArrowInvalid:
        if broken:
            raise InvalidTable(
                f"Line {broken[0]} has another number of cells than the header's {len(names)}.",
                field="file",
                row=max(0, broken[0] - 1),
            ) from None
        raise InvalidTable("The file is not a readable CSV table.", field="file") from None
    # The header is read as a row so that a name may be quoted as it likes; see `_header`.
    table = table.slice(1)
    if table.num_columns != len(names):
        raise InvalidTable("The header line does not fit the rows.", field="file")
    check_shape(table.num_rows, table.num_columns, limits)
    columns = dict(zip(names, table.columns, strict=True))
    _check_cells(columns, limits)
    return Table(columns, table.num_rows, decimal_comma=delimiter == ";")


def _utf8(content: bytes) -> bytes:
    """Return the text as UTF-8 without a byte order mark."""
    if not content.strip():
        raise InvalidTable("The file is empty.", field="file")
    for mark, encoding in _BOMS:
        if content.startswith(mark):
            return _recoded(content, encoding)
    if b"\0" in content[:4096]:
        raise InvalidTable("The file is neither CSV text nor Parquet.", field="file")
    try:
        content.decode()
    except UnicodeDecodeError:
        # Spreadsheets on Windows write this where they do not write UTF-8; it can read any bytes but five.
        content = _recoded(content, "cp1252")
    if b"\0" in content:
        raise InvalidTable("The file contains a NUL character.", field="file")
    return content


def _recoded(content: bytes, encoding: str) -> bytes:
    try:
        return content.decode(encoding).encode()
    except UnicodeError:
        raise InvalidTable("The encoding of the file is not clear; send UTF-8.", field="file") from None


def _delimiter(text: bytes) -> str:
    """Return the delimiter that splits the first lines into the most cells, equally many in each."""
    sample = text[: 64 * 1024].decode(errors="replace").splitlines()[:20]
    sample = [line for line in sample if line.strip()]
    best, most = ",", 1
    for delimiter in _DELIMITERS:
        try:
            counts = {len(row) for row in csv.reader(sample[: max(1, len(sample) - 1)], delimiter=delimiter)}
        except csv.Error:
            continue
        if len(counts) == 1 and (cells := counts.pop()) > most:
            best, most = delimiter, cells
    return best


def _header(text: bytes, delimiter: str, limits: Limits) -> list[str]:
    """Return the names of the header: stripped, each once, none empty."""
    head = text[: 4 * 1024 * 1024].decode(errors="replace")
    try:
        names = [name.strip() for name in next(csv.reader(io.StringIO(head), delimiter=delimiter))]
    except (csv.Error, StopIteration):
        raise InvalidTable("The file has no readable header line.", field="file") from None
    if len(names) > limits.columns:
        raise TableTooLarge(
            f"The table has {len(names)} columns; {limits.columns} are allowed.", field="file", limit=limits.columns
        )
    for number, name in enumerate(names, start=1):
        if not name:
            raise InvalidTable(f"Column {number} has no name in the header line.", field="file")
        if names.count(name) > 1:
            raise InvalidTable(f"Two columns are called {shown(name)}.", field=shown(name))
    return names


def _check_cells(columns: dict[str, pa.ChunkedArray], limits: Limits) -> None:
    import pyarrow.compute as pc

    for name, column in columns.items():
        lengths = pc.binary_length(column)
        longest = pc.max(lengths).as_py() or 0
        if longest > limits.cell_bytes:
            row = pc.index(lengths, longest).as_py() + 1
            raise TableTooLarge(
                f"Column {shown(name)}, row {row}: the cell has {longest} bytes; {limits.cell_bytes} are allowed.",
                field=shown(name),
                row=row,
            )


# ---------------------------------------------------------------- Parquet


def _from_parquet(content: bytes, limits: Limits) -> Table:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(content))
        # Before anything is unpacked: a small file may claim billions of rows.
        check_shape(file.metadata.num_rows, file.metadata.num_columns, limits)
        table = file.read(use_threads=False)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError):
        raise InvalidTable("The file is not a readable Parquet table.", field="file") from None
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type
        if pa.types.is_dictionary(kind):
            column, kind = pc.cast(column, kind.value_type), kind.value_type
        if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            column = pc.cast(column, pa.string())
        elif not _usable(kind):
            raise InvalidTable(f"Column {shown(name)} holds {kind}, which is not usable here.", field=shown(name))
        if name in columns:
            raise InvalidTable(f"Two columns are called {shown(name)}.", field=shown(name))
        columns[name] = column
    _check_cells({name: column for name, column in columns.items() if column.type == pa.string()}, limits)
    return Table(columns, table.num_rows)


def _usable(kind: pa.DataType) -> bool:
    import pyarrow as pa

    tests = ("integer", "floating", "decimal", "boolean", "string", "timestamp", "date", "null")
    return any(getattr(pa.types, f"is_{test}")(kind) for test in tests)


# ---------------------------------------------------------------- JSON rows


def _from_rows(rows: list[dict[str, Any]], limits: Limits) -> Table:
    import pyarrow as pa

    names = list(dict.fromkeys(name for row in rows for name in row))
    check_shape(len(rows), len(names), limits)
    columns = {}
    for name in names:
        cells = [row.get(name) for row in rows]
        for number, cell in enumerate(cells, start=1):
            if isinstance(cell, (dict, list)):
                raise InvalidValue.at(name, number, "a number, a text, true, false or null is needed")
        if all(cell is None or (isinstance(cell, (int, float)) and not isinstance(cell, bool)) for cell in cells):
            array = pa.array([None if cell is None else float(cell) for cell in cells], pa.float64())
        else:
            array = pa.array([_text(cell) for cell in cells], pa.string())
        columns[name] = pa.chunked_array([array])
    _check_cells({name: column for name, column in columns.items() if column.type == pa.string()}, limits)
    return Table(columns, len(rows))


def _text(cell: Any) -> str | None:
    if cell is None or isinstance(cell, str):
        return cell
    return str(cell).lower() if isinstance(cell, bool) else str(cell)
