"""What the catalogue needs to know of those that run models: floor 3 puts them in."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from nexus.access.types import Principal
from nexus.catalog.types import ModelVersion


@runtime_checkable
class Runner(Protocol):
    """Loads models of one kind ahead of their first use."""

    async def load(self, version: ModelVersion) -> None:
        """Bring the model into memory. Raises `ModelLoadFailed`, `MemoryFull` or the runner's own errors."""
        ...

    async def unload(self, version: ModelVersion) -> None:
        """Let go of what the runner holds outside of the `ModelPool` (a server process, for example)."""
        ...


class PullStarter(Protocol):
    """Starts a pull in the background: the engine's run of one step `catalog.pull`."""

    async def __call__(self, principal: Principal, model: str, version: int) -> dict[str, Any]:
        """Return the run as the API shows it; its `id` becomes the Location of the answer."""
        ...
