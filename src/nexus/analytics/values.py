"""Turns columns into numbers, times and texts, strictly: the first cell that does not fit is named.

Runs in a compute child.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from nexus.analytics.errors import InvalidTable, InvalidValue, shown
from nexus.analytics.types import Floats

if TYPE_CHECKING:
    import pyarrow as pa

MISSING: Final = ("", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None", "none")
_NUMBER: Final = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_DECIMAL_COMMA: Final = r"^[+-]?\d+(,\d+)?$"
# Squares and sums of squares of anything below stay finite.
LARGEST: Final = 1e100

TimeStyle = Literal["date", "time", "time-utc", "step"]

_ISO = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?)?$"
# In this order; the first that fits every cell is taken. Each is unambiguous by itself.
TIME_FORMATS: Final = (
    (r"^\d{4}-\d{2}$", "%Y-%m"),
    (r"^\d{4}/\d{1,2}/\d{1,2}$", "%Y/%m/%d"),
    (r"^\d{4}/\d{1,2}/\d{1,2} \d{1,2}:\d{2}$", "%Y/%m/%d %H:%M"),
    (r"^\d{4}/\d{1,2}/\d{1,2} \d{1,2}:\d{2}:\d{2}$", "%Y/%m/%d %H:%M:%S"),
    (r"^\d{1,2}\.\d{1,2}\.\d{4}$", "%d.%m.%Y"),
    (r"^\d{1,2}\.\d{1,2}\.\d{4} \d{1,2}:\d{2}$", "%d.%m.%Y %H:%M"),
    (r"^(19|20|21)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$", "%Y%m%d"),
    (r"^(1[5-9]|2[01])\d{2}$", "%Y"),
)
_SLASHED: Final = re.compile(r"^(\d{1,2})/(\d{1,2})/(\d{4})( \d{1,2}:\d{2}(:\d{2})?)?$")


@dataclass(frozen=True, slots=True)
class Times:
    """Parsed times: `datetime64[ns]` in UTC, or `int64` steps; and how they were written."""

    values: NDArray[Any]
    style: TimeStyle


def is_text(column: pa.ChunkedArray) -> bool:
    """Tell whether the column holds strings."""
    import pyarrow as pa

    return bool(pa.types.is_string(column.type))


def texts(column: pa.ChunkedArray) -> list[str | None]:
    """Return the cells as text without spaces around, None for missing ones."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(column.type):
        return [None if cell is None or cell != cell else f"{cell:.15g}" for cell in column.to_pylist()]
    stripped, missing = _stripped(pc.cast(column, pa.string()))
    cells: list[str | None] = pc.if_else(missing, None, stripped).to_pylist()
    return cells


def _stripped(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Return a text column without spaces around its cells, and which of them are missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    stripped = pc.utf8_trim_whitespace(column)
    missing = pc.or_(pc.is_in(stripped, pa.array(MISSING)), pc.is_null(stripped))
    return stripped, missing


def _first(mask: pa.ChunkedArray) -> int:
    """Return the row (from 1) of the first true cell."""
    import pyarrow.compute as pc

    row: int = pc.index(mask, True).as_py()
    return row + 1


def looks_numeric(column: pa.ChunkedArray, *, decimal_comma: bool = False) -> bool:
    """Tell whether every cell that is there is a number, and one is."""
    import pyarrow.compute as pc

    if not is_text(column):
        return _is_number(column)
    stripped, missing = _stripped(column)
    fits = pc.match_substring_regex(stripped, pattern=_NUMBER)
    if decimal_comma:
        fits = pc.or_(fits, pc.match_substring_regex(stripped, pattern=_DECIMAL_COMMA))
    return bool(pc.all(pc.or_(missing, fits)).as_py()) and not bool(pc.all(missing).as_py())


def _is_number(column: pa.ChunkedArray) -> bool:
    import pyarrow as pa

    kind = column.type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def numbers(column: pa.ChunkedArray, name: str, *, decimal_comma: bool = False) -> Floats:
    """Return the cells as float64, NaN for missing ones. Raises `InvalidValue` for the first that is no number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if is_text(column):
        column = _text_to_numbers(column, name, decimal_comma)
    elif not _is_number(column) and not pa.types.is_boolean(column.type) and not pa.types.is_null(column.type):
        raise InvalidValue.at(name, 1, "a number is needed")
    elif pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.int8())
    values: Floats = pc.cast(column, pa.float64(), safe=False).to_numpy().astype(np.float64)
    too_large = np.flatnonzero(np.abs(values) > LARGEST)
    if too_large.size:
        raise InvalidValue.at(name, int(too_large[0]) + 1, "the number must be finite and below 1e100 in size")
    return values


def _text_to_numbers(column: pa.ChunkedArray, name: str, decimal_comma: bool) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    stripped, missing = _stripped(column)
    fits = pc.or_(missing, pc.match_substring_regex(stripped, pattern=_NUMBER))
    if decimal_comma and not pc.all(fits).as_py():
        fits = pc.or_(fits, pc.match_substring_regex(stripped, pattern=_DECIMAL_COMMA))
        stripped = pc.replace_substring(stripped, ",", ".")
    if not pc.all(fits).as_py():
        raise InvalidValue.at(name, _first(pc.invert(fits)), "a number is needed")
    plain = pc.if_else(missing, None, pc.replace_substring_regex(stripped, r"^\+", ""))
    try:
        return pc.cast(plain, pa.float64())
    except pa.ArrowInvalid:
        # Beyond what the fast parser takes, such as 1e999: Python reads it as infinite, which is refused next.
        return pa.chunked_array([pa.array([None if cell is None else float(cell) for cell in plain.to_pylist()])])


def times(column: pa.ChunkedArray, name: str) -> Times:
    """Return the cells as times. Raises `InvalidValue` for the first that is none or is missing.

    Read are ISO 8601 (`2026-01-31`, `2026-01-31T08:00:00Z`), `2026-01`, `2026`, `20260131`, `2026/1/31`, `31.1.2026`,
    `1/31/2026` or `31/1/2026` where the data tell which, and whole numbers as steps.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.null_count:
        raise InvalidValue.at(name, _first(pc.is_null(column)), "a time is needed")
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return _from_stamps(column, name)
    if is_text(column):
        stripped, missing = _stripped(column)
        if pc.any(missing).as_py():
            raise InvalidValue.at(name, _first(missing), "a time is needed")
        return _from_texts(stripped, name)
    return _from_steps(numbers(column, name), name)


def _from_steps(values: Floats, name: str) -> Times:
    whole = np.isfinite(values) & (values == np.round(values)) & (np.abs(values) < 2**53)
    if not whole.all():
        raise InvalidValue.at(name, int(np.flatnonzero(~whole)[0]) + 1, "a time or a whole number is needed")
    return Times(values.astype(np.int64), "step")


def _from_stamps(column: pa.ChunkedArray, name: str) -> Times:
    import pyarrow as pa
    import pyarrow.compute as pc

    utc = pa.types.is_timestamp(column.type) and column.type.tz is not None
    try:
        # To UTC where there is a zone: Arrow stores the instant.
        values = pc.cast(column, pa.timestamp("ns", tz="UTC" if utc else None)).to_numpy()
    except pa.ArrowInvalid:
        raise InvalidTable(f"Column {shown(name)} holds times beyond the years 1678 to 2261.", field=name) from None
    stamps = values.astype("datetime64[ns]")
    return Times(stamps, _style(stamps, utc=utc, dated=pa.types.is_date(column.type)))


def _style(stamps: NDArray[Any], *, utc: bool, dated: bool = False) -> TimeStyle:
    if utc:
        return "time-utc"
    return "date" if dated or bool((stamps == stamps.astype("datetime64[D]")).all()) else "time"


def _from_texts(cells: pa.ChunkedArray, name: str) -> Times:
    import pyarrow.compute as pc

    fits = pc.match_substring_regex(cells, pattern=_ISO)
    if pc.all(fits).as_py():
        zoned = pc.match_substring_regex(cells, pattern=r"(Z|[+-]\d{2}:?\d{2})$")
        with_zone = pc.and_(zoned, pc.match_substring(cells, ":"))
        some, every = bool(pc.any(with_zone).as_py()), bool(pc.all(with_zone).as_py())
        if some and not every:
            raise InvalidValue.at(name, _first(pc.invert(with_zone)), "some times have a zone and this one has none")
        return _parsed(cells, "ISO8601", name, utc=every)
    for pattern, written in TIME_FORMATS:
        if pc.all(pc.match_substring_regex(cells, pattern=pattern)).as_py():
            return _parsed(cells, written, name, utc=False)
    if pc.all(pc.match_substring_regex(cells, pattern=r"^-?\d{1,15}$")).as_py():
        return _from_steps(numbers(cells, name), name)
    if pc.all(pc.match_substring_regex(cells, pattern=_SLASHED.pattern)).as_py():
        return _parsed(cells, _slashed_format(cells, name), name, utc=False)
    likely = [_ISO, *(pattern for pattern, _ in TIME_FORMATS), _SLASHED.pattern]
    best = max(
        (pc.match_substring_regex(cells, pattern=pattern) for pattern in likely), key=lambda m: pc.sum(m).as_py()
    )
    raise InvalidValue.at(name, _first(pc.invert(best)), "a time such as 2026-01-31 or 2026-01-31T08:00:00Z is needed")


def _slashed_format(cells: pa.ChunkedArray, name: str) -> str:
    """Tell day/month from month/day by a part above 12. Raises `InvalidTable` when no cell tells."""
    matches = [match for cell in cells.to_pylist() if (match := _SLASHED.match(cell))]
    first, second = max(int(match[1]) for match in matches), max(int(match[2]) for match in matches)
    if (first > 12) == (second > 12):
        raise InvalidTable(
            f"Column {shown(name)}: day and month cannot be told apart; write 2026-01-31.", field=shown(name)
        )
    clock = {match[4] is not None: (match[5] is not None) for match in matches}
    suffix = "" if True not in clock else " %H:%M:%S" if clock[True] else " %H:%M"
    return ("%d/%m/%Y" if first > 12 else "%m/%d/%Y") + suffix


def _parsed(cells: pa.ChunkedArray, written: str, name: str, *, utc: bool) -> Times:
    import pandas as pd

    parsed = pd.to_datetime(pd.Series(cells.to_pylist()), format=written, errors="coerce", utc=utc)
    if parsed.isna().any():
        row = int(np.flatnonzero(parsed.isna().to_numpy())[0]) + 1
        raise InvalidValue.at(name, row, "there is no such time, or it is beyond the years 1678 to 2261")
    stamps = (parsed.dt.tz_localize(None) if utc else parsed).to_numpy().astype("datetime64[ns]")
    return Times(stamps, _style(stamps, utc=utc))
