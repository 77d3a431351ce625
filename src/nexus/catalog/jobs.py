"""Background work of this slice: the step `catalog.pull`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from nexus.catalog.errors import ModelRefused
from nexus.catalog.service import CatalogService
from nexus.core.services import Services


class PullContext(Protocol):
    """What the step needs of its context; `nexus.runs.types.StepContext` has it."""

    services: Services

    @property
    def cancelled(self) -> bool:
        """Tell whether the step should stop."""
        ...

    def progress(self, done: float, total: float | None = None, unit: str = "steps") -> None:
        """Report how far the step is."""
        ...


async def pull(context: PullContext, inputs: dict[str, Any]) -> dict[str, Any]:
    """Pull `{"model": name, "version": number or None}`; the output says what is here now."""
    model, version = inputs.get("model"), inputs.get("version")
    if not isinstance(model, str) or not (version is None or isinstance(version, int)):
        raise ModelRefused("A pull needs the name of a model, and a version that is a number.", field="model")
    found = await context.services.get(CatalogService).pull(
        model,
        version=version,
        progress=lambda done, total: context.progress(done, total, "bytes"),
        cancelled=lambda: context.cancelled,
    )
    return {"model": found.model, "version": found.version, "bytes": found.size, "digest": found.digest}


HANDLERS: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {"catalog.pull": pull}
