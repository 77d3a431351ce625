"""Bring a model of the catalogue to this machine.

    fetch every file (folders of `model_sources`, then its sources in order) -> check SHA-256 and size
    -> convert, where the row says so -> publish by one rename

Everything is put together in a staging folder of the version under a lock of the file system: two
pulls of one version, in whatever processes, are one download; a process that is killed leaves only
the staging folder, which the next pull goes on with.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nexus.catalog.checksums import sha256_of
from nexus.catalog.conversion import convert_apart
from nexus.catalog.disk import Manifest, ModelFolders, describe
from nexus.catalog.errors import ChecksumMismatch, LicenceRefused, Offline, SourceUnreachable
from nexus.catalog.settings import CatalogSettings
from nexus.catalog.source import Source, Work
from nexus.catalog.types import CatalogueRow, FileSpec
from nexus.core.clock import Clock, rfc3339
from nexus.core.errors import NexusError
from nexus.core.plugins import PluginFolder

_log = logging.getLogger("nexus.catalog.pull")
_LOCAL_KINDS: Final = ("file", "wheel")

SOURCES: PluginFolder[Source] = PluginFolder(
    "nexus.catalog.sources",
    Source,  # type: ignore[type-abstract]  # a protocol is what plugs are checked against
    noun="model source",
)


@dataclass(frozen=True, slots=True)
class Watch:
    """Who watches a pull: `progress(done, total)` in bytes, and `check()`, which raises to stop it."""

    progress: Callable[[int, int], None] = lambda done, total: None
    check: Callable[[], None] = lambda: None


@dataclass(slots=True)
class _Pull:
    row: CatalogueRow
    watch: Watch
    folder: Path
    done: int = 0
    fetched: dict[str, str] = field(default_factory=dict)

    def report(self, bytes_of_file: int) -> None:
        self.watch.progress(self.done + bytes_of_file, self.row.download_bytes)


class Puller:
    """Pulls rows of the catalogue. Its methods block; call them from a thread."""

    def __init__(self, *, settings: CatalogSettings, folders: ModelFolders, clock: Clock) -> None:
        """Use these folders and what the settings say about sources."""
        self._settings = settings
        self._folders = folders
        self._clock = clock

    def pull(self, row: CatalogueRow, watch: Watch | None = None) -> Manifest:
        """Return the version's manifest, its files being here afterwards.

        Raises `LicenceRefused`, `Offline`, `SourceUnreachable`, `ChecksumMismatch`,
        `UnsafeArchive`, `ConversionFailed`, and whatever `watch.check` raises.
        """
        watch = watch or Watch()
        if not (row.commercial_ok or self._settings.allow_noncommercial):
            raise LicenceRefused(model=row.name, licence=row.licence)
        staging = self._folders.staging(row.name, row.version)
        staging.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self._folders.lock_file(row.name, row.version), watch.check):
            if (whole := self._folders.read(row.name, row.version)) is not None:
                watch.progress(row.download_bytes, row.download_bytes)
                return whole
            return self._assemble(_Pull(row, watch, staging))

    def is_local(self, row: CatalogueRow) -> bool:
        """Tell whether the row can be had without any network: every file is on this machine."""
        return all(self._find_local(spec) for spec in row.fetch)

    def _assemble(self, pull: _Pull) -> Manifest:
        inputs, outputs, scratch = (pull.folder / name for name in ("in", "out", "scratch"))
        shutil.rmtree(outputs, ignore_errors=True)
        for folder in (inputs, outputs, scratch):
            folder.mkdir(parents=True, exist_ok=True)
        self._fetch_all(pull, inputs, scratch)
        conversion = pull.row.conversion
        if conversion is not None:
            convert_apart(conversion.uses, inputs, outputs, conversion.options, pull.watch.check)
        else:
            for spec in pull.row.fetch:  # linked, so that a kill right here loses nothing that was fetched
                (outputs / spec.path).hardlink_to(inputs / spec.path)
        manifest = self._manifest(pull, outputs, conversion.uses if conversion else None)
        self._folders.publish(manifest, outputs)
        shutil.rmtree(pull.folder, ignore_errors=True)
        _log.info("pulled %s@%d (%d bytes)", pull.row.name, pull.row.version, manifest.size)
        return manifest

    def _manifest(self, pull: _Pull, outputs: Path, conversion: str | None) -> Manifest:
        row, files = pull.row, describe(outputs)
        if missing := set(row.files.values()) - set(files):
            raise ChecksumMismatch("The pull did not bring every file of the model.", missing=sorted(missing))
        now = rfc3339(self._clock.now()) or ""
        return Manifest(row.name, row.version, files, row.licence, row.origin, now, conversion, pull.fetched)

    def _fetch_all(self, pull: _Pull, inputs: Path, scratch: Path) -> None:
        work = Work(self._settings, scratch, pull.report, pull.watch.check)
        for spec in pull.row.fetch:
            target = inputs / spec.path
            if not (target.exists() and _is(target, spec)):
                self._fetch(spec, target, work)
            pull.fetched[spec.path] = spec.sha256
            pull.done += spec.bytes
            pull.report(0)

    def _fetch(self, spec: FileSpec, target: Path, work: Work) -> None:
        """Try this machine, then every source in order; the last one's error is the one that is told."""
        fresh = target.with_name(target.name + ".fresh")
        if (found := self._find_local(spec)) is not None:
            shutil.copyfile(found, fresh)
            _accept(fresh, target, spec)
            return
        if self._settings.offline:
            raise Offline(file=spec.path)
        failure: NexusError = SourceUnreachable("The catalogue names no source for a file of this model.")
        for options in spec.sources:
            try:
                SOURCES.get(str(options["kind"])).fetch(spec, options, fresh, work)
                _accept(fresh, target, spec)
            except (SourceUnreachable, ChecksumMismatch) as error:
                _log.warning("source %s of %s: %s", options["kind"], spec.path, error.message)
                failure = error
                continue
            return
        raise failure

    def _find_local(self, spec: FileSpec) -> Path | None:
        file_hints = next((dict(options) for options in spec.sources if options["kind"] == "file"), {})
        if (found := SOURCES.get("file").local(spec, file_hints, self._settings)) is not None:
            return found
        for options in spec.sources:
            found = SOURCES.get(str(options["kind"])).local(spec, options, self._settings)
            if found is not None and _is(found, spec):
                return found
        return None


def _is(path: Path, spec: FileSpec) -> bool:
    return path.stat().st_size == spec.bytes and sha256_of(path) == spec.sha256


def _accept(fresh: Path, target: Path, spec: FileSpec) -> None:
    if not fresh.exists() or not _is(fresh, spec):
        fresh.unlink(missing_ok=True)
        raise ChecksumMismatch(file=spec.path)
    fresh.replace(target)


@contextmanager
def _locked(path: Path, check: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file; wait for whoever has it. The system lets go of it when a process dies."""
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                check()
                time.sleep(0.1)
        yield
