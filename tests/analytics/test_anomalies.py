"""Detectors keep their contract and find what is labelled; tables and series are told apart."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.analytics.house import House

from nexus.analytics import metrics
from nexus.analytics.anomalies import detect_table
from nexus.analytics.detector import DETECTORS
from nexus.analytics.settings import AnalyticsSettings
from nexus.analytics.types import AnomalySpec, Limits, SeriesColumns, Source
from nexus.core.errors import InvalidInput
from nexus.testing.series import churn_csv, daily, monthly, series_csv

LIMITS = Limits.of(AnalyticsSettings())


def detect(content: bytes, **wish: Any) -> dict[str, Any]:
    return detect_table(Source(content=content), AnomalySpec(**wish), LIMITS, 100)


def spiked(place: int = 50, height: float = 40) -> bytes:
    rows = daily()
    rows[place] = (rows[place][0], rows[place][1] + height)
    return series_csv({"A": rows})


@pytest.mark.parametrize("name", DETECTORS.names())
def test_any_detector_finds_a_spike_and_says_the_same_twice(name: str) -> None:
    plug = DETECTORS.get(name)
    assert plug.title
    assert plug.source
    found = detect(spiked(), model=name)
    assert found == detect(spiked(), model=name)
    assert found["chosen"] == name
    assert len(found["scores"]) == 120
    assert all(0 <= score <= 1 for score in found["scores"])
    assert int(np.argmax(found["scores"])) == 50
    assert 50 in [one["index"] for one in found["anomalies"]]
    assert all(one["score"] >= found["threshold"] for one in found["anomalies"])
    (spike,) = [one for one in found["anomalies"] if one["index"] == 50]
    assert spike["ds"] == "2024-02-20"
    assert "above the expected" in spike["reason"]


@pytest.mark.parametrize("name", DETECTORS.names())
@pytest.mark.parametrize("rows", ["constant", "one differs", "huge", "huge beside tiny"])
def test_any_detector_bears_odd_tables(name: str, rows: str) -> None:
    x = {
        "constant": np.full((20, 2), 3.0),
        "one differs": np.vstack((np.zeros((19, 2)), [[5.0, 0.0]])),
        "huge": np.random.default_rng(0).normal(size=(50, 3)) * 1e90,
        "huge beside tiny": np.array([[1e-76, 1e99][n % 5 == 0] for n in range(20)])[:, None],
    }[rows]
    scored = DETECTORS.get(name).score_rows(x, seed=0)
    assert scored.scores.shape == (len(x),)
    assert np.isfinite(scored.scores).all()
    if rows == "constant":
        assert not (scored.scores >= scored.threshold).any()
    if rows == "one differs":
        assert int(scored.scores.argmax()) == 19


def test_a_season_is_no_anomaly() -> None:
    found = detect(series_csv({"A": daily(140)}))
    assert len(found["anomalies"]) <= 2
    # A weekend's value on a Wednesday is odd although it is common as such.
    rows = daily(140)
    rows[72] = (rows[72][0], 58.0)
    assert 72 in [one["index"] for one in detect(series_csv({"A": rows}))["anomalies"]]


def test_every_series_is_judged_by_itself_and_in_any_order() -> None:
    rows = {"A": monthly(), "B": [(ds, y * 1000) for ds, y in monthly(seed=2)]}
    rows["B"][30] = (rows["B"][30][0], rows["B"][30][1] * 1.5)
    lines = series_csv(rows).decode().splitlines()
    shuffled = [lines[0], *lines[:0:-1]]
    found = detect("\n".join(shuffled).encode())
    assert [shuffled[one["index"] + 1].split(",")[0] for one in found["anomalies"]][:1] == ["B"]
    assert found["series"] == 2


def test_rows_of_a_table_are_judged_by_all_columns() -> None:
    lines = churn_csv(200).decode().splitlines()
    lines[100] = "basic,60,400,30,no,9999"
    found = detect("\n".join(lines).encode())
    assert found["chosen"] == "isolation_forest"
    assert found["anomalies"][0].keys() == {"index", "score", "reason"}
    assert int(np.argmax(found["scores"])) == 99
    (odd,) = [one for one in found["anomalies"] if one["index"] == 99]
    assert "usually" in odd["reason"]


def test_a_threshold_may_be_given() -> None:
    assert len(detect(spiked(), threshold=0.0)["anomalies"]) == 120
    assert detect(spiked(), threshold=1.0)["anomalies"] == []


@pytest.mark.parametrize(
    ("content", "wish", "code"),
    [
        (b"ds,y\n2024-01-01,1\n", {}, "invalid_series"),
        (b"ds,y\n" + b"2024-01-01,abc\n" * 10, {}, "invalid_value"),
        (b"ds,y\n" + b"2024-01-01,abc\n" * 10, {"columns": SeriesColumns(ds="ds", y="y")}, "invalid_value"),
        (b"a,b\n" + b"1,1\n" * 20, {}, "invalid_table"),
        (b"a,b\n1,2\n", {}, "invalid_table"),
        (spiked(), {"model": "oracle"}, "unknown_method"),
        (b"", {}, "invalid_table"),
    ],
)
def test_what_cannot_be_judged(content: bytes, wish: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        detect(content, **wish)
    assert caught.value.code == code


@pytest.mark.slow
@pytest.mark.parametrize(
    # Measured by the same protocol (research/analytics.md 3c): .926, .978, .993, .995, .842, .864.
    ("name", "at_least"),
    [
        ("6_cardio", 0.90),
        ("38_thyroid", 0.96),
        ("31_satimage-2", 0.98),
        ("42_WBC", 0.98),
        ("18_Ionosphere", 0.81),
        ("23_mammography", 0.83),
    ],
)
def test_isolation_forest_on_adbench(shared: Path, name: str, at_least: float) -> None:
    data = np.load(shared / "data/analytics/anomaly/adbench" / f"{name}.npz")
    scored = DETECTORS.get("isolation_forest").score_rows(data["X"].astype(np.float64), seed=0)
    area = metrics.auc(data["y"] == 1, scored.scores)
    print(name, round(area, 3))
    assert area >= at_least


@pytest.mark.slow
@pytest.mark.parametrize(
    # A tenth of each series lies within its labelled windows, so chance would give 2 of 20.
    ("name", "of_twenty"),
    [("art_daily_jumpsup", 18), ("art_daily_jumpsdown", 18), ("art_daily_nojump", 18), ("nyc_taxi", 8)],
)
def test_the_oddest_moments_of_nab_are_the_labelled_ones(shared: Path, name: str, of_twenty: int) -> None:
    folder = shared / "data/analytics/anomaly/nab"
    windows = json.loads((folder / "combined_windows.json").read_text())
    (mine,) = [spans for path, spans in windows.items() if path.endswith(f"/{name}.csv")]
    rows = list(csv.DictReader((folder / f"{name}.csv").read_text().splitlines()))
    inside = np.array([any(start[:19] <= row["timestamp"] <= end[:19] for start, end in mine) for row in rows])
    found = detect((folder / f"{name}.csv").read_bytes())
    oddest = np.argsort(-np.array(found["scores"]))[:20]
    print(name, int(inside[oddest].sum()), "of 20;", len(found["anomalies"]), "marked")
    assert inside[oddest].sum() >= of_twenty
    assert 0 < len(found["anomalies"]) < len(rows) * 0.05


async def test_over_http(house: House) -> None:
    async with house.client() as client:
        answer = await client.post("/api/v1/anomalies", files={"file": ("a.csv", spiked(), "text/csv")})
        plain = await client.post("/api/v1/anomalies", json={"values": [1, 2, 1, 2, 1, 2, 1, 99, 1, 2, 1, 2]})
        rows = await client.post("/api/v1/anomalies", json={"rows": [{"a": n % 5, "b": n} for n in range(30)]})
        methods = (await client.get("/api/v1/detectors")).json()["data"]
    body = answer.json()
    assert answer.status_code == 200, answer.text
    assert body["id"].startswith("inv_")
    assert body["model"] == "auto"
    assert [one["index"] for one in body["anomalies"]] == [50]
    assert [one["index"] for one in plain.json()["anomalies"]] == [7]
    assert rows.status_code == 200, rows.text
    assert {one["name"] for one in methods} >= {"zscore_mad", "isolation_forest"}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, ""),
        ({"values": [1] * 10, "rows": [{"a": 1}]}, 422, ""),
        ({"values": [1, 2, "x", 4, 5, 6, 7, 8]}, 422, "y"),
        ({"values": [1] * 10, "threshold": 2}, 422, "threshold"),
        ({"values": [1] * 10, "model": "oracle"}, 422, "model"),
        ({"dataset_id": "ds_x"}, 404, ""),
    ],
)
async def test_wrong_questions(house: House, body: dict[str, Any], status: int, field: str) -> None:
    async with house.client() as client:
        answer = await client.post("/api/v1/anomalies", json=body)
    assert answer.status_code == status, answer.text
    if field:
        assert answer.json()["errors"][0]["pointer"] == f"/{field}"
