"""SHA-256 of files, remembered as long as a file does not change."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Return the digest of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Checksums:
    """Digests by path, size and time of change: a large file is read once for each process."""

    def __init__(self) -> None:
        """Start without any."""
        self._known: dict[tuple[str, int, int, int], str] = {}
        self._lock = threading.Lock()

    def of(self, path: Path) -> str:
        """Return the digest of the file as it is now."""
        status = path.stat()
        key = (str(path), status.st_ino, status.st_size, status.st_mtime_ns)
        with self._lock:
            known = self._known.get(key)
        if known is None:
            known = sha256_of(path)
            with self._lock:
                self._known[key] = known
        return known

    def matches(self, path: Path, sha256: str, size: int) -> bool:
        """Tell whether `path` is a file of this size and digest."""
        try:
            return path.is_file() and path.stat().st_size == size and self.of(path) == sha256
        except OSError:
            return False
