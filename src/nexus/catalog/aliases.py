"""Aliases: movable names of versions, with the trail of their moves."""

from __future__ import annotations

from collections.abc import Collection

from nexus.access.types import Principal
from nexus.catalog import storage
from nexus.catalog.disk import check_model_name
from nexus.catalog.errors import AliasNotFound, ModelNotFound
from nexus.catalog.types import Alias, AliasChange
from nexus.core.clock import Clock
from nexus.storage.db import Database

CHAMPION = "champion"


class Aliases:
    """The aliases of every project; each project has its own, of shared models too."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Keep them in `database`."""
        self._database = database
        self._clock = clock

    async def set(
        self,
        principal: Principal,
        model: str,
        alias: str,
        version: int,
        *,
        among: Collection[int],
        expected: int | None = None,
    ) -> Alias:
        """Point an alias at a version, which must be `among` those of the model.

        `expected` is the revision that the caller has seen (0: that there was none). Raises
        `AliasMoved` when it has changed, `ModelNotFound` when there is no such version.
        """
        check_model_name(alias, "alias")
        if version not in among:
            raise ModelNotFound("The model has no such version.", field="version")
        return await self._database.write(
            storage.move_alias,
            principal.project_id,
            model,
            alias,
            version,
            expected=expected,
            by=principal.id,
            at=self._clock.now(),
        )

    async def delete(self, principal: Principal, model: str, alias: str, *, expected: int | None = None) -> None:
        """Remove an alias. Raises `AliasNotFound`, `AliasMoved`."""
        now = self._clock.now()
        project = principal.project_id
        await self._database.write(
            storage.delete_alias, project, model, alias, expected=expected, by=principal.id, at=now
        )

    async def history(self, principal: Principal, model: str, alias: str) -> list[AliasChange]:
        """Return the moves of an alias, newest first."""
        return await self._database.read(storage.alias_changes, principal.project_id, model, alias)

    async def of_project(self, principal: Principal, model: str | None = None) -> list[Alias]:
        """Return the project's aliases, or those of one model, by name."""
        return await self._database.read(storage.aliases_of, principal.project_id, model)

    async def version_of(self, principal: Principal, model: str, alias: str | None) -> int | None:
        """Return what an alias points to; None where `champion`, which is also the default, is not set.

        Raises `AliasNotFound` for any other alias that is not set.
        """
        found = await self._database.read(storage.alias_of, principal.project_id, model, alias or CHAMPION)
        if found is None and alias not in (None, CHAMPION):
            raise AliasNotFound(field="alias")
        return found.version if found else None
