"""The file that a recorded call is in before `record` returns.

Each process has a folder `<data_dir>/ledger/<pid>-<random>/` with a lock that it holds (flock) as
long as it lives, and numbered segments of JSON lines. A segment is a file of fixed size mapped into
memory: a record copied into it is in the kernel's page cache, and safe from `kill -9`, at once and
without a system call. Its blocks are reserved when it is made, so that a full disk shows then. The
batcher seals a segment, copies its rows into the database and only then removes it; the segment is
the queue, and memory stays flat while the database is away. Folders whose lock is free belong to
dead processes and are adopted by whoever looks first.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from nexus.ledger.types import Invocation

_SEGMENT = "*.jsonl"
_LOCK = "lock"
_NO_JSON = (UnicodeEncodeError, TypeError, ValueError, OverflowError, RecursionError)
_LINE_LIMIT = 64 * 1024
_END = ord("\n")
_SEGMENT_SIZE = 1024 * 1024
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def _plain(value: object) -> object:
    """Turn what JSON does not know (NumPy values, paths) into what it does."""
    as_python = getattr(value, "tolist", None)
    return as_python() if callable(as_python) else str(value)


_encoder = msgspec.json.Encoder(enc_hook=_plain)
_decoder = msgspec.json.Decoder(Invocation)


def encode(invocation: Invocation) -> bytes:
    """Return the record as one line. Details too long for a ledger are left out and said so."""
    line = bytearray()
    _encode_into(invocation, line)
    return bytes(line)


def _encode_into(invocation: Invocation, line: bytearray) -> None:
    try:
        _encoder.encode_into(invocation, line)
    except _NO_JSON:
        _encoder.encode_into(_storable(invocation), line)
    if len(line) > _LINE_LIMIT:
        _encoder.encode_into(msgspec.structs.replace(_storable(invocation), details={"truncated": True}), line)
    line.append(_END)


def _storable(invocation: Invocation) -> Invocation:
    """Return a copy without lone surrogates, over-long text and whatever in the details has no JSON form."""
    changes: dict[str, Any] = {
        name: _UNSTORABLE.sub("\ufffd", value)[:512]
        for name, value in msgspec.structs.asdict(invocation).items()
        if isinstance(value, str)
    }
    try:
        msgspec.json.decode(_encoder.encode(invocation.details))
    except _NO_JSON:
        changes["details"] = {"truncated": True}
    return msgspec.structs.replace(invocation, **changes)


def read_lines(path: Path) -> list[bytes]:
    """Return the lines of a segment."""
    # A segment that its process did not close ends in zeros.
    lines = path.read_bytes().rstrip(b"\0\n").split(b"\n")
    return lines if lines != [b""] else []


def decode(line: bytes) -> Invocation | None:
    """Return the record of a line; None for one that is no record (torn by a kill or a full disk)."""
    try:
        return _decoder.decode(line.strip(b"\0"))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class Journal:
    """This process's folder of segments. Thread-safe."""

    def __init__(self, root: Path) -> None:
        """Use `root` (`<data_dir>/ledger`); nothing is created before the first record."""
        self.root = root
        self._mutex = threading.Lock()
        self._folder: Path | None = None
        self._lock_file = -1
        self._segment = -1
        self._map: mmap.mmap | None = None
        self._used = 0
        self._line = bytearray()
        self._number = 0
        self.rows_in_segment = 0

    def append(self, invocation: Invocation) -> int:
        """Write one record and return how many have come since the last `seal`. Raises `OSError` on a full disk."""
        line = self._line
        with self._mutex:
            _encode_into(invocation, line)
            used = self._used
            end = used + len(line)
            segment = self._map
            if segment is None or end > _SEGMENT_SIZE:
                self._close_segment()
                segment = self._open_segment()
                used, end = 0, len(line)
            segment[used:end] = line
            self._used = end
            self.rows_in_segment += 1
            return self.rows_in_segment

    def seal(self) -> list[Path]:
        """Close the open segment and return every segment of this process, oldest first."""
        with self._mutex:
            self._close_segment()
            self.rows_in_segment = 0
            return sorted(self._folder.glob(_SEGMENT)) if self._folder else []

    def close(self) -> None:
        """Let go of the folder; what is left in it is adopted by the next process."""
        for path in self.seal():
            if path.stat().st_size == 0:
                path.unlink()
        with self._mutex:
            if self._folder is not None:
                if not any(self._folder.glob(_SEGMENT)):
                    shutil.rmtree(self._folder, ignore_errors=True)
                os.close(self._lock_file)
                self._folder, self._lock_file = None, -1

    def _open_segment(self) -> mmap.mmap:
        if self._folder is None:
            self._folder, self._lock_file = _claim_new_folder(self.root)
        self._number += 1
        path = self._folder / f"{self._number:09d}.jsonl"
        segment = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _reserve(segment)
            self._map = opened = mmap.mmap(segment, _SEGMENT_SIZE)
        except BaseException:
            os.close(segment)
            path.unlink(missing_ok=True)
            raise
        self._segment, self._used = segment, 0
        return opened

    def _close_segment(self) -> None:
        if self._map is not None:
            self._map.close()
            os.ftruncate(self._segment, self._used)
            os.close(self._segment)
            self._map, self._segment, self._used = None, -1, 0

    def adopt(self) -> Iterator[Path]:
        """Yield the segments of dead processes, holding their lock; emptied folders are removed."""
        if not self.root.is_dir():
            return
        for folder in sorted(self.root.iterdir()):
            if folder == self._folder or folder.name.startswith(".") or not folder.is_dir():
                continue
            lock = _try_lock(folder / _LOCK)
            if lock is None:
                continue
            try:
                yield from sorted(folder.glob(_SEGMENT))
                if not any(folder.glob(_SEGMENT)):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _reserve(file: int) -> None:
    """Give a new file its blocks now: writing to a mapped page that gets none would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, _SEGMENT_SIZE)
    elif os.write(file, bytes(_SEGMENT_SIZE)) < _SEGMENT_SIZE:
        raise OSError("short write")


def _claim_new_folder(root: Path) -> tuple[Path, int]:
    """Make a folder that is locked before anybody else can see it."""
    name = f"{os.getpid()}-{secrets.token_hex(6)}"
    hidden = root / f".{name}"
    hidden.mkdir(parents=True, mode=0o700)
    lock = os.open(hidden / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return hidden.rename(root / name), lock


def _try_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock, or None when its owner lives or it is gone."""
    with suppress(FileNotFoundError):
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock
    return None
