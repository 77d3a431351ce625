"""Data sets of a project: kept once they have been read as a table, never changed."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from nexus.access.types import Principal
from nexus.analytics import storage
from nexus.analytics.settings import AnalyticsSettings
from nexus.analytics.types import Dataset, Limits, Source
from nexus.compute.pool import ComputePool
from nexus.core.clock import Clock
from nexus.core.ids import new_id
from nexus.storage.blob_store import BlobStore, BlobTooLarge
from nexus.storage.db import Database

_CHUNK = 1024 * 1024


class DatasetService:
    """Adds, shows and removes data sets."""

    def __init__(
        self, *, settings: AnalyticsSettings, database: Database, blobs: BlobStore, pool: ComputePool, clock: Clock
    ) -> None:
        """Keep rows in `database` and content in `blobs`; `pool` reads what users sent."""
        self.settings = settings
        self._database = database
        self._blobs = blobs
        self._pool = pool
        self._clock = clock

    async def add(self, who: Principal, chunks: AsyncIterator[bytes], *, filename: str, name: str | None) -> Dataset:
        """Keep an uploaded table. It is read first: what is no table is refused and leaves nothing behind.

        Raises `InvalidTable`, `InvalidValue`, `TableTooLarge`, `BlobTooLarge` or `StorageFull`.
        """
        from nexus.analytics.datasets import inspect_dataset  # as in `AnalyticsService`: by the first call

        with tempfile.TemporaryDirectory(prefix="nexus-dataset-") as folder:
            path = Path(folder) / "upload"
            await self._store(chunks, path)
            rows, columns = await self._pool.run(inspect_dataset, Source(path=path), Limits.of(self.settings))
            blob = await self._blobs.put(_chunks(path))
        dataset = Dataset(
            id=new_id("ds"),
            project_id=who.project_id,
            name=name or filename,
            filename=filename,
            sha256=blob.sha256,
            size=blob.size,
            rows=rows,
            columns=columns,
            created_at=self._clock.now(),
        )
        await self._database.write(storage.add_dataset, dataset, who.id)
        return dataset

    async def _store(self, chunks: AsyncIterator[bytes], path: Path) -> None:
        limit, size = self.settings.max_upload_mb * 1024 * 1024, 0
        with path.open("wb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > limit:
                    raise BlobTooLarge(f"The data set is larger than {limit} bytes.", field="file", limit=limit)
                await asyncio.to_thread(file.write, chunk)

    async def get(self, who: Principal, dataset_id: str) -> Dataset:
        """Return a data set. Raises `DatasetNotFound`."""
        return await self._database.read(storage.dataset, who.project_id, dataset_id)

    async def remove(self, who: Principal, dataset_id: str) -> None:
        """Forget a data set. Raises `DatasetNotFound`."""
        await self._database.write(storage.remove_dataset, who.project_id, dataset_id)

    async def source(self, who: Principal, dataset_id: str) -> Source:
        """Return where the content of a data set is read. Raises `DatasetNotFound`."""
        return Source(path=self._blobs.path((await self.get(who, dataset_id)).sha256))

    async def preview(self, who: Principal, dataset_id: str, first: int) -> list[dict[str, Any]]:
        """Return the first rows of a data set. Raises `DatasetNotFound`."""
        from nexus.analytics.datasets import preview_dataset

        source = await self.source(who, dataset_id)
        return await self._pool.run(preview_dataset, source, Limits.of(self.settings), first)

    async def list(self, who: Principal, *, after: str | None, limit: int, descending: bool = True) -> list[Dataset]:
        """Return data sets of the project, the newest first unless told otherwise."""
        return await self._database.read(storage.datasets, who.project_id, after, limit, descending=descending)


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk
