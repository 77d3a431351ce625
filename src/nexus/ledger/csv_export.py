"""Usage as CSV that is safe to open in a spreadsheet.

A cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return is a formula to a spreadsheet, and names
come from callers; such cells get a leading apostrophe
(https://owasp.org/www-community/attacks/CSV_Injection). Numbers stay numbers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def safe_cell(value: Any) -> Any:
    """Return the value as a cell that no spreadsheet runs."""
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return value
    text = str(value)
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) or text.startswith(_FORMULA) else text


def csv_rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the header and each row as a line of CSV (RFC 4180)."""
    if not rows:
        return
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    for values in (list(rows[0]), *(list(row.values()) for row in rows)):
        writer.writerow([safe_cell(value) for value in values])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
