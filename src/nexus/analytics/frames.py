"""A table becomes series: find the columns, parse them, sort, and refuse what no forecaster could use.

Runs in a compute child.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nexus.analytics import frequency as frequencies
from nexus.analytics.errors import InvalidSeries, InvalidTable, InvalidValue, TableTooLarge, shown
from nexus.analytics.reading import Table
from nexus.analytics.types import Fill, Series, SeriesColumns
from nexus.analytics.values import TimeStyle, looks_numeric, numbers, texts, times

_DS = ("ds", "date", "datetime", "timestamp", "time", "day", "month", "week", "year", "period")
_Y = ("y", "value", "values", "sales", "amount", "quantity", "target", "count", "total", "demand")
_ID = ("unique_id", "series_id", "series", "id", "item_id", "item", "store", "sku", "name", "group")
MINIMUM = 3


@dataclass(frozen=True, slots=True)
class Frame:
    """Series of one frequency, and how their times were written."""

    series: list[Series]
    frequency: str
    style: TimeStyle

    def render_times(self, stamps: NDArray[Any]) -> list[Any]:
        """Return times as they were written: dates, ISO times, or whole numbers."""
        if self.style == "step":
            return [int(stamp) for stamp in stamps]
        if self.style == "date" and bool((stamps == stamps.astype("datetime64[D]")).all()):
            return [str(stamp) for stamp in stamps.astype("datetime64[D]")]
        whole = bool((stamps == stamps.astype("datetime64[s]")).all())
        rendered = stamps.astype("datetime64[s]" if whole else "datetime64[us]")
        return [f"{stamp}Z" if self.style == "time-utc" else str(stamp) for stamp in rendered]


def find_columns(table: Table, wanted: SeriesColumns) -> SeriesColumns:
    """Complete the mapping by usual names, then by what is left over.

    Raises `ColumnNotFound` for a named column that is not there, and `InvalidTable` when the time or the
    value column cannot be told.
    """
    for name in (wanted.unique_id, wanted.ds, wanted.y):
        if name is not None:
            table.column(name)
    by_lower = {name.lower(): name for name in table.columns}
    taken = {name for name in (wanted.unique_id, wanted.ds, wanted.y) if name is not None}

    def usual(names: tuple[str, ...]) -> str | None:
        found = next((by_lower[name] for name in names if by_lower.get(name) not in (None, *taken)), None)
        if found is not None:
            taken.add(found)
        return found

    ds = wanted.ds or usual(_DS)
    y = wanted.y or usual(_Y)
    unique_id = wanted.unique_id or usual(_ID)
    rest = [name for name in table.columns if name not in taken]
    if y is None:
        numeric = [name for name in rest if looks_numeric(table.columns[name], decimal_comma=table.decimal_comma)]
        y = numeric[0] if len(numeric) == 1 else rest[0] if len(rest) == 1 and ds is not None else None
    if ds is None:
        rest = [name for name in rest if name != y]
        ds = rest[0] if len(rest) == 1 else None
    for what, field, found in (("times", "ds", ds), ("values", "y", y)):
        if found is None:
            known = [shown(name) for name in list(table.columns)[:50]]
            raise InvalidTable(f"Which column holds the {what}? Name it as {field}.", field=field, columns=known)
    return SeriesColumns(unique_id, ds, y)


def to_frame(table: Table, columns: SeriesColumns, *, frequency: str | None, fill: Fill, max_series: int) -> Frame:
    """Return the table's series, each sorted by time and complete.

    Raises `InvalidValue` (a cell), `InvalidSeries` (duplicates, gaps, irregular or too short),
    `FrequencyUnclear`, `TableTooLarge` (too many series).
    """
    found = find_columns(table, columns)
    assert found.ds is not None
    assert found.y is not None
    stamps = times(table.column(found.ds), found.ds)
    y = numbers(table.column(found.y), found.y, decimal_comma=table.decimal_comma)
    if fill == "none" and np.isnan(y).any():
        row = int(np.flatnonzero(np.isnan(y))[0]) + 1
        raise InvalidValue.at(found.y, row, "the value is missing; send one, or choose a fill")
    ids, places = identities(table, found.unique_id)
    if len(ids) > max_series:
        raise TableTooLarge(f"There are {len(ids)} series; {max_series} are allowed.", field=found.unique_id or "file")
    order = np.lexsort((stamps.values, places))
    _refuse_duplicates(places[order], stamps.values[order], ids)
    bounds = np.searchsorted(places[order], np.arange(len(ids) + 1))
    series = []
    for number, unique_id in enumerate(ids):
        rows = order[bounds[number] : bounds[number + 1]]
        keep = rows[~np.isnan(y[rows])]
        if len(keep) < MINIMUM:
            raise InvalidSeries(
                f"Series {shown(unique_id)} has {len(keep)} observations; at least {MINIMUM} are needed.", field="y"
            )
        series.append(Series(unique_id, stamps.values[keep], y[keep]))
    chosen = frequencies.canonical(frequency) if frequency else frequencies.infer(series)
    if (chosen == frequencies.STEP) != (stamps.style == "step"):
        raise InvalidSeries("The frequency does not fit the kind of times in the table.", field="frequency")
    return Frame([completed(one, chosen, fill) for one in series], chosen, stamps.style)


def identities(table: Table, column: str | None) -> tuple[list[str], NDArray[np.int64]]:
    """Return the ids in order of appearance, and for each row the place of its id."""
    if column is None:
        return ["series"], np.zeros(table.rows, dtype=np.int64)
    cells = texts(table.column(column))
    known: dict[str, int] = {}
    places = np.empty(table.rows, dtype=np.int64)
    for row, cell in enumerate(cells):
        if cell is None:
            raise InvalidValue.at(column, row + 1, "the name of the series is missing")
        places[row] = known.setdefault(cell, len(known))
    return list(known), places


def _refuse_duplicates(places: NDArray[np.int64], stamps: NDArray[Any], ids: list[str]) -> None:
    same = (places[1:] == places[:-1]) & (stamps[1:] == stamps[:-1])
    if same.any():
        first = int(np.flatnonzero(same)[0]) + 1
        when = stamps[first] if stamps.dtype.kind == "i" else stamps[first].astype("datetime64[s]")
        raise InvalidSeries(f"Series {shown(ids[places[first]])} has {when} more than once.", field="ds")


def completed(series: Series, frequency: str, fill: Fill) -> Series:
    """Return the series on its full grid; gaps are filled, or refused by `InvalidSeries` with `fill` none."""
    full = frequencies.grid(series, frequency)
    if len(full) == len(series.ds):
        return series
    present = np.isin(full, series.ds)
    if fill == "none":
        gap = full[np.flatnonzero(~present)[0]]
        when = gap if gap.dtype.kind == "i" else gap.astype("datetime64[s]")
        raise InvalidSeries(
            f"Series {shown(series.unique_id)} has no observation for {when}; send it, or choose a fill.", field="ds"
        )
    where = np.flatnonzero(present)
    every = np.arange(len(full))
    if fill == "linear":
        y = np.interp(every, where, series.y)
    elif fill == "last":
        y = series.y[np.searchsorted(where, every, side="right") - 1]
    else:
        y = np.zeros(len(full))
        y[where] = series.y
    return replace(series, ds=full, y=y)
