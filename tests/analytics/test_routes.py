"""Forecasts, data sets, trainings and predictions over HTTP, as a user asks for them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import select
from tests.analytics.house import House, person
from tests.clock import soon

from nexus.access.types import Principal
from nexus.ledger.tables import InvocationRow
from nexus.testing.series import churn_csv, monthly, series_csv

HEAVY = ["pandas", "statsforecast", "lightgbm", "sklearn", "scipy", "pyarrow", "statsmodels"]


def test_the_api_process_loads_no_heavy_library() -> None:
    program = "import sys, json, nexus.analytics.routes, nexus.analytics.jobs; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert loaded.isdisjoint(HEAVY)


async def invocations(house: House) -> list[InvocationRow]:
    await house.ledger.flush()
    return await house.database.read(lambda session: list(session.scalars(select(InvocationRow))))


async def post_csv(house: House, content: bytes, **fields: Any) -> Any:
    async with house.client() as client:
        return await client.post(
            "/api/v1/forecasts", files={"file": ("sales.csv", content, "text/csv")}, data={"horizon": 6, **fields}
        )


@pytest.mark.slow
async def test_a_csv_is_forecast_in_the_shape_of_the_contract(house: House) -> None:
    answer = await post_csv(house, series_csv({"A": monthly(), "B": monthly(48, base=500, seed=2)}))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["id"].startswith("inv_")
    assert (body["model"], body["frequency"]) == ("auto", "MS")
    assert set(body["chosen"]) == {"A", "B"}
    assert body["backtest"]["metric"] == "mase"
    assert set(body["backtest"]["models"]) == {"ets", "theta", "seasonal_naive"}
    first, second = body["series"]
    assert (first["unique_id"], first["ds"][0], first["ds"][-1]) == ("A", "2025-01-01", "2025-06-01")
    assert second["ds"][0] == "2024-01-01"
    for name in ("forecast", "lo-80", "hi-80", "lo-95", "hi-95"):
        assert len(first[name]) == 6
    for low95, low80, middle, high80, high95 in zip(
        *(first[name] for name in ("lo-95", "lo-80", "forecast", "hi-80", "hi-95")), strict=True
    ):
        assert low95 <= low80 <= middle <= high80 <= high95
    # The trend goes on: the last year had a mean of about 154.
    assert all(150 < value < 185 for value in first["forecast"])
    (row,) = await invocations(house)
    assert (row.id, row.kind, row.model, row.status, row.items) == (body["id"], "forecast", "auto", "ok", 2)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["rows", "lists", "without ds"])
async def test_json_series(house: House, shape: str) -> None:
    rows = monthly()
    series: list[dict[str, Any]] = [{"unique_id": "A", "ds": ds, "y": y} for ds, y in rows]
    if shape != "rows":
        series = [{"unique_id": "A", "ds": [ds for ds, _ in rows], "y": [y for _, y in rows]}]
    if shape == "without ds":
        del series[0]["ds"]
    wanted = {"series": series, "horizon": 3, "level": [90], "model": "theta", "backtest": False}
    async with house.client() as client:
        answer = await client.post("/api/v1/forecasts", json=wanted)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["chosen"] == {"A": "theta"}
    assert body["backtest"] is None
    assert body["series"][0]["ds"] == (
        [61, 62, 63] if shape == "without ds" else ["2025-01-01", "2025-02-01", "2025-03-01"]
    )
    assert set(body["series"][0]) == {"unique_id", "ds", "forecast", "lo-90", "hi-90"}


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"horizon": 0}, 422, "horizon"),
        ({"horizon": "soon"}, 422, "horizon"),
        ({"horizon": 10**6}, 422, "horizon"),
        ({"level": "80,high"}, 422, "level"),
        ({"level": "100"}, 422, "level"),
        ({"model": "oracle"}, 422, "model"),
        ({"model": "../ets"}, 422, "model"),
        ({"frequency": "fortnight"}, 422, "frequency"),
        ({"target_column": "profit"}, 422, "profit"),
        ({"surprise": "1"}, 422, "surprise"),
    ],
)
async def test_wrong_fields_are_named(house: House, change: dict[str, Any], status: int, field: str) -> None:
    answer = await post_csv(house, series_csv(), **change)
    assert answer.status_code == status, answer.text
    assert any(field in error["pointer"] for error in answer.json()["errors"]), answer.text


async def test_text_in_the_value_column_names_column_and_row(house: House) -> None:
    answer = await post_csv(house, b"date,sales\n2024-01-01,1\n2024-01-02,none of your business\n2024-01-03,3\n")
    assert answer.status_code == 422
    body = answer.json()
    assert (body["code"], body["column"], body["row"]) == ("invalid_value", "sales", 2)
    assert "business" not in answer.text
    (row,) = await invocations(house)
    assert (row.status, row.error_code) == ("error", "invalid_value")


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b'{"horizon": 3}', "application/json", 422),
        (b'{"horizon": 3, "series": []}', "application/json", 422),
        (b'{"horizon": 3, "series": [1]}', "application/json", 422),
        (b'{"horizon": 3, "series": [{"ds": "2024-01-01"}]}', "application/json", 422),
        (b'{"horizon": 3, "series": [{"ds": "2024-01-01", "y": {"a": 1}}]}', "application/json", 422),
        (b'{"horizon": 3, "series": [{"ds": ["2024-01-01"], "y": [1, 2]}]}', "application/json", 422),
        (b'{"horizon": 3, "series": [{"y": [1, "x", 3, 4]}]}', "application/json", 422),
        (b'{"horizon": 3, "series": [{"y": [1, NaN]}]}', "application/json", 400),
        (b'{"horizon": 3, "dataset_id": "ds_unknown"}', "application/json", 404),
        (b"[]", "application/json", 400),
        (b"date,y", "text/csv", 415),
    ],
)
async def test_hostile_json(house: House, content: bytes, kind: str, status: int) -> None:
    async with house.client() as client:
        answer = await client.post("/api/v1/forecasts", content=content, headers={"content-type": kind})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_file_that_is_too_large_is_413(house: House) -> None:
    answer = await post_csv(house, b"a,b\n" + b"1,2\n" * 2_500_000)
    assert answer.status_code == 413


async def test_lists_of_methods(house: House) -> None:
    async with house.client() as client:
        forecasters = (await client.get("/api/v1/forecasters")).json()["data"]
        predictors = (await client.get("/api/v1/predictors")).json()["data"]
    assert {"ets", "theta", "seasonal_naive"} <= {one["name"] for one in forecasters}
    assert all(one["title"] and one["source"] for one in forecasters + predictors)


async def upload(house: House, content: bytes, name: str = "customers") -> Any:
    async with house.client() as client:
        return await client.post(
            "/api/v1/datasets", files={"file": ("customers.csv", content, "text/csv")}, data={"name": name}
        )


async def test_a_data_set_is_kept_listed_shown_and_forgotten(house: House, stranger: Principal) -> None:
    answer = await upload(house, churn_csv())
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    where = answer.headers["location"]
    assert dataset["rows"] == 300
    kinds = {column["name"]: column["kind"] for column in dataset["columns"]}
    assert kinds == {
        "plan": "category",
        "months": "number",
        "calls": "number",
        "age": "number",
        "churn": "boolean",
        "spent": "number",
    }
    async with house.client() as client:
        assert (await client.get(where)).json() == dataset
        preview = (await client.get(f"{where}/preview?limit=2")).json()["data"]
        assert len(preview) == 2
        assert set(preview[0]) == set(kinds)
        assert [one["id"] for one in (await client.get("/api/v1/datasets")).json()["data"]] == [dataset["id"]]
        house.principal = stranger
    async with house.client() as client:
        for method, path in (("GET", where), ("GET", f"{where}/preview"), ("DELETE", where)):
            assert (await client.request(method, path)).status_code == 404
        assert (await client.get("/api/v1/datasets")).json()["data"] == []
    house.principal = person("a")
    async with house.client() as client:
        assert (await client.delete(where)).status_code == 204
        assert (await client.get(where)).status_code == 404


async def test_data_sets_page(house: House) -> None:
    ids = [(await upload(house, churn_csv(30, seed=n))).json()["id"] for n in range(3)]
    async with house.client() as client:
        first = (await client.get("/api/v1/datasets?limit=2&order=asc")).json()
        rest = (
            await client.get("/api/v1/datasets", params={"limit": 2, "order": "asc", "cursor": first["next_cursor"]})
        ).json()
    assert [one["id"] for one in first["data"] + rest["data"]] == sorted(ids)
    assert (first["has_more"], rest["has_more"]) == (True, False)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" + b"\0" * 64, b"PAR1" + b"\xff" * 100, b"a,a\n1,2\n"])
async def test_what_is_no_table_is_no_data_set(house: House, content: bytes) -> None:
    answer = await upload(house, content)
    assert answer.status_code == 422, answer.text
    async with house.client() as client:
        assert (await client.get("/api/v1/datasets")).json()["data"] == []


async def test_scopes_are_needed(house: House) -> None:
    house.principal = person("a", scopes=frozenset())
    async with house.client() as client:
        for method, path in (
            ("POST", "/api/v1/forecasts"),
            ("GET", "/api/v1/forecasters"),
            ("GET", "/api/v1/datasets"),
            ("DELETE", "/api/v1/datasets/ds_1"),
        ):
            assert (await client.request(method, path)).status_code == 403, path
        assert (await upload(house, churn_csv())).status_code == 403


async def trained(house: House, target: str, name: str = "churn", **wish: Any) -> dict[str, Any]:
    """Upload, train and return the finished run."""
    dataset = (await upload(house, churn_csv())).json()["id"]
    async with house.client() as client:
        answer = await client.post(
            "/api/v1/training-runs", json={"dataset_id": dataset, "name": name, "target": target, **wish}
        )
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/api/v1/runs/{answer.json()['id']}"
    engine = house.engine()
    await engine.start()
    try:
        run = await house.runs.wait(house.principal, answer.json()["id"], 60)
    finally:
        await engine.drain(1)
    assert run.status == "succeeded", run
    assert run.result is not None
    return run.result


@pytest.mark.slow
async def test_train_then_predict(house: House, stranger: Principal) -> None:
    result = await trained(house, "churn")
    assert (result["model"], result["version"], result["task"]) == ("churn", 1, "classification")
    assert result["metrics"]["auc"] > 0.9 > result["baseline"]["auc"]
    rows = [
        {"plan": "basic", "months": 2, "calls": 9, "age": 40, "spent": 10.5},
        {"plan": "unheard of", "months": 58, "calls": 0, "age": None},
    ]
    async with house.client() as client:
        answer = await client.post("/api/v1/models/churn/predict", json={"rows": rows, "alias": "champion"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["model"], body["version"]) == ("churn", 1)
    assert [one["label"] for one in body["predictions"]] == ["yes", "no"]
    for one in body["predictions"]:
        assert sum(one["probabilities"].values()) == pytest.approx(1)
    kinds = [(row.kind, row.status, row.items, row.version) for row in await invocations(house)]
    assert sorted(kinds) == [("predict", "ok", 2, 1), ("train", "ok", 300, 1)]
    house.principal = stranger
    async with house.client() as client:
        assert (await client.post("/api/v1/models/churn/predict", json={"rows": rows})).status_code == 404


@pytest.mark.slow
async def test_a_second_training_is_the_next_version(house: House) -> None:
    first = await trained(house, "spent", name="spent")
    assert first["task"] == "regression"
    second = await trained(house, "spent", name="spent", features=["plan", "months"], seed=3)
    assert (first["version"], second["version"]) == (1, 2)
    row = {"plan": "pro", "months": 30}
    async with house.client() as client:
        old = await client.post("/api/v1/models/spent/predict", json={"rows": [row], "version": 1})
        new = await client.post("/api/v1/models/spent/predict", json={"rows": [row]})
    assert (old.json()["version"], new.json()["version"]) == (1, 2)
    (prediction,) = new.json()["predictions"]
    assert prediction["lo-90"] < prediction["value"] < prediction["hi-90"]
    assert prediction["value"] == pytest.approx(750, rel=0.15)


WRONG_ROWS: list[tuple[dict[str, Any], int, str | None]] = [
    ({"rows": []}, 422, "/rows"),
    ({"rows": [{}]}, 422, "/rows/0"),
    ({"rows": [{"mnths": 3}]}, 422, "/rows/0/mnths"),
    ({"rows": [{"months": 3}, {"months": "three"}]}, 422, "/rows/1/months"),
    ({"rows": [{"months": True}]}, 422, "/rows/0/months"),
    ({"rows": [{"plan": ["pro"]}]}, 422, "/rows/0/plan"),
    ({"rows": [{"months": 3}] * 101}, 413, "/rows"),
    ({"rows": [{"months": 3}], "version": 9}, 404, None),
    ({"rows": [{"months": 3}], "alias": "nobody"}, 404, None),
    ({"rows": [{"months": 3}], "alias": "champion", "version": 1}, 422, None),
]


@pytest.mark.slow
async def test_wrong_rows(house: House) -> None:
    await trained(house, "churn")
    for body, status, pointer in WRONG_ROWS:
        async with house.client() as client:
            answer = await client.post("/api/v1/models/churn/predict", json=body)
        assert answer.status_code == status, answer.text
        if pointer is not None:
            assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"dataset_id": "ds_unknown"}, 404),
        ({"target": "profit"}, 422),
        ({"name": "../churn"}, 422),
        ({"predictor": "oracle"}, 422),
        ({"features": ["churn"]}, 422),
        ({"features": ["nothing"]}, 422),
        ({"surprise": 1}, 422),
    ],
)
async def test_wrong_trainings_are_refused_at_once(house: House, change: dict[str, Any], status: int) -> None:
    dataset = (await upload(house, churn_csv())).json()["id"]
    async with house.client() as client:
        wanted = {"dataset_id": dataset, "name": "churn", "target": "churn", **change}
        answer = await client.post("/api/v1/training-runs", json=wanted)
    assert answer.status_code == status, answer.text


@pytest.mark.slow
async def test_a_client_that_hangs_up_is_recorded_once(house: House) -> None:
    call = asyncio.create_task(post_csv(house, series_csv({str(n): monthly(seed=n) for n in range(200)})))
    await soon(lambda: house.analytics._pool.stats()["busy"])
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    (row,) = await invocations(house)
    assert (row.kind, row.status) == ("forecast", "client_disconnect")
