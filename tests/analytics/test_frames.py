"""Tables as people send them: what is meant is read, what is broken is named by column and row."""

from __future__ import annotations

import gzip
import io
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nexus.analytics import reading
from nexus.analytics.errors import TableTooLarge
from nexus.analytics.frames import Frame, to_frame
from nexus.analytics.reading import read_table
from nexus.analytics.settings import AnalyticsSettings
from nexus.analytics.types import Limits, SeriesColumns, Source
from nexus.core.errors import InvalidInput, NexusError
from nexus.testing.series import daily, monthly, series_csv

LIMITS = Limits.of(AnalyticsSettings())
DAYS = [f"2024-01-{day:02d}" for day in range(1, 11)]


def frame(content: bytes | str, *, limits: Limits = LIMITS, **wish: Any) -> Frame:
    raw = content.encode() if isinstance(content, str) else content
    wish = {"frequency": None, "fill": "none", "max_series": 100, "columns": SeriesColumns(), **wish}
    columns = wish.pop("columns")
    return to_frame(read_table(Source(content=raw), limits), columns, **wish)


def table(times: list[str], values: list[str] | None = None, head: str = "ds,y", delimiter: str = ",") -> str:
    cells = values or [str(number) for number in range(len(times))]
    rows = [f"{time}{delimiter}{value}" for time, value in zip(times, cells, strict=True)]
    return "\n".join([head, *rows]) + "\n"


def replaced(place: int, value: str) -> str:
    values = [str(number) for number in range(10)]
    values[place] = value
    return table(DAYS, values)


PLAIN = table(DAYS)
NOTED = table(DAYS, [f'{n},"a ""quoted"",\nlong note"' for n in range(10)], head="ds,y,note")


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        "\r\n\n" + PLAIN,
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        gzip.compress(PLAIN.encode(), mtime=0),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", " , "),
        PLAIN.replace("ds,y", '"Date","Sales"'),
        PLAIN.replace("ds,y", "día,größe").encode("cp1252"),
        table(DAYS[::-1], [str(number) for number in range(9, -1, -1)]),
        table([day.replace("-", "") for day in DAYS]),
        table([day.replace("-", "/") for day in DAYS]),
        table([f"{day[8:]}.{day[5:7]}.{day[:4]}" for day in DAYS]),
        table([f"{day}T00:00:00Z" for day in DAYS]),
        table([f"{day} 00:00" for day in DAYS]),
        NOTED,
    ],
    ids=lambda content: repr(content[:24]),
)
def test_the_same_table_in_many_dresses(content: bytes | str) -> None:
    read = frame(content)
    (series,) = read.series
    assert list(series.y) == list(range(10))
    assert series.ds[0] == np.datetime64("2024-01-01")
    assert read.frequency == "D"


@pytest.mark.parametrize(
    ("times", "frequency", "first", "style"),
    [
        ([f"{year}" for year in range(2000, 2010)], "YS", "2000-01-01", "date"),
        ([f"2024-{month:02d}" for month in range(1, 11)], "MS", "2024-01-01", "date"),
        ([str(t)[:10] for t in pd.date_range("2020-01-31", periods=10, freq="ME")], "ME", "2020-01-31", "date"),
        ([str(t)[:10] for t in pd.date_range("2020-01-01", periods=10, freq="QS")], "QS", "2020-01-01", "date"),
        ([str(t)[:10] for t in pd.date_range("2024-01-07", periods=10, freq="W")], "W-SUN", "2024-01-07", "date"),
        ([str(t)[:10] for t in pd.date_range("2024-01-01", periods=10, freq="B")], "B", "2024-01-01", "date"),
        (
            [t.isoformat() for t in pd.date_range("2024-01-01", periods=10, freq="h")],
            "h",
            "2024-01-01T00:00:00",
            "time",
        ),
        (
            [t.isoformat() + "Z" for t in pd.date_range("2024-01-01", periods=10, freq="15min")],
            "15min",
            "2024-01-01T00:00:00Z",
            "time-utc",
        ),
        (
            [t.isoformat() + "+02:00" for t in pd.date_range("2024-01-01", periods=10, freq="h")],
            "h",
            "2023-12-31T22:00:00Z",
            "time-utc",
        ),
        ([f"{day}/1/2024" for day in range(10, 20)], "D", "2024-01-10", "date"),
        ([f"1/{day}/2024" for day in range(10, 20)], "D", "2024-01-10", "date"),
        ([str(step) for step in range(5, 15)], "step", 5, "step"),
        ([str(step) for step in range(-20, 30, 5)], "step", -20, "step"),
    ],
)
def test_times_and_frequencies(times: list[str], frequency: str, first: Any, style: str) -> None:
    read = frame(table(times))
    assert (read.frequency, read.style) == (frequency, style)
    assert read.render_times(read.series[0].ds)[0] == first


@pytest.mark.parametrize(
    ("content", "code", "field", "row"),
    [
        (replaced(3, "abc"), "invalid_value", "y", 4),
        (replaced(3, "=1+1"), "invalid_value", "y", 4),
        (replaced(3, "=cmd|' /C calc'!A0"), "invalid_value", "y", 4),
        (replaced(3, "1_000"), "invalid_value", "y", 4),
        (replaced(3, "0x10"), "invalid_value", "y", 4),
        (replaced(3, "٣"), "invalid_value", "y", 4),
        (replaced(3, "inf"), "invalid_value", "y", 4),
        (replaced(3, "1e999"), "invalid_value", "y", 4),
        (replaced(3, "-1e200"), "invalid_value", "y", 4),
        (replaced(3, "9" * 5000), "invalid_value", "y", 4),
        (replaced(3, "NaN"), "invalid_value", "y", 4),
        (replaced(3, ""), "invalid_value", "y", 4),
        (PLAIN.replace("2024-01-05", "soon"), "invalid_value", "ds", 5),
        (PLAIN.replace("2024-01-05", ""), "invalid_value", "ds", 5),
        (PLAIN.replace("2024-01-05", "2024-02-30"), "invalid_value", "ds", 5),
        (PLAIN.replace("2024-01-05", "9999-01-05"), "invalid_value", "ds", 5),
        (table([f"1/{day}/2024" for day in range(1, 11)]), "invalid_table", "ds", None),
        (PLAIN + "2024-01-04,1\n", "invalid_series", "ds", None),
        (PLAIN.replace("2024-01-04,3\n", ""), "invalid_series", "ds", None),
        (PLAIN.replace("2024-01-04", "2024-01-04T03:00:00"), "invalid_series", "ds", None),
        (table(DAYS[:2]), "invalid_series", "y", None),
        ("ds,y\n", "invalid_table", "file", None),
        ("", "invalid_table", "file", None),
        ("ds,y\n1,2,3\n2,3\n", "invalid_table", "file", 1),
        (PLAIN + "2024-01-11,1,2\n", "invalid_table", "file", 11),
        ("y,y\n1,2\n", "invalid_table", "y", None),
        ("ds,\n1,2\n", "invalid_table", "file", None),
        ("a,b,c\nx,y,z\n", "invalid_table", "ds", None),
        ("ds,a,b\n2024-01-01,1,2\n", "invalid_table", "y", None),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "invalid_table", "file", None),
        (b"\x1f\x8b" + b"broken", "invalid_table", "file", None),
        (b"PAR1broken", "invalid_table", "file", None),
        (b"\n2024-01-01\n2024-01-02\n2024-01-03\n", "invalid_table", "y", None),
        (b"ds,y\n2024-01-01,\x00\n", "invalid_table", "file", None),
        (b'ds,y\n"2024-01-01,1\n', "invalid_table", "file", None),
    ],
)
def test_hostile_tables(content: bytes | str, code: str, field: str, row: int | None) -> None:
    with pytest.raises(InvalidInput) as caught:
        frame(content)
    assert (caught.value.code, caught.value.field) == (code, field)
    assert caught.value.status == 422
    if row is not None:
        assert caught.value.details["row"] == row


@pytest.mark.parametrize(
    "limits",
    [
        Limits(rows=9, columns=2, cells=1000, cell_bytes=100),
        Limits(rows=10, columns=1, cells=1000, cell_bytes=100),
        Limits(rows=10, columns=2, cells=19, cell_bytes=100),
        Limits(rows=10, columns=2, cells=1000, cell_bytes=9),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_limits(limits: Limits, kind: str) -> None:
    content = PLAIN.encode()
    if kind == "parquet":
        file = io.BytesIO()
        pd.DataFrame({"ds": DAYS, "y": range(10)}).to_parquet(file)
        content = file.getvalue()
    with pytest.raises(TableTooLarge) as caught:
        frame(content, limits=limits)
    assert caught.value.status == 413


def test_a_small_file_that_unpacks_to_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_GZIP_LIMIT", 10_000_000)
    bomb = gzip.compress(b"ds,y\n" + b"0" * 10_000_000, mtime=0)
    assert len(bomb) < 20_000
    with pytest.raises(TableTooLarge):
        frame(bomb)


def test_a_huge_span_is_not_laid_out() -> None:
    with pytest.raises(InvalidInput) as caught:
        frame(table(["1900-01-01 00:00:00", "1900-01-01 00:00:01", "2000-01-01 00:00:00"]), frequency="s")
    assert "gaps" in caught.value.message
    with pytest.raises(InvalidInput):
        frame(table(["1", "2", "900000000000000"]))


@pytest.mark.parametrize(("fill", "value"), [("linear", 3.0), ("last", 2.0), ("zero", 0.0)])
@pytest.mark.parametrize("content", [PLAIN.replace("2024-01-04,3\n", ""), replaced(3, "NA")])
def test_gaps_are_filled_on_demand(content: str, fill: str, value: float) -> None:
    (series,) = frame(content, fill=fill).series
    assert len(series.y) == 10
    assert series.y[3] == value


def test_columns_are_found_by_name_or_named() -> None:
    content = b"shop,when,n,price\nA,2024-01-01,1,5\nA,2024-01-02,2,5\nA,2024-01-03,3,5\n"
    (series,) = frame(content, columns=SeriesColumns("shop", "when", "price")).series
    assert (series.unique_id, list(series.y)) == ("A", [5, 5, 5])
    with pytest.raises(InvalidInput) as caught:
        frame(content, columns=SeriesColumns(y="profit"))
    assert caught.value.code == "column_not_found"
    assert caught.value.details["columns"] == ["shop", "when", "n", "price"]


def test_many_series_keep_their_order_and_their_own_length() -> None:
    read = frame(series_csv({"Z": monthly(24), "A": monthly(36), "M": monthly(12, start=2022)}))
    assert [(one.unique_id, len(one.y)) for one in read.series] == [("Z", 24), ("A", 36), ("M", 12)]
    with pytest.raises(TableTooLarge):
        frame(series_csv({"Z": monthly(24), "A": monthly(36)}), max_series=1)


def test_series_of_different_frequency_are_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        frame(series_csv({"A": monthly(24), "B": daily(60)}))
    assert "B" in caught.value.message


def test_a_given_frequency_must_fit() -> None:
    with pytest.raises(InvalidInput):
        frame(PLAIN, frequency="MS")
    with pytest.raises(InvalidInput):
        frame(PLAIN, frequency="step")
    assert frame(table(DAYS[::2], list("13579")), frequency="2D").frequency == "2D"


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_parquet_keeps_its_types(zone: str | None) -> None:
    file = io.BytesIO()
    times = pd.date_range("2024-01-01", periods=10, freq="h", tz=zone)
    pd.DataFrame({"ds": times, "y": np.arange(10, dtype="int32"), "unique_id": pd.Categorical(["a"] * 10)}).to_parquet(
        file
    )
    read = frame(file.getvalue())
    assert read.frequency == "h"
    assert list(read.series[0].y) == list(range(10))
    assert read.style == ("time" if zone is None else "time-utc")


def test_json_rows() -> None:
    rows = [{"ds": day, "y": number} for number, day in enumerate(DAYS)]
    read = to_frame(read_table(Source(rows=rows), LIMITS), SeriesColumns(), frequency=None, fill="none", max_series=1)
    assert list(read.series[0].y) == list(range(10))
    for bad in ([1], {"a": 1}):
        with pytest.raises(NexusError) as caught:
            read_table(Source(rows=[*rows, {"ds": "2024-01-11", "y": bad}]), LIMITS)
        assert caught.value.details["row"] == 11
