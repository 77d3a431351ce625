"""The model catalogue: what there is, what is here, and which version a name means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nexus.access.types import Principal
from nexus.catalog.pool import ModelPool
from nexus.catalog.settings import CatalogSettings
from nexus.catalog.types import ModelInfo, ModelVersion
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
    ) -> None:
        """Read the rows of the catalogue; touch neither disk nor network yet."""
        self.settings = settings
        self.pool = pool

    async def find(
        self, name: str, *, version: int | None = None, alias: str | None = None, principal: Principal | None = None
    ) -> ModelVersion:
        """Return a version whose files are here and whole.

        Without `version` and `alias` it is the alias `champion` where the project has set one, else
        the newest version. Own models are found only with the `principal` that asks. A catalogue
        model that needs no download (`model_sources`, installed packages) is put in place at once.
        Raises `ModelNotFound`, `ModelNotPulled`, `AliasNotFound`, `ModelDamaged`.
        """
        raise NotImplementedError

    async def default_for(self, task: str) -> ModelVersion:
        """Return the best model of the task that is ready. Raises `ModelNotPulled` or `ModelNotFound`."""
        raise NotImplementedError

    async def add_version(
        self,
        principal: Principal,
        name: str,
        *,
        kind: str,
        task: str,
        files: Mapping[str, Path],
        meta: Mapping[str, Any],
        alias: str | None = "champion",
        licence: str = "proprietary",
    ) -> ModelVersion:
        """Keep a copy of `files` as the next version of the project's own model, signed.

        Raises `ModelExists` when the name belongs to the catalogue or to a model of another kind.
        """
        raise NotImplementedError

    async def list(self, principal: Principal, *, kind: str | None = None, task: str | None = None) -> list[ModelInfo]:
        """Return every model that the principal may use, own ones first, by name."""
        raise NotImplementedError
