"""Columns become the same numbers when asked as when trained."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest

from nexus.analytics.encoding import Encoder, describe, learn_features
from nexus.analytics.errors import InvalidValue
from nexus.analytics.reading import Table, read_table
from nexus.analytics.settings import AnalyticsSettings
from nexus.analytics.types import Limits, Source

LIMITS = Limits.of(AnalyticsSettings())
ROWS = [
    f"{n % 7},{colour},{['True', 'false'][n % 2]},2024-01-{n % 28 + 1:02d},note {n},{n * 1.5},5"
    for n, colour in enumerate(["red", "green", "blue"] * 20)
]
CSV = "\n".join(["size,colour,new,sold,note,price,same", *ROWS]) + "\n"


def read(text: str) -> Table:
    return read_table(Source(content=text.encode()), LIMITS)


def learned(text: str = CSV) -> tuple[Table, Encoder, dict[str, str]]:
    table = read(text)
    features, ignored = learn_features(table, describe(table))
    return table, Encoder(features), ignored


def test_kinds_are_told_apart() -> None:
    kinds = {column.name: column.kind for column in describe(read(CSV))}
    assert kinds == {
        "size": "number",
        "colour": "category",
        "new": "boolean",
        "sold": "time",
        "note": "text",
        "price": "number",
        "same": "number",
    }
    _, encoder, ignored = learned()
    assert [one.name for one in encoder.features] == ["size", "colour", "new", "sold", "price"]
    assert set(ignored) == {"note", "same"}


def test_rows_of_json_become_the_numbers_of_the_table() -> None:
    table, encoder, _ = learned()
    plain = list(csv.DictReader(io.StringIO(CSV)))
    rows = [
        {
            "size": int(row["size"]),
            "colour": row["colour"],
            "new": row["new"].lower() == "true",
            "sold": row["sold"],
            "price": float(row["price"]),
        }
        for row in plain
    ]
    assert (encoder.encode_rows(rows) == encoder.encode_table(table)).all()
    again = Encoder.from_json(encoder.to_json())
    assert (again.encode_rows(rows) == encoder.encode_rows(rows)).all()


def test_a_single_row_keeps_the_level_numbers() -> None:
    # microsoft/FLAML issue 1101: levels found anew in a one-row request gave wrong predictions.
    _, encoder, _ = learned()
    for colour, code in (("blue", 0), ("green", 1), ("red", 2)):
        assert encoder.encode_rows([{"colour": colour}])[0, 1] == code
    assert np.isnan(encoder.encode_rows([{"colour": "violet"}])[0, 1])


def test_times_become_their_parts() -> None:
    _, encoder, _ = learned()
    row = encoder.encode_rows([{"sold": "2024-02-29T13:30:00Z"}])[0]
    assert list(row[3:8]) == [2024, 2, 29, 3, 13]
    assert np.isnan(encoder.encode_rows([{"size": 1, "sold": None}])[0, 3:8]).all()


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"size": "7"}, "rows.1.size"),
        ({"size": True}, "rows.1.size"),
        ({"size": float("nan")}, "rows.1.size"),
        ({"size": float("inf")}, "rows.1.size"),
        ({"size": 10**400}, "rows.1.size"),
        ({"size": [1]}, "rows.1.size"),
        ({"colour": {"a": 1}}, "rows.1.colour"),
        ({"new": "perhaps"}, "rows.1.new"),
        ({"sold": "yesterday"}, "rows.1.sold"),
        ({"sold": 5}, "rows.1.sold"),
        ({"Size": 1}, "rows.1.Size"),
        ({}, "rows.1"),
        ({"note": "x"}, "rows.1.note"),
    ],
)
def test_cells_that_do_not_fit_are_named(row: dict[str, Any], field: str) -> None:
    _, encoder, _ = learned()
    with pytest.raises(InvalidValue) as caught:
        encoder.encode_rows([{"size": 1}, row])
    assert caught.value.field == field


def test_missing_cells_count_as_missing() -> None:
    text = CSV.replace("\n3,", "\n,").replace(",red,", ",NA,").replace("2024-01-05", "")
    table, encoder, _ = learned(text)
    matrix = encoder.encode_table(table)
    assert np.isnan(matrix[3, 0])
    assert np.isnan(matrix[0, 1])
    assert np.isnan(matrix[4, 3:8]).all()
    assert matrix.shape == (60, encoder.width)
