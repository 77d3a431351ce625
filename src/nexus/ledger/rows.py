"""Records as the database takes them: the journal's lines decoded straight into the order of the columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from sqlalchemy import String

from nexus.ledger.tables import InvocationRow
from nexus.ledger.types import Invocation

_columns = InvocationRow.__table__.columns
_LIMITS: Final = {
    column.name: column.type.length for column in _columns if isinstance(column.type, String) and column.type.length
}
_CHANGED: Final = ("created_at", "details")
_TAKEN_OVER: Final = [column.name for column in _columns if column.name not in (*_CHANGED, "day")]
COLUMNS: Final = ["created_at", "day", "details", *_TAKEN_OVER]
"""The columns in the order of the values that the functions here return."""


def _field(known: msgspec.structs.FieldInfo) -> tuple[str, Any] | tuple[str, Any, Any]:
    """Return the member of a row for that of a record: text has its column's length, details stay JSON."""
    name, kind = known.name, known.type
    if name == "created_at":
        return name, str
    if name == "details":
        return name, msgspec.Raw, msgspec.Raw(b"{}")
    if name in _LIMITS and kind in (str, str | None):
        text: Any = Annotated[str, msgspec.Meta(max_length=_LIMITS[name])]
        kind = text if kind is str else text | None
    return (name, kind) if known.default is msgspec.NODEFAULT else (name, kind, known.default)


_known = {field.name: field for field in msgspec.structs.fields(Invocation)}
_Row: Final = msgspec.defstruct(
    "_Row", [_field(_known[name]) for name in (*_CHANGED, *_TAKEN_OVER)], kw_only=True, gc=False
)
_MOMENT: Final = len("2026-11-23T07:14:05.123456Z")
_astuple: Final = msgspec.structs.astuple
_decode: Final[Callable[[bytes], Any]] = msgspec.json.Decoder(list[_Row]).decode  # type: ignore[valid-type]


def columns_of_lines(lines: Sequence[bytes], *, is_sqlite: bool) -> list[Sequence[Any]]:
    """Return the values of lines of the journal as the driver takes them, column by column.

    Raises `msgspec.DecodeError` or `ValueError` where one of them is torn or does not fit its columns.
    """
    together = b",".join(lines)
    # A NUL perhaps, which PostgreSQL refuses, or half a character; one byte is found much faster than two.
    if b"\\" in together and b"\\u" in together:
        raise ValueError("a line with escaped characters")
    rows = _decode(b"[%b]" % together)
    if len(rows) != len(lines):
        raise ValueError("lines that are not one record each")
    told, details, *others = zip(*map(_astuple, rows), strict=True)
    moments = list(map(datetime.fromisoformat, told))
    if any(len(text) != _MOMENT or text[-1] != "Z" for text in told):
        raise ValueError("a time that is not written as usual")
    days = [text[:10] for text in told]
    at = [f"{text[:10]} {text[11:-1]}" for text in told] if is_sqlite else moments
    return [at, days, [str(raw, "utf-8") for raw in details], *others]


def values_of(invocation: Invocation, *, is_sqlite: bool) -> tuple[Any, ...]:
    """Return the same of any record: text is cut to its column and freed of NUL."""
    values = msgspec.structs.asdict(invocation)
    moment: datetime = values["created_at"]
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    text = moment.isoformat(" ", "microseconds")
    for name, limit in _LIMITS.items():
        value = values.get(name)
        if value is not None:
            values[name] = value.replace("\0", "")[:limit]
    values["day"] = text[:10]
    values["created_at"] = text[:26] if is_sqlite else moment
    values["details"] = msgspec.json.encode(invocation.details).decode()
    return tuple(values[name] for name in COLUMNS)
