"""The model catalogue: what there is, what is here, and which version a name means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nexus.access.types import Principal, Scope
from nexus.catalog.aliases import CHAMPION, Aliases
from nexus.catalog.catalogue import Catalogue, shipped_catalogue
from nexus.catalog.disk import check_model_name
from nexus.catalog.errors import (
    AliasNotFound,
    CatalogueModel,
    ModelExists,
    ModelInUse,
    ModelNotFound,
    ModelRefused,
)
from nexus.catalog.listing import own_info, row_info
from nexus.catalog.own import OwnModels
from nexus.catalog.own_files import OwnFiles
from nexus.catalog.pool import ModelPool
from nexus.catalog.runner import PullStarter, Runner
from nexus.catalog.settings import CatalogSettings
from nexus.catalog.shelf import Shelf
from nexus.catalog.types import CatalogueRow, ModelInfo, ModelVersion, State
from nexus.core.clock import Clock
from nexus.core.secrets import Keyring
from nexus.storage.db import Database


class CatalogService:
    """Finds, pulls, lists and keeps models. One for each process."""

    def __init__(
        self,
        *,
        settings: CatalogSettings,
        database: Database,
        keyring: Keyring,
        clock: Clock,
        pool: ModelPool,
        catalogue: Catalogue | None = None,
        start_pull: PullStarter | None = None,
    ) -> None:
        """Read the rows of the catalogue; touch neither disk nor network yet.

        `start_pull` brings a pull to the engine; without it `pull_later` is not to be had.
        """
        self.settings = settings
        self.pool = pool
        self.catalogue = catalogue or shipped_catalogue()
        self.start_pull = start_pull
        self.runners: dict[str, Runner] = {}
        self.aliases = Aliases(database, clock)
        self.own = OwnModels(database, OwnFiles(settings.models_dir / ".own", keyring), clock)
        self.shelf = Shelf(settings, clock)

    async def find(
        self, name: str, *, version: int | None = None, alias: str | None = None, principal: Principal | None = None
    ) -> ModelVersion:
        """Return a version whose files are here and whole.

        Without `version` and `alias` it is the alias `champion` where the project has set one, else
        the newest version. Own models are found only with the `principal` that asks. A catalogue
        model that needs no download (`model_sources`, installed packages) is put in place at once.
        Raises `ModelNotFound`, `ModelNotPulled`, `AliasNotFound`, `ModelDamaged`.
        """
        if version is None and principal is not None:
            version = await self.aliases.version_of(principal, name, alias)
        elif version is None and alias not in (None, CHAMPION):
            raise AliasNotFound(field="alias")
        if rows := self.catalogue.versions(name):
            number = max(rows) if version is None else version
            if number not in rows:
                raise ModelNotFound("The model has no such version.", field="version")
            return await self.shelf.ready(rows[number])
        if principal is None:
            raise ModelNotFound(field="model")
        return await self.own.find(principal, name, version)

    async def default_for(self, task: str) -> ModelVersion:
        """Return the best model of the task that is here, or can be without a download.

        Raises `ModelNotPulled` when there is none yet, `ModelNotFound` for a task without models.
        """
        rows = [row for row in self.catalogue.defaults(task) if self.shelf.allows(row)]
        if not rows:
            raise ModelNotFound(f"The catalogue has no model for {task}.")
        return await self.shelf.first_of(rows)

    def starter_models(self) -> list[CatalogueRow]:
        """Return the rows that a fresh installation pulls, by task.

        Of those of one task the first that can be had is enough; once one is here, it is the only one.
        """
        rows = [row for row in self.catalogue.starters() if self.shelf.allows(row)]
        here = {row.task: row for row in reversed(rows) if self.shelf.state(row) is State.READY}
        return [row for row in rows if here.get(row.task, row) is row]

    async def pull(
        self,
        name: str,
        *,
        version: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> ModelVersion:
        """Bring a catalogue model here, and return it; at once when it is here already.

        `progress(done, total)` is told bytes, from another thread. Raises what `Puller.pull` raises,
        `ModelNotFound`, and `PullCancelled` once `cancelled()` says so.
        """
        return await self.shelf.pull(self.row(name, version), progress=progress, cancelled=cancelled)

    async def pull_later(self, principal: Principal, name: str, version: int | None = None) -> dict[str, Any]:
        """Start a run that pulls the model and return it as the API shows it."""
        row = self.row(name, version)
        if self.start_pull is None:
            raise ModelRefused("This process has no engine to pull with; use `nexus models pull`.")
        return await self.start_pull(principal, row.name, row.version)

    def row(self, name: str, version: int | None = None) -> CatalogueRow:
        """Return a row of the catalogue, the newest of its name by default. Raises `ModelNotFound`."""
        rows = self.catalogue.versions(name)
        number = max(rows, default=0) if version is None else version
        if number not in rows:
            raise ModelNotFound(field="model")
        return rows[number]

    async def add_version(
        self,
        principal: Principal,
        name: str,
        *,
        kind: str,
        task: str,
        files: Mapping[str, Path],
        meta: Mapping[str, Any],
        alias: str | None = CHAMPION,
        licence: str = "proprietary",
    ) -> ModelVersion:
        """Keep a copy of `files` as the next version of the project's own model, signed.

        Raises `ModelExists` when the name belongs to the catalogue or to a model of another kind.
        """
        check_model_name(name)
        if alias is not None:
            check_model_name(alias, "alias")
        if self.catalogue.versions(name):
            raise ModelExists("The name belongs to a model of the catalogue.", field="name")
        added = await self.own.add(principal, name, kind=kind, task=task, files=files, meta=meta, licence=licence)
        if alias is not None:
            await self.aliases.set(principal, name, alias, added.version, among={added.version})
        return added

    async def delete(self, principal: Principal, name: str, version: int | None = None) -> None:
        """Delete a version's files: an own version for good, a catalogue model until it is pulled again.

        Only an administrator may remove files of the catalogue, which every project shares.
        Raises `ModelInUse` while an alias points to it or somebody uses it, `ModelNotFound`.
        """
        if self.catalogue.versions(name):
            row = self.row(name, version)
            if not principal.may(Scope.ADMIN):
                raise CatalogueModel
            self._ensure_idle(f"{row.name}@{row.version}")
            await asyncio.to_thread(self.shelf.remove, row)
            return
        number = (await self.own.get(principal, name)).versions[0] if version is None else version
        self._ensure_idle(f"{principal.project_id}/{name}@{number}")
        await self.own.delete(principal, name, number)

    async def load(self, principal: Principal, name: str, version: int | None = None, *, pin: bool = False) -> None:
        """Bring a model into this process's memory, and keep it there if `pin`.

        Raises what `find` raises, `ModelRefused` for a kind that cannot be loaded ahead, and the runner's errors.
        """
        found = await self.find(name, version=version, principal=principal)
        runner = self.runners.get(found.kind)
        if runner is None:
            raise ModelRefused("Models of this kind are loaded when they are first used.", kind=found.kind)
        if pin:
            self.pool.pin(found.key)
        await runner.load(found)

    async def unload(self, principal: Principal, name: str, version: int | None = None) -> None:
        """Let go of a model as soon as its present users are done, and of its pin."""
        found = await self.find(name, version=version, principal=principal)
        if found.kind == "llm" and self.catalogue.versions(name):
            # It serves every project, and its process does not wait for their streams.
            principal.require(Scope.ADMIN)
        self.pool.pin(found.key, pinned=False)
        await asyncio.to_thread(self.pool.unload, found.key)
        if runner := self.runners.get(found.kind):
            await runner.unload(found)

    async def versions(self, principal: Principal, name: str) -> dict[int, State]:
        """Return the versions of a model and how they stand, newest first. Raises `ModelNotFound`."""
        if rows := self.catalogue.versions(name):
            return {number: self.shelf.state(rows[number]) for number in sorted(rows, reverse=True)}
        return dict.fromkeys((await self.own.get(principal, name)).versions, State.READY)

    async def show(self, principal: Principal, name: str) -> ModelInfo:
        """Return one line of the list. Raises `ModelNotFound`."""
        for info in await self.list(principal):
            if info.model == name:
                return info
        raise ModelNotFound(field="model")

    async def list(self, principal: Principal, *, kind: str | None = None, task: str | None = None) -> list[ModelInfo]:
        """Return every model that the principal may use, own ones first, by name."""
        own = await self.own.list(principal)
        aliases = await self.aliases.of_project(principal)
        loaded = self.pool.states()
        states = await asyncio.to_thread(lambda: {row.name: self.shelf.state(row) for row in self.catalogue.rows})
        lines = [own_info(model, aliases, loaded, principal.project_id) for model in own]
        for name in self.catalogue.names():
            rows = self.catalogue.versions(name)
            lines.append(row_info(rows[max(rows)], tuple(rows), states[name], aliases, loaded))
        return [line for line in lines if kind in (None, line.kind) and task in (None, line.task)]

    def _ensure_idle(self, key: str) -> None:
        if any(entry.users for entry in self.pool.states() if entry.key.split("@")[0] == key.split("@")[0]):
            raise ModelInUse
        self.pool.unload(key)
