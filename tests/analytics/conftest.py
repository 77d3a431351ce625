"""Analytics on a real database, real compute children and a real engine, and an app with its routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.analytics.house import House, person

from nexus.access.types import Principal
from nexus.analytics.dataset_service import DatasetService
from nexus.analytics.service import AnalyticsService
from nexus.analytics.settings import AnalyticsSettings
from nexus.catalog.pool import ModelPool
from nexus.catalog.service import CatalogService
from nexus.catalog.settings import CatalogSettings
from nexus.compute.pool import ComputePool
from nexus.compute.settings import ComputeSettings
from nexus.core.clock import SystemClock
from nexus.core.secrets import Keyring
from nexus.core.services import Services
from nexus.ledger.service import Ledger
from nexus.runs.service import RunService
from nexus.runs.settings import RunsSettings
from nexus.storage.blobs.local import LocalBlobs
from nexus.storage.db import Database


@pytest.fixture
def who() -> Principal:
    return person("a")


@pytest.fixture
def stranger() -> Principal:
    return person("b")


@pytest.fixture(scope="session")
def pool() -> Iterator[ComputePool]:
    """One child for all tests of this process: loading statsforecast takes seconds."""
    pool = ComputePool(ComputeSettings(threads=1))
    yield pool
    pool.stop_now(0.1)


@pytest.fixture
async def house(database: Database, tmp_path: Path, pool: ComputePool, who: Principal) -> AsyncIterator[House]:
    clock = SystemClock()
    settings = AnalyticsSettings(max_inline_mb=8, max_predict_rows=100)
    catalog = CatalogService(
        settings=CatalogSettings(data_dir=tmp_path, offline=True),
        database=database,
        keyring=Keyring(b"k" * 48),
        clock=clock,
        pool=ModelPool(),
    )
    ledger = Ledger(database=database, folder=tmp_path / "ledger")
    await ledger.start()
    runs_settings = RunsSettings(data_dir=tmp_path, concurrency=2)
    runs = RunService(database=database, settings=runs_settings)
    datasets = DatasetService(
        settings=settings, database=database, blobs=LocalBlobs(tmp_path / "blobs"), pool=pool, clock=clock
    )
    analytics = AnalyticsService(
        settings=settings, pool=pool, ledger=ledger, catalog=catalog, runs=runs, datasets=datasets
    )
    services = Services()
    for one in (catalog, ledger, runs, datasets, analytics):
        services.put(one)
    yield House(services, analytics, datasets, catalog, ledger, runs, database, runs_settings, who)
    await ledger.stop()
