"""A shop whose engine can work on tables: with compute children and every service that steps of data ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.automation.conftest import Shop

from nexus.automation.data.workshop import PARQUET
from nexus.compute.pool import ComputePool
from nexus.compute.settings import ComputeSettings
from nexus.files.service import FileService
from nexus.runs.types import Run


class Bench:
    """Short words for files and single steps."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.files = shop.services.get(FileService)

    async def upload(self, content: str | bytes, name: str = "table.csv") -> str:
        data = content.encode() if isinstance(content, str) else content
        return (await self.files.add(self.shop.who, data, name, PARQUET)).id

    async def step(self, uses: str, **inputs: Any) -> dict[str, Any]:
        run = await self.run(uses, **inputs)
        assert run.error is None, run.error
        return dict(run.result)

    async def run(self, uses: str, **inputs: Any) -> Run:
        return await self.shop.run({"steps": [{"key": "one", "uses": uses, "with": inputs}]})

    async def rows(self, file_id: str) -> list[dict[str, Any]]:
        return list(pq.read_table(await self.files.path(self.shop.who, file_id)).to_pylist())


@pytest.fixture(scope="session")
def compute() -> Iterator[ComputePool]:
    pool = ComputePool(ComputeSettings(engine_children=1), children=1)
    yield pool
    pool.stop_now()


@pytest.fixture
async def bench(shop: Shop, compute: ComputePool) -> Bench:
    shop.services.put(compute)
    return Bench(shop)
