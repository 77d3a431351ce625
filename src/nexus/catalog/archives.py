"""Take one file out of a package: wheels and other zips, source distributions and npm tarballs.

An archive with any entry that is a link or a device, that has an absolute path or that climbs out
by `..` is refused whole, though only the one file asked for is ever written.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, Final

from nexus.catalog.errors import ChecksumMismatch, UnsafeArchive

_CHUNK: Final = 1 << 20
_MOST_ENTRIES: Final = 200_000
_MOST_BYTES: Final = 16 << 30


def extract_member(archive: Path, member: str, target: Path, *, size: int) -> None:
    """Write the entry `member`, which must be `size` bytes long, to `target`.

    In a tarball the first folder, which package tools name as they like, is left out of `member`.
    Raises `UnsafeArchive` for a dangerous or damaged archive, `ChecksumMismatch` when the entry is
    missing or has another size.
    """
    try:
        if zipfile.is_zipfile(archive):
            _from_zip(archive, member, target, size)
        elif tarfile.is_tarfile(archive):
            _from_tar(archive, member, target, size)
        else:
            raise UnsafeArchive("The package is neither a zip file nor a tarball.")
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError):
        raise UnsafeArchive("The package is damaged.") from None


def check_name(name: str) -> None:
    """Raise `UnsafeArchive` unless `name` stays below the folder that it would be unpacked in."""
    parts = name.replace("\\", "/").split("/")
    if not name or "\0" in name or parts[0] == "" or ":" in parts[0] or ".." in parts:
        raise UnsafeArchive


def _from_zip(archive: Path, member: str, target: Path, size: int) -> None:
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()
        if len(entries) > _MOST_ENTRIES:
            raise UnsafeArchive("The package has too many entries.")
        for entry in entries:
            check_name(entry.filename)
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UnsafeArchive
        found = [entry for entry in entries if entry.filename == member and not entry.is_dir()]
        if len(found) != 1 or found[0].file_size != size:
            raise _not_there(member)
        with opened.open(found[0]) as source:
            _copy(source, target, size)


def _from_tar(archive: Path, member: str, target: Path, size: int) -> None:
    written, total = False, 0
    with tarfile.open(archive, "r:*") as opened:
        for count, entry in enumerate(opened):
            check_name(entry.name)
            total += entry.size
            if count > _MOST_ENTRIES or total > _MOST_BYTES:
                raise UnsafeArchive("The package is too large.")
            if not (entry.isreg() or entry.isdir()):
                raise UnsafeArchive
            if entry.isreg() and entry.name.partition("/")[2] == member:
                source = opened.extractfile(entry)
                if written or source is None or entry.size != size:
                    raise _not_there(member)
                _copy(source, target, size)
                written = True
    if not written:
        raise _not_there(member)


def _copy(source: IO[bytes], target: Path, size: int) -> None:
    with target.open("wb") as file:
        left = size
        while chunk := source.read(min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise UnsafeArchive("An entry of the package is larger than it says.")
            file.write(chunk)


def _not_there(member: str) -> ChecksumMismatch:
    return ChecksumMismatch("The package does not hold the file that the catalogue names.", member=member)
