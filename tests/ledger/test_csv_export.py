from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from nexus.ledger.csv_export import csv_rows, safe_cell


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("  =1", "'  =1"),
        ("＝1", "'＝1"),  # noqa: RUF001  a full-width sign, which some spreadsheets take for =
        ("gpt-4o", "gpt-4o"),
        ("a=b", "a=b"),
        ("", ""),
        (None, ""),
        (-1, -1),
        (-1.5, -1.5),
        (True, True),
    ],
)
def test_no_cell_is_a_formula(value: Any, cell: Any) -> None:
    assert safe_cell(value) == cell


def test_hostile_names_read_back_as_one_cell() -> None:
    rows = [{"model": 'a,"b"\n=1', "cost_usd": -0.5}, {"model": "=1+1", "cost_usd": 2.0}]
    read = list(csv.reader(io.StringIO("".join(csv_rows(rows)))))
    assert read == [["model", "cost_usd"], ['a,"b"\n=1', "-0.5"], ["'=1+1", "2.0"]]
    assert list(csv_rows([])) == []
