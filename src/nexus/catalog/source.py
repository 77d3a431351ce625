"""The contract of a place that model files come from: one module in `sources/` for each kind.

A source brings one file to `target`. It need not check what it brought: `pull` compares size and
SHA-256 afterwards, whatever the source. It must not leave anything outside `target` and
`work.scratch`, and must give up when `work.check` raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from nexus.catalog.settings import CatalogSettings
from nexus.catalog.types import FileSpec


@dataclass(frozen=True, slots=True)
class Work:
    """What a source may use while it fetches.

    `scratch` is a folder that is removed when the pull is over, shared by its files, so that an
    archive that holds two of them comes once. `report(done)` tells how many bytes of the present
    file are here. `check()` raises when the pull was cancelled.
    """

    settings: CatalogSettings
    scratch: Path
    report: Callable[[int], None]
    check: Callable[[], None]


@runtime_checkable
class Source(Protocol):
    """One kind of source."""

    def local(self, wanted: FileSpec, options: Mapping[str, Any], settings: CatalogSettings) -> Path | None:
        """Return the file if this source has it on this machine already, without any network."""
        ...

    def fetch(self, wanted: FileSpec, options: Mapping[str, Any], target: Path, work: Work) -> None:
        """Write the file to `target`.

        Raises `SourceUnreachable` when the source cannot be had at the moment, `ChecksumMismatch`
        or `UnsafeArchive` when what it gave is not what was asked for.
        """
        ...
