"""The models of the catalogue that are on this machine, or can be without asking anybody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

from nexus.catalog.disk import Fingerprint, ModelFolders
from nexus.catalog.errors import ModelNotPulled, PullCancelled
from nexus.catalog.pull import Puller, Watch
from nexus.catalog.settings import CatalogSettings
from nexus.catalog.types import CatalogueRow, ModelVersion, State
from nexus.core.clock import Clock


class Shelf:
    """Hands out checked versions of catalogue rows, and has them pulled."""

    def __init__(self, settings: CatalogSettings, clock: Clock) -> None:
        """Touch nothing yet."""
        self._settings = settings
        self._folders = ModelFolders(settings.models_dir)
        self._puller = Puller(settings=settings, folders=self._folders, clock=clock)
        self._known: dict[tuple[str, int], tuple[Fingerprint, ModelVersion]] = {}

    def allows(self, row: CatalogueRow) -> bool:
        """Tell whether the row's licence is acceptable here."""
        return row.commercial_ok or self._settings.allow_noncommercial

    def state(self, row: CatalogueRow) -> State:
        """Return how the row's files stand."""
        if self._folders.has(row.name, row.version):
            return State.READY
        return State.PULLING if self._folders.is_pulling(row.name, row.version) else State.AVAILABLE

    async def ready(self, row: CatalogueRow) -> ModelVersion:
        """Return the row's version, its files checked; a look at the disk is enough while they do not change.

        Raises `ModelNotPulled`, `ModelDamaged`.
        """
        known = self._known.get((row.name, row.version))
        if known and known[0] and known[0] == self._fingerprint(row):
            return known[1]
        found = await asyncio.to_thread(self._take, row)
        self._known[row.name, row.version] = (self._fingerprint(row), found)
        return found

    async def first_of(self, rows: Sequence[CatalogueRow]) -> ModelVersion:
        """Return the first row that is here, else the first that needs no download. Raises `ModelNotPulled`."""
        for row in rows:
            if self._folders.has(row.name, row.version):
                return await self.ready(row)
        for row in rows:
            if await asyncio.to_thread(self._puller.is_local, row):
                return await self.ready(row)
        raise _not_pulled(rows[0])

    async def pull(
        self,
        row: CatalogueRow,
        *,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> ModelVersion:
        """Pull the row in a thread and return its version. Raises what `Puller.pull` does, and `PullCancelled`."""
        stop = threading.Event()

        def check() -> None:
            if stop.is_set() or (cancelled is not None and cancelled()):
                raise PullCancelled

        watch = Watch(progress or (lambda done, total: None), check)
        try:
            await asyncio.to_thread(self._puller.pull, row, watch)
        except asyncio.CancelledError:
            stop.set()  # the thread gives up by itself; what it has fetched is kept
            raise
        return await self.ready(row)

    def remove(self, row: CatalogueRow) -> None:
        """Delete the row's files."""
        self._folders.remove(row.name, row.version)

    def _fingerprint(self, row: CatalogueRow) -> Fingerprint:
        return self._folders.fingerprint(row.name, row.version, row.files.values())

    def _take(self, row: CatalogueRow) -> ModelVersion:
        manifest = self._folders.read(row.name, row.version)
        if manifest is None:
            if not (self.allows(row) and self._puller.is_local(row)):
                raise _not_pulled(row)
            manifest = self._puller.pull(row)
        folder = self._folders.folder(row.name, row.version)
        self._folders.verify(folder, manifest.files)
        return ModelVersion(
            model=row.name,
            task=row.task,
            kind=row.kind,
            version=row.version,
            state=State.READY,
            files={role: folder / path for role, path in row.files.items()},
            meta=dict(row.meta),
            licence=row.licence,
            commercial_ok=row.commercial_ok,
            family=row.family,
            digest=manifest.digest,
            size=manifest.size,
            memory=row.memory or manifest.size * 2,
        )


def _not_pulled(row: CatalogueRow) -> ModelNotPulled:
    return ModelNotPulled(
        f"The model {row.name} is not on this machine yet: run `nexus models pull {row.name}`.",
        model=row.name,
        command=f"nexus models pull {row.name}",
    )
