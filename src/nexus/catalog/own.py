"""A project's own models: what it trained or imported, version by version."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nexus.access.types import Principal
from nexus.catalog import storage
from nexus.catalog.errors import ModelNotFound
from nexus.catalog.own_files import OwnFiles
from nexus.catalog.storage import OwnModel
from nexus.catalog.types import ModelVersion
from nexus.core.clock import Clock
from nexus.storage.db import Database


class OwnModels:
    """Own models of every project, each seen by its own project only."""

    def __init__(self, database: Database, files: OwnFiles, clock: Clock) -> None:
        """Keep rows in `database` and files in `files`."""
        self._database = database
        self._files = files
        self._clock = clock

    async def everywhere(self, kind: str) -> list[tuple[str, str]]:
        """Return project and name of every project's models of a kind."""
        return await self._database.read(storage.models_of_kind, kind)

    async def list(self, principal: Principal) -> list[OwnModel]:
        """Return the project's models by name."""
        return await self._database.read(storage.own_models, principal.project_id)

    async def get(self, principal: Principal, name: str) -> OwnModel:
        """Return one model. Raises `ModelNotFound`."""
        model = await self._database.read(storage.own_model, principal.project_id, name)
        if model is None or not model.versions:
            raise ModelNotFound(field="model")
        return model

    async def find(self, principal: Principal, name: str, version: int | None) -> ModelVersion:
        """Return a version, the newest by default, checked. Raises `ModelNotFound`, `ModelDamaged`."""
        model = await self.get(principal, name)
        number = model.versions[0] if version is None else version
        found = await self._database.read(storage.own_version, model.id, number)
        if found is None:
            raise ModelNotFound("The model has no such version.", field="version")
        return await asyncio.to_thread(self._files.check, principal.project_id, found)

    async def add(
        self,
        principal: Principal,
        name: str,
        *,
        kind: str,
        task: str,
        files: Mapping[str, Path],
        meta: Mapping[str, Any],
        licence: str,
    ) -> ModelVersion:
        """Copy `files`, sign them, and store them as the next version. Raises `ModelExists`."""
        project = principal.project_id
        version_id, stored = await asyncio.to_thread(self._files.store, project, files)
        document = {
            "id": version_id,
            "project_id": project,
            "model": name,
            "kind": kind,
            "task": task,
            "files": stored,
            "meta": dict(meta),
            "licence": licence,
        }
        new = storage.NewVersion(
            id=version_id,
            project_id=project,
            name=name,
            kind=kind,
            task=task,
            size=sum(file["bytes"] for file in stored.values()),
            created_by=principal.id,
            at=self._clock.now(),
            seal=lambda number: self._files.seal(document | {"version": number}),
        )
        try:
            added = await self._write(new)
        except Exception:
            await asyncio.to_thread(self._files.remove, project, version_id)
            raise
        return await asyncio.to_thread(self._files.check, project, added)

    async def _write(self, new: storage.NewVersion) -> storage.OwnVersion:
        try:
            return await self._database.write(storage.add_version, new)
        except storage.ModelBeingMade:
            return await self._database.write(storage.add_version, new)  # by now it is there

    async def delete(self, principal: Principal, name: str, version: int) -> None:
        """Delete a version for good. Raises `ModelNotFound`, `ModelInUse`."""
        gone = await self._database.write(storage.delete_version, principal.project_id, name, version)
        await asyncio.to_thread(self._files.remove, principal.project_id, gone)
