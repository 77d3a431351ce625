"""Columns become numbers, the same way when training and when asked: what was learned is pinned.

A category keeps the levels of its training data; one that is new later counts as missing, and never
shifts the numbers of the others (the fault in microsoft/FLAML issue 1101). Runs in a compute child.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nexus.analytics.errors import InvalidValue, shown
from nexus.analytics.reading import Table
from nexus.analytics.types import Column, Floats, Kind
from nexus.analytics.values import LARGEST, MISSING, TIME_FORMATS, is_text, looks_numeric, numbers, texts, times
from nexus.core.errors import NexusError

MAX_LEVELS: Final = 1000
_BOOLEAN: Final = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
_PARTS: Final = 5  # of a time: year, month, day, weekday, hour
_WHOLE: Final = re.compile(r"^-?\d+\.0+$")


@dataclass(frozen=True, slots=True)
class Feature:
    """One input column of a model: its kind, and for a category its levels in order."""

    name: str
    kind: Kind
    levels: list[str] = field(default_factory=list)

    @property
    def width(self) -> int:
        """Return how many numbers it becomes."""
        return _PARTS if self.kind == "time" else 1


def describe(table: Table) -> list[Column]:
    """Return kind, missing cells and distinct values of every column."""
    import pyarrow.compute as pc

    columns = []
    for name, data in table.columns.items():
        cells = texts(data) if is_text(data) else None
        missing = sum(cell is None for cell in cells) if cells is not None else data.null_count
        distinct = len(set(cells) - {None}) if cells is not None else int(pc.count_distinct(data).as_py())
        columns.append(Column(name, _kind(table, name, cells, missing, distinct), missing, distinct))
    return columns


def _kind(table: Table, name: str, cells: list[str | None] | None, missing: int, distinct: int) -> Kind:
    import pyarrow as pa

    data = table.columns[name]
    if pa.types.is_boolean(data.type):
        return "boolean"
    if pa.types.is_timestamp(data.type) or pa.types.is_date(data.type):
        return "time"
    if looks_numeric(data, decimal_comma=table.decimal_comma):
        return "number"
    if cells is None or distinct == 0:
        return "number" if cells is None else "text"
    levels = {cell.lower() for cell in cells if cell is not None}
    if levels <= set(_BOOLEAN):
        return "boolean"
    if _time_values(cells, name) is not None:
        return "time"
    there = len(cells) - missing
    return "category" if distinct <= 20 or (distinct <= MAX_LEVELS and distinct * 2 <= there) else "text"


def _time_values(cells: Sequence[str | None], name: str) -> NDArray[Any] | None:
    """Return the cells as `datetime64[ns]`, NaT for missing; None when they are no times."""
    import pyarrow as pa

    present = [cell for cell in cells if cell is not None]
    try:
        parsed = times(pa.chunked_array([pa.array(present, pa.string())]), name)
    except NexusError:
        return None
    if parsed.style == "step":
        return None
    values = np.full(len(cells), np.datetime64("NaT", "ns"))
    values[[place for place, cell in enumerate(cells) if cell is not None]] = parsed.values
    return values


def learn_features(table: Table, columns: Sequence[Column]) -> tuple[list[Feature], dict[str, str]]:
    """Return the usable features among `columns`, and why each of the others is left out."""
    features, ignored = [], {}
    for column in columns:
        if column.distinct is not None and column.distinct < 2:
            ignored[column.name] = "it always has the same value"
        elif column.kind == "text":
            ignored[column.name] = "nearly every row has a text of its own"
        elif column.kind == "category":
            levels = sorted({cell for cell in texts(table.columns[column.name]) if cell is not None})
            features.append(Feature(column.name, "category", levels))
        else:
            features.append(Feature(column.name, column.kind))
    return features, ignored


class Encoder:
    """Turns tables and rows into the matrix that the features describe."""

    def __init__(self, features: Sequence[Feature]) -> None:
        """Work with these features, in this order."""
        self.features = list(features)
        self._codes = {one.name: {level: code for code, level in enumerate(one.levels)} for one in self.features}
        starts = np.cumsum([0, *(one.width for one in self.features)])
        self.width = int(starts[-1])
        self.categorical = [
            int(start) for start, one in zip(starts, self.features, strict=False) if one.kind == "category"
        ]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the features as JSON members."""
        return [asdict(one) for one in self.features]

    @classmethod
    def from_json(cls, members: Sequence[Mapping[str, Any]]) -> Encoder:
        """Rebuild an encoder from `to_json`."""
        return cls([Feature(one["name"], one["kind"], list(one["levels"])) for one in members])

    def encode_table(self, table: Table) -> Floats:
        """Return rows x `width`. Raises `ColumnNotFound` and `InvalidValue`."""
        parts = [self._table_column(table, one) for one in self.features]
        return np.column_stack(parts) if parts else np.empty((table.rows, 0))

    def _table_column(self, table: Table, feature: Feature) -> Floats:
        data = table.column(feature.name)
        if feature.kind == "number":
            return numbers(data, feature.name, decimal_comma=table.decimal_comma)
        if feature.kind == "time":
            values = _time_values(texts(data), feature.name) if is_text(data) else data.to_numpy()
            return _parts(values.astype("datetime64[s]")) if values is not None else np.full((table.rows, 5), np.nan)
        cells = texts(data)
        if feature.kind == "boolean":
            return np.array([_BOOLEAN.get((cell or "").lower(), np.nan) for cell in cells])
        codes = self._codes[feature.name]
        return np.array([np.nan if cell is None else codes.get(cell, np.nan) for cell in cells])

    def encode_rows(self, rows: Sequence[Mapping[str, Any]], *, target: str | None = None) -> Floats:
        """Return rows x `width` for rows as they came in; an absent or null cell counts as missing.

        The target may be among the cells and is not looked at. Raises `InvalidValue`, its field such as
        `rows.0.age`, for a cell that does not fit and for a name that the model does not know.
        """
        known = {one.name for one in self.features}
        matrix = np.full((len(rows), self.width), np.nan)
        for number, row in enumerate(rows):
            strange = [name for name in row if name not in known and name != target]
            if strange:
                raise InvalidValue(
                    f"The model does not know the column {shown(strange[0])}.",
                    field=f"rows.{number}.{shown(strange[0])}",
                    columns=sorted(known)[:100],
                )
            if not known & row.keys():
                raise InvalidValue("The row has none of the model's columns.", field=f"rows.{number}")
            start = 0
            for one in self.features:
                cell = row.get(one.name)
                if cell is not None:
                    matrix[number, start : start + one.width] = self._cell(one, cell, f"rows.{number}.{one.name}")
                start += one.width
        return matrix

    def _cell(self, feature: Feature, cell: Any, place: str) -> Any:
        if isinstance(cell, str) and cell.strip() in MISSING:
            return np.nan
        if feature.kind == "number":
            if isinstance(cell, bool) or not isinstance(cell, (int, float)) or not abs(cell) <= LARGEST:
                raise InvalidValue("A number is needed.", field=place)
            return float(cell)
        if isinstance(cell, (dict, list)):
            raise InvalidValue("A number, a text, true or false is needed.", field=place)
        text = _plain_text(cell)
        if feature.kind == "boolean":
            if text.lower() not in _BOOLEAN:
                raise InvalidValue("true or false is needed.", field=place)
            return _BOOLEAN[text.lower()]
        if feature.kind == "category":
            return self._codes[feature.name].get(text, np.nan)
        return _parts(np.array([_iso(text, place)], dtype="datetime64[s]"))[0]


def _plain_text(cell: Any) -> str:
    """Return a category as the training data would have written it: `3.0` is `3`, True is `true`."""
    if isinstance(cell, bool):
        return str(cell)
    text = str(cell).strip()
    return text.partition(".")[0] if isinstance(cell, float) and _WHOLE.match(text) else text


def _iso(text: str, place: str) -> datetime:
    try:
        written = next((form for pattern, form in TIME_FORMATS if re.match(pattern, text)), None)
        moment = datetime.fromisoformat(text) if written is None else datetime.strptime(text, written)
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise InvalidValue("A time such as 2026-01-31 or 2026-01-31T08:00:00Z is needed.", field=place) from None


def _parts(stamps: NDArray[Any]) -> Floats:
    """Return year, month, day, weekday (Monday 0) and hour of each time, NaN for NaT."""
    missing = np.isnat(stamps)
    safe = np.where(missing, np.datetime64(0, "s"), stamps)
    days, months = safe.astype("datetime64[D]"), safe.astype("datetime64[M]")
    parts = np.column_stack(
        (
            safe.astype("datetime64[Y]").astype(np.int64) + 1970,
            months.astype(np.int64) % 12 + 1,
            (days - months.astype("datetime64[D]")).astype(np.int64) + 1,
            (days.astype(np.int64) + 3) % 7,
            (safe - days).astype("timedelta64[h]").astype(np.int64),
        )
    ).astype(np.float64)
    parts[missing] = np.nan
    return parts
