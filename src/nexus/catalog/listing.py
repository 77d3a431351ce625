"""One line of the list of models, from what the catalogue, the database and the pool say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nexus.catalog.pool import Loaded
from nexus.catalog.storage import OwnModel
from nexus.catalog.types import Alias, CatalogueRow, ModelInfo, State

_RANK = (State.LOADED, State.LOADING, State.DRAINING, State.FAILED)


def row_info(
    row: CatalogueRow, versions: tuple[int, ...], state: State, aliases: Sequence[Alias], loaded: Iterable[Loaded]
) -> ModelInfo:
    """Return the line of a catalogue model; `state` is that of its files."""
    entries = [entry for entry in loaded if entry.key.partition("@")[0] == row.name]
    return ModelInfo(
        model=row.name,
        kind=row.kind,
        task=row.task,
        family=row.family,
        licence=row.licence,
        commercial_ok=row.commercial_ok,
        version=row.version,
        versions=tuple(sorted(versions, reverse=True)),
        state=_in_memory(entries) or state,
        origin=row.origin,
        own=False,
        size=row.download_bytes,
        memory=row.memory,
        loaded_bytes=_bytes(entries),
        error=_reason(entries),
        note=row.note,
        aliases=tuple(alias for alias in aliases if alias.model == row.name),
    )


def own_info(model: OwnModel, aliases: Sequence[Alias], loaded: Iterable[Loaded], project_id: str) -> ModelInfo:
    """Return the line of a project's own model."""
    entries = [entry for entry in loaded if entry.key.partition("@")[0] == f"{project_id}/{model.name}"]
    pointing = tuple(alias for alias in aliases if alias.model == model.name)
    champion = next((alias.version for alias in pointing if alias.alias == "champion"), None)
    return ModelInfo(
        model=model.name,
        kind=model.kind,
        task=model.task,
        family="",
        licence="proprietary",
        commercial_ok=True,
        version=champion or max(model.versions, default=0),
        versions=model.versions,
        state=_in_memory(entries) or State.READY,
        origin="this project",
        own=True,
        size=0,
        memory=0,
        loaded_bytes=_bytes(entries),
        error=_reason(entries),
        aliases=pointing,
        created_at=model.created_at,
    )


def _in_memory(entries: Sequence[Loaded]) -> State | None:
    states = {entry.state for entry in entries}
    return next((state for state in _RANK if state in states), None)


def _bytes(entries: Sequence[Loaded]) -> int:
    return sum(entry.size for entry in entries if entry.state is not State.FAILED)


def _reason(entries: Sequence[Loaded]) -> str | None:
    return next((entry.reason for entry in entries if entry.reason), None)
