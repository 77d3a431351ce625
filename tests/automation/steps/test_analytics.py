"""The steps of analytics: a table in, what was learned of it out."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.automation.steps.conftest import Bench

import nexus.analytics.tables
import nexus.catalog.tables  # noqa: F401  the database fixture creates what has been imported
from nexus.analytics.dataset_service import DatasetService
from nexus.analytics.service import AnalyticsService
from nexus.analytics.settings import AnalyticsSettings
from nexus.catalog.pool import ModelPool
from nexus.catalog.service import CatalogService
from nexus.catalog.settings import CatalogSettings
from nexus.compute.pool import ComputePool
from nexus.core.clock import SystemClock
from nexus.core.secrets import Keyring
from nexus.ledger.service import Ledger
from nexus.ledger.settings import LedgerSettings
from nexus.storage.blobs.local import LocalBlobs
from nexus.storage.db import Database

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.fixture
async def lab(bench: Bench, database: Database, compute: ComputePool, tmp_path: Path) -> Bench:
    clock, settings = SystemClock(), AnalyticsSettings()
    ledger = Ledger(database=database, folder=tmp_path / "ledger", settings=LedgerSettings())
    catalog = CatalogService(
        settings=CatalogSettings(data_dir=tmp_path),
        database=database,
        keyring=Keyring(b"k" * 48),
        clock=clock,
        pool=ModelPool(budget=2**30, minimum_idle=0),
        start_pull=None,  # type: ignore[arg-type]  # nothing is pulled here
    )
    datasets = DatasetService(
        settings=settings, database=database, blobs=LocalBlobs(tmp_path / "blobs"), pool=compute, clock=clock
    )
    analytics = AnalyticsService(
        settings=settings, pool=compute, ledger=ledger, catalog=catalog, runs=bench.shop.runs, datasets=datasets
    )
    for service in (datasets, analytics):
        bench.shop.services.put(service)
    return bench


async def test_forecasts_and_finds_anomalies_in_a_file(lab: Bench) -> None:
    file_id = await lab.upload((EXAMPLES / "sales.csv").read_bytes(), "sales.csv")
    output = await lab.step("analytics.forecast", file_id=file_id, horizon=4, level=[80])
    assert len(output["series"][0]["forecast"]) == 4
    assert output["frequency"] == "MS"
    values = [{"ds": n, "y": 10 + n % 3} for n in range(60)]
    values[30]["y"] = 500
    output = await lab.step("analytics.anomalies", rows=values, shape="series")
    assert [one["index"] for one in output["anomalies"]] == [30]
    assert output["count"] == 1


async def test_trains_once_and_predicts_rows_and_files(lab: Bench) -> None:
    file_id = await lab.upload((EXAMPLES / "loans.csv").read_bytes(), "loans.csv")
    trained = await lab.step("analytics.train", file_id=file_id, name="loans", target="repaid")
    assert (trained["model"], trained["version"]) == ("loans", 1)
    assert trained["dataset_id"].startswith("ds_")
    rows = [{"income": 9000, "debt": 10, "job": "nurse"}]
    output = await lab.step("analytics.predict", model="loans", rows=rows)
    assert output["predictions"][0]["label"] == "yes"
    output = await lab.step("analytics.predict", model="loans", file_id=file_id)
    answered = await lab.rows(output["file_id"])
    right = sum(row["prediction"] == row["repaid"] for row in answered) / len(answered)
    assert right > 0.8
    assert output["rows"] == len(answered)


async def test_says_what_does_not_fit(lab: Bench) -> None:
    run = await lab.run("analytics.forecast", rows=[{"ds": 1, "y": 1}], horizon=100_000)
    assert run.error is not None
    assert run.error.code == "invalid_input"
    run = await lab.run("analytics.predict", model="nothing", rows=[{"a": 1}])
    assert run.error is not None
    assert run.error.code == "model_not_found"
