"""A file on this machine: the folders of `model_sources`, and `{kind = "file", path = "sub/folder/x.onnx"}`.

These folders are tried before any download, for every file of every row. A file is recognised by
its SHA-256 wherever it lies; its place is only a hint that saves reading the others.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from nexus.catalog.checksums import Checksums
from nexus.catalog.errors import SourceUnreachable
from nexus.catalog.settings import CatalogSettings
from nexus.catalog.source import Work
from nexus.catalog.types import FileSpec

_MOST_FILES: Final = 50_000
_FRESH: Final = 5.0
_checksums = Checksums()


class FileSource:
    """Look a file up in the folders that the settings name."""

    def __init__(self) -> None:
        """Know no folder yet."""
        self._by_size: dict[Path, tuple[float, dict[int, list[Path]]]] = {}

    def local(self, wanted: FileSpec, options: Mapping[str, Any], settings: CatalogSettings) -> Path | None:
        """Return the first file with the right size and digest."""
        hints = [str(options["path"])] if "path" in options else []
        for root in map(folder_of, settings.model_sources):
            likely = [root / hint for hint in (*hints, wanted.path, wanted.sha256)]
            for candidate in (*likely, *self._of_size(root, wanted.bytes)):
                if _checksums.matches(candidate, wanted.sha256, wanted.bytes):
                    return candidate
        return None

    def _of_size(self, root: Path, size: int) -> list[Path]:
        """Return the files of this size below `root`; the folder is read again after a few seconds."""
        read_at, by_size = self._by_size.get(root, (-_FRESH, {}))
        if time.monotonic() - read_at >= _FRESH:
            by_size = _read_folder(root)
            self._by_size[root] = (time.monotonic(), by_size)
        return by_size.get(size, [])

    def fetch(self, wanted: FileSpec, options: Mapping[str, Any], target: Path, work: Work) -> None:
        """Copy the file."""
        found = self.local(wanted, options, work.settings)
        if found is None:
            raise SourceUnreachable("The file is in none of the folders of `model_sources`.", file=wanted.path)
        shutil.copyfile(found, target)
        work.report(wanted.bytes)


def folder_of(source: str) -> Path:
    """Return the folder that an entry of `model_sources` names, as a path or as a `file://` URL."""
    if source.startswith("file://"):
        return Path(unquote(urlsplit(source).path))
    return Path(source).expanduser()


def _read_folder(root: Path) -> dict[int, list[Path]]:
    """Return the files below `root` by size, the first 50,000 of them."""
    found: dict[int, list[Path]] = {}
    paths = (Path(folder, name) for folder, _, names in os.walk(root) for name in names)
    for path in islice(paths, _MOST_FILES):
        try:
            found.setdefault(path.stat().st_size, []).append(path)
        except OSError:
            continue  # gone meanwhile, or not ours to read
    return found


plug = FileSource()
