"""The language models of the catalogue and the projects that lie on this machine: what can be asked by name."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from nexus.access.types import Principal
from nexus.catalog.service import CatalogService
from nexus.catalog.types import ModelVersion, State
from nexus.core.errors import NexusError
from nexus.llm.local.children import LocalModel, local_model
from nexus.llm.local.own_routes import LOCAL_ACCOUNT, local_routes
from nexus.llm.service import LLMService
from nexus.llm.settings import LocalSettings

_log = logging.getLogger("nexus.llm")


class LocalModels:
    """Looks again every few seconds, so that what was pulled or imported can be asked for by its name."""

    def __init__(self, *, catalog: CatalogService, llm: LLMService, every: float, local: LocalSettings) -> None:
        """Look every `every` seconds; with local models switched off, at nothing."""
        self._catalog = catalog
        self._llm = llm
        self._every = every
        self._settings = local
        self._known: dict[str, LocalModel | None] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look now, and from time to time."""
        if self._settings.enabled:
            self._task = asyncio.create_task(self._keep(), name="local models")

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def refresh(self) -> None:
        """Let the registry know the models that are here, by the version that their name means now."""
        rows = [row for row in self._catalog.catalogue.rows if row.kind == "llm"]
        states = await asyncio.to_thread(lambda: {row.name: self._catalog.shelf.state(row) for row in rows})
        ready = [name for name, state in states.items() if state is State.READY]
        asked: list[tuple[str, Principal | None]] = [(name, None) for name in ready]
        for project, name in await self._catalog.own.everywhere("llm"):
            asked.append((name, Principal("system", "local-models", project)))
        found = [await self._find(name, who) for name, who in asked]
        models = [model for model in found if model is not None]
        registry = self._llm.registry
        _, plug = registry.account(LOCAL_ACCOUNT)
        registry.serve(local_routes(models, not_here=states.keys() - set(ready), plug=plug))

    async def _keep(self) -> None:
        while True:
            try:
                await self.refresh()
            except NexusError as error:
                _log.warning("the models of this machine could not be read: %s", error.code)
            await asyncio.sleep(self._every)

    async def _find(self, name: str, who: Principal | None) -> LocalModel | None:
        """Return the model that a name means; None, once with a warning, for one that cannot be served."""
        version: ModelVersion | None = None
        with contextlib.suppress(NexusError):
            version = await self._catalog.find(name, principal=who)
        if version is None or version.meta.get("format", "gguf") != "gguf":
            return None
        if version.key not in self._known:
            try:
                builtin = who is None and name == self._settings.model
                longest = self._settings.context if builtin else self._settings.longest_context
                self._known[version.key] = await asyncio.to_thread(local_model, version, longest)
            except NexusError as error:
                _log.warning("the model %s cannot be served: %s", name, error.message)
                self._known[version.key] = None
        return self._known[version.key]
