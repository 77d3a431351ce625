"""What a model is: rows of the catalogue, versions, aliases, and the states they can be in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any


class Kind(StrEnum):
    """Which part of NEXUS runs a model."""

    LLM = "llm"
    EMBEDDING = "embedding"
    VISION = "vision"
    ANALYTICS = "analytics"


class State(StrEnum):
    """Where a version stands. `loading`, `loaded` and `draining` are seen by this process only."""

    AVAILABLE = "available"
    PULLING = "pulling"
    READY = "ready"
    LOADING = "loading"
    LOADED = "loaded"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of one model whose files lie on this machine, checked.

    `files` maps a role (`model`, `tokenizer`, `det`, ...) to a local file. `meta` carries what the
    runner needs; for vision see the head of `catalogue.toml`. `size` is bytes on disk, `memory` an
    estimate of bytes when loaded.
    """

    model: str
    task: str
    kind: str
    version: int
    state: State
    files: dict[str, Path]
    meta: dict[str, Any]
    licence: str
    commercial_ok: bool
    family: str = ""
    digest: str = ""
    size: int = 0
    memory: int = 0
    project_id: str | None = None
    created_at: datetime | None = None

    @property
    def key(self) -> str:
        """Name this version in a `ModelPool`: `yolox-nano@1`, own models `<project id>/churn@3`.

        A runner that loads one version in several ways appends `/<way>`; unloading finds all of them.
        """
        owner = f"{self.project_id}/" if self.project_id else ""
        return f"{owner}{self.model}@{self.version}"


@dataclass(frozen=True, slots=True)
class FileSpec:
    """One file to fetch: where it lies in the version's folder, what it must be, where it comes from.

    `sources` are tried in order; each has a `kind` that names a plug of `sources/`.
    """

    path: str
    sha256: str
    bytes: int
    sources: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class ConversionSpec:
    """How fetched files become the ones that run: a plug of `conversions/` and its options."""

    uses: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CatalogueRow:
    """One version of one public model, as `catalogue.toml` states it."""

    name: str
    version: int
    kind: str
    task: str
    family: str
    licence: str
    commercial_ok: bool
    fetch: tuple[FileSpec, ...]
    files: Mapping[str, str]
    conversion: ConversionSpec | None = None
    starter: bool = False
    rank: int = 100
    memory: int = 0
    origin: str = ""
    note: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def download_bytes(self) -> int:
        """Return how many bytes the files to fetch have together."""
        return sum(spec.bytes for spec in self.fetch)


@dataclass(frozen=True, slots=True)
class Alias:
    """A movable name of a version. `revision` grows with every move and is the ETag."""

    model: str
    alias: str
    version: int
    revision: int
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class AliasChange:
    """One move of an alias: the trail that a rollback reads."""

    alias: str
    old_version: int | None
    new_version: int | None
    changed_by: str
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One line of the list of models: what it is and how it stands, whether its files are here or not."""

    model: str
    kind: str
    task: str
    family: str
    licence: str
    commercial_ok: bool
    version: int
    versions: tuple[int, ...]
    state: State
    origin: str
    own: bool
    size: int
    memory: int
    loaded_bytes: int = 0
    error: str | None = None
    note: str = ""
    aliases: tuple[Alias, ...] = ()
    created_at: datetime | None = None
