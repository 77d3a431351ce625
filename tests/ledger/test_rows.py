"""A line of the journal comes to the same row, whether it is taken over as it is or record by record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from nexus.ledger.journal import encode
from nexus.ledger.rows import COLUMNS, columns_of_lines, values_of
from nexus.ledger.tables import InvocationRow
from nexus.ledger.types import Invocation


def invocation(**changes: object) -> Invocation:
    return Invocation(**({"project_id": "prj_a", "principal_id": "key_a", "kind": "chat", "model": "m"} | changes))


def test_every_column_has_a_value() -> None:
    assert sorted(COLUMNS) == sorted(column.name for column in InvocationRow.__table__.columns)


@pytest.mark.parametrize("is_sqlite", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": "é" * 255, "request_id": "r" * 64, "version": 2, "cached": True},
        {"details": {"finish_reason": "stop", "said": 'a "quoted"\nword', "nested": [1, None, 2.5]}},
        {"cost_usd": 0.000125, "input_tokens": 2**40, "status": "error", "error_code": "x"},
    ],
)
def test_both_ways_come_to_the_same(changes: dict[str, object], is_sqlite: bool) -> None:
    one = invocation(created_at=datetime(2026, 11, 26, 23, 59, 59, 120, UTC), **changes)
    [values] = zip(*columns_of_lines([encode(one).rstrip(b"\n")], is_sqlite=is_sqlite), strict=True)
    assert values == values_of(one, is_sqlite=is_sqlite)
    assert len(values) == len(COLUMNS)
    assert values[COLUMNS.index("day")] == "2026-11-26"


@pytest.mark.parametrize(
    "line",
    [
        encode(invocation(model="m" * 256)),
        encode(invocation(request_id="r" * 65)),
        encode(invocation(model="a\0b")),
        encode(invocation(details={"nul": "\0"})),
        encode(invocation(created_at=datetime(2026, 11, 26, 1, tzinfo=timezone(timedelta(hours=2))))),
        encode(invocation(created_at=datetime(2026, 11, 26, 1, 2, 3))),
        encode(invocation(created_at=datetime(2026, 11, 26, 1, 2, 3, tzinfo=UTC))),
        encode(invocation())[:40],
        b"\0\0",
        b'{"project_id":"\xff"}',
    ],
)
def test_what_needs_care_is_not_taken_over(line: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, ValueError)):
        columns_of_lines([line.rstrip(b"\n")], is_sqlite=True)


def test_one_torn_line_spoils_the_lot() -> None:
    whole = encode(invocation()).rstrip(b"\n")
    assert {len(column) for column in columns_of_lines([whole] * 3, is_sqlite=True)} == {3}
    for torn in (whole[:40], whole + b"," + whole, b""):
        with pytest.raises((msgspec.DecodeError, ValueError)):
            columns_of_lines([whole, torn, whole], is_sqlite=True)
