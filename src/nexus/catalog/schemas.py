"""Models of the catalogue as the API shows them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from nexus.catalog.types import Alias, AliasChange, ModelInfo, ModelVersion, State
from nexus.core.clock import rfc3339


class AliasOut(BaseModel):
    """A movable name of a version; `revision` is also the ETag."""

    alias: str
    version: int
    revision: int
    updated_at: str | None

    @classmethod
    def of(cls, alias: Alias) -> AliasOut:
        """Render an alias."""
        return cls(
            alias=alias.alias, version=alias.version, revision=alias.revision, updated_at=rfc3339(alias.updated_at)
        )


class AliasChangeOut(BaseModel):
    """One move of an alias."""

    alias: str
    old_version: int | None
    new_version: int | None
    changed_by: str
    changed_at: str | None

    @classmethod
    def of(cls, change: AliasChange) -> AliasChangeOut:
        """Render a move."""
        return cls(
            alias=change.alias,
            old_version=change.old_version,
            new_version=change.new_version,
            changed_by=change.changed_by,
            changed_at=rfc3339(change.changed_at),
        )


class ModelOut(BaseModel):
    """A model of any kind and how it stands. Sizes are in bytes."""

    name: str
    kind: str
    task: str
    family: str
    state: State
    version: int
    versions: list[int]
    licence: str
    commercial_ok: bool
    origin: str
    own: bool
    size: int
    memory: int
    loaded_bytes: int
    error: str | None
    note: str
    aliases: list[AliasOut]
    created_at: str | None

    @classmethod
    def of(cls, info: ModelInfo) -> ModelOut:
        """Render a line of the list."""
        return cls(
            name=info.model,
            kind=info.kind,
            task=info.task,
            family=info.family,
            state=info.state,
            version=info.version,
            versions=list(info.versions),
            licence=info.licence,
            commercial_ok=info.commercial_ok,
            origin=info.origin,
            own=info.own,
            size=info.size,
            memory=info.memory,
            loaded_bytes=info.loaded_bytes,
            error=info.error,
            note=info.note,
            aliases=[AliasOut.of(alias) for alias in info.aliases],
            created_at=rfc3339(info.created_at),
        )


class VersionOut(BaseModel):
    """A version in the list of a model's versions."""

    version: int
    state: State
    aliases: list[str]


class ImportedOut(BaseModel):
    """What an imported file became."""

    name: str
    version: int
    kind: str
    task: str
    size: int
    digest: str
    meta: dict[str, Any]

    @classmethod
    def of(cls, version: ModelVersion) -> ImportedOut:
        """Render a new version."""
        return cls(
            name=version.model,
            version=version.version,
            kind=version.kind,
            task=version.task,
            size=version.size,
            digest=version.digest,
            meta=version.meta,
        )


class AliasIn(BaseModel):
    """Which version the alias is to mean."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: int = Field(ge=1)


class LoadIn(BaseModel):
    """Which version to load (default: what its name means), and whether to keep it in memory."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: int | None = Field(None, ge=1)
    pin: bool = False


class VersionIn(BaseModel):
    """Which version (default: what the name means)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: int | None = Field(None, ge=1)
