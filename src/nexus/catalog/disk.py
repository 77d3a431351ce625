"""The folders of pulled models: `<models>/<name>/<version>/` with a `manifest.json` in each.

A version's folder appears by one rename when everything in it is complete, and never changes again;
so a folder with a manifest is a whole version, whatever happened to the process that made it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from nexus.catalog.checksums import Checksums, sha256_of
from nexus.catalog.errors import ModelDamaged, ModelRefused

MANIFEST: Final = "manifest.json"
Fingerprint = tuple[tuple[int, int, int], ...] | None
_NAME: Final = re.compile(r"^[a-z0-9][a-z0-9._-]{0,62}$")


def check_model_name(name: str, field_name: str = "name") -> str:
    """Return `name` if it can be a model's: lower-case letters, digits, `.`, `_`, `-`, at most 63 characters."""
    if not _NAME.match(name) or name.endswith("."):
        raise ModelRefused(
            "A model's name starts with a letter or digit and holds only a-z, 0-9, '.', '_' and '-'.",
            field=field_name,
        )
    return name


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a version, as it was when it was stored."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a version's folder holds. `files` maps a path inside the folder to its digest and size."""

    model: str
    version: int
    files: dict[str, StoredFile]
    licence: str = ""
    origin: str = ""
    stored_at: str = ""
    conversion: str | None = None
    fetched: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Return the bytes of all files together."""
        return sum(file.bytes for file in self.files.values())

    @property
    def digest(self) -> str:
        """Return one digest for the whole version: that of the largest file, which is the model itself."""
        return max(self.files.values(), key=lambda file: file.bytes).sha256 if self.files else ""

    def to_json(self) -> bytes:
        """Return the one canonical form: sorted, compact, UTF-8. Signatures are made over it."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """Read what `to_json` wrote. Raises `ModelDamaged` for anything else."""
        try:
            value: dict[str, Any] = json.loads(text)
            files = {path: StoredFile(**file) for path, file in value.pop("files").items()}
            return cls(files=files, **value)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ModelDamaged("The model's manifest cannot be read.") from None


def describe(folder: Path) -> dict[str, StoredFile]:
    """Return every file below `folder` with its digest and size."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {str(path.relative_to(folder)): StoredFile(sha256_of(path), path.stat().st_size) for path in paths}


class ModelFolders:
    """The folder that holds every pulled model."""

    def __init__(self, root: Path) -> None:
        """Use `root`, which need not exist yet."""
        self.root = root
        self._checksums = Checksums()

    def folder(self, name: str, version: int) -> Path:
        """Return where a version lies, or would."""
        return self.root / check_model_name(name) / str(version)

    def staging(self, name: str, version: int) -> Path:
        """Return where a version is put together."""
        return self.root / ".staging" / f"{check_model_name(name)}-{version}"

    def lock_file(self, name: str, version: int) -> Path:
        """Return the file whose lock is held while the version is put together."""
        return self.staging(name, version).with_name(f"{name}-{version}.lock")

    def is_pulling(self, name: str, version: int) -> bool:
        """Tell whether some process is putting the version together at the moment."""
        try:
            with self.lock_file(name, version).open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def read(self, name: str, version: int) -> Manifest | None:
        """Return the manifest of a version that is here, or None."""
        try:
            return Manifest.from_json((self.folder(name, version) / MANIFEST).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def has(self, name: str, version: int) -> bool:
        """Tell whether a version is here, by one look at the disk."""
        return (self.folder(name, version) / MANIFEST).exists()

    def fingerprint(self, name: str, version: int, paths: Iterable[str]) -> Fingerprint:
        """Return what changes when any of the version's files does: size, place and time of each; None without one."""
        folder = self.folder(name, version)
        try:
            found = [(folder / path).stat() for path in (MANIFEST, *paths)]
        except OSError:
            return None
        return tuple((status.st_ino, status.st_size, status.st_mtime_ns) for status in found)

    def verify(self, folder: Path, files: Mapping[str, StoredFile]) -> None:
        """Raise `ModelDamaged` unless every file is as it was stored. A large file is read once a process."""
        for path, file in files.items():
            if not self._checksums.matches(folder / path, file.sha256, file.bytes):
                raise ModelDamaged(file=path)

    def publish(self, manifest: Manifest, content: Path) -> None:
        """Make `content` the version's folder, all at once and for good."""
        (content / MANIFEST).write_bytes(manifest.to_json())
        for path in [*content.rglob("*"), content]:
            sync_to_disk(path)
        target = self.folder(manifest.model, manifest.version)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():  # a damaged one: `pull` found its manifest missing
            shutil.rmtree(target)
        content.rename(target)
        sync_to_disk(target.parent)

    def remove(self, name: str, version: int) -> None:
        """Delete a version: its manifest first, so that no half of it ever looks whole."""
        folder = self.folder(name, version)
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(self.staging(name, version), ignore_errors=True)


def sync_to_disk(path: Path) -> None:
    """Wait until a file or a folder is on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
