"""What a compute child tells about a data set: its schema and its first rows."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

from nexus.analytics.encoding import describe
from nexus.analytics.reading import read_table
from nexus.analytics.types import Column, Limits, Source


def inspect_dataset(source: Source, limits: Limits) -> tuple[int, list[Column]]:
    """Return the number of rows and what every column holds. Raises as `read_table` does."""
    table = read_table(source, limits)
    return table.rows, describe(table)


def preview_dataset(source: Source, limits: Limits, first: int) -> list[dict[str, Any]]:
    """Return the first rows as they are written: the cells of a CSV stay text, null is missing."""
    table = read_table(source, limits)
    columns = {name: column.slice(0, first).to_pylist() for name, column in table.columns.items()}
    return [{name: _plain(cells[row]) for name, cells in columns.items()} for row in range(min(first, table.rows))]


def _plain(cell: Any) -> Any:
    """Return a cell as JSON can carry it; a number that is none becomes null."""
    if isinstance(cell, (datetime, date)):
        return cell.isoformat()
    if isinstance(cell, Decimal):
        return float(cell)
    if isinstance(cell, float) and (cell != cell or cell in (float("inf"), float("-inf"))):
        return None
    return cell
