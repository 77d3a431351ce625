"""Cells of tables as JSON, and records of JSON or a database as columns of a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    import pyarrow as pa

_LONGEST_SHOWN: Final = 200
_PLAIN: Final = (str, int, bool, type(None))


def plain(value: Any) -> Any:
    """Return a cell as JSON: moments as RFC 3339, exact decimals as numbers, bytes as hex, no NaN."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return plain(float(value)) if value != value.to_integral_value() else int(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, Sequence):
        return [plain(one) for one in value]
    return str(value)


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row for a preview: long texts are cut."""
    return {name: _short(plain(value)) for name, value in row.items()}


def _short(value: Any) -> Any:
    if isinstance(value, list | dict):
        value = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    return f"{value[:_LONGEST_SHOWN]}..." if isinstance(value, str) and len(value) > _LONGEST_SHOWN else value


def write_records(records: Sequence[Mapping[str, Any]], names: Sequence[str], path: Path) -> None:
    """Write records as Parquet. Columns that hold nothing at all are left out: their type is not known yet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: _array([_cell(record.get(name)) for record in records]) for name in names}
    kept = {name: column for name, column in columns.items() if not pa.types.is_null(column.type)}
    if not kept:
        kept = {name: column.cast(pa.string()) for name, column in columns.items()}
    pq.write_table(pa.table(kept), path, compression="zstd")


def _array(cells: list[Any]) -> pa.Array:
    import pyarrow as pa

    try:
        return pa.array(cells)
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        # Kinds that do not mix are kept as texts.
        return pa.array([None if cell is None else _text(cell) for cell in cells], pa.string())


def _cell(value: Any) -> Any:
    """Return a value as a table can hold it: what is nested becomes JSON text."""
    if isinstance(value, bool | int | float | str | Decimal | datetime | date | time | bytes | type(None)):
        return value
    if isinstance(value, memoryview | bytearray):
        return bytes(value)
    if isinstance(value, list) and value and all(type(one) is float for one in value):
        # A vector.
        return value
    if isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str)):
        return orjson.dumps(plain(value), option=orjson.OPT_NON_STR_KEYS).decode()
    return str(value)


def _text(cell: Any) -> str:
    if isinstance(cell, bool):
        return str(cell).lower()
    return str(plain(cell)) if isinstance(cell, bytes | date | datetime) else str(cell)
