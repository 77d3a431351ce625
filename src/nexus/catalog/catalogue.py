"""The rows of the catalogue: `catalogue.toml`, and the published collections of `collections.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import msgspec

from nexus.catalog.types import CatalogueRow, FileSpec
from nexus.core.errors import NexusError

BY_NAME_ONLY: Final = 400
"""Models of this rank and above are never chosen as the default of their task."""


class CatalogueBroken(NexusError):
    """A row of the model catalogue cannot be read."""

    code = "catalogue_broken"


@dataclass(frozen=True, slots=True)
class _Collection:
    """Models that were published together: one file each, at one revision of one repository."""

    origin: str
    url: str
    kind: str
    models: tuple[_Published, ...]


@dataclass(frozen=True, slots=True)
class _Published:
    name: str
    task: str
    family: str
    licence: str
    path: str
    sha256: str
    bytes: int
    commercial_ok: bool = True
    meta: Mapping[str, Any] = msgspec.field(default_factory=dict)
    note: str = ""


class Catalogue:
    """Every row by name; a name may have several versions."""

    def __init__(self, rows: tuple[CatalogueRow, ...]) -> None:
        """Index `rows`. Raises `CatalogueBroken` when one version of a name stands there twice."""
        self.rows = rows
        self._by_name: dict[str, dict[int, CatalogueRow]] = {}
        for row in rows:
            versions = self._by_name.setdefault(row.name, {})
            if row.version in versions:
                raise CatalogueBroken(f"The catalogue names {row.name} version {row.version} twice.")
            versions[row.version] = row

    def names(self) -> list[str]:
        """Return every name, sorted."""
        return sorted(self._by_name)

    def versions(self, name: str) -> dict[int, CatalogueRow]:
        """Return the rows of a name by version; none for an unknown name."""
        return self._by_name.get(name, {})

    def defaults(self, task: str) -> list[CatalogueRow]:
        """Return the rows that may be the default of a task, the one to prefer first, newest version first."""
        rows = (row for row in self.rows if row.task == task and row.rank < BY_NAME_ONLY)
        return sorted(rows, key=lambda row: (row.rank, row.name, -row.version))

    def has_task(self, task: str) -> bool:
        """Tell whether any row does this task."""
        return any(row.task == task for row in self.rows)

    def starters(self) -> list[CatalogueRow]:
        """Return the rows that a fresh installation pulls, those of one task together, the one to prefer first."""
        return sorted((row for row in self.rows if row.starter), key=lambda row: (row.kind, row.task, row.rank))


@cache
def shipped_catalogue() -> Catalogue:
    """Return the catalogue that comes with NEXUS."""
    folder = files("nexus.catalog")
    rows = read_rows(folder.joinpath("catalogue.toml").read_text("utf-8"))
    rows += read_rows(folder.joinpath("language.toml").read_text("utf-8"))
    return Catalogue(rows + read_collections(folder.joinpath("collections.toml").read_text("utf-8")))


def read_rows(text: str) -> tuple[CatalogueRow, ...]:
    """Read `[[model]]` tables. Raises `CatalogueBroken`."""
    return tuple(_convert(row, CatalogueRow) for row in _tables(text, "model"))


def read_collections(text: str) -> tuple[CatalogueRow, ...]:
    """Read `[[collection]]` tables, one row for each model. Raises `CatalogueBroken`."""
    return tuple(row for table in _tables(text, "collection") for row in _rows_of(_convert(table, _Collection)))


def _rows_of(collection: _Collection) -> list[CatalogueRow]:
    return [
        CatalogueRow(
            name=model.name,
            version=1,
            kind=collection.kind,
            task=model.task,
            family=model.family,
            licence=model.licence,
            commercial_ok=model.commercial_ok,
            origin=collection.origin,
            note=model.note,
            meta=model.meta,
            rank=BY_NAME_ONLY,
            files={"model": model.path.rpartition("/")[2]},
            fetch=(
                FileSpec(
                    path=model.path.rpartition("/")[2],
                    sha256=model.sha256,
                    bytes=model.bytes,
                    sources=(
                        {"kind": "file", "path": model.path},
                        {"kind": "url", "url": collection.url.format(path=model.path)},
                    ),
                ),
            ),
        )
        for model in collection.models
    ]


def _tables(text: str, name: str) -> list[Any]:
    try:
        return list(tomllib.loads(text).get(name, []))
    except tomllib.TOMLDecodeError as error:
        raise CatalogueBroken(f"The catalogue is no valid TOML: {error}.") from None


def _convert(row: Any, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(row, kind)
    except msgspec.ValidationError as error:
        name = row.get("name", "?") if isinstance(row, dict) else "?"
        raise CatalogueBroken(f"The row of {name}: {error}.") from None
