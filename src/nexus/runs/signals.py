"""Waking an engine without polling, and telling whether an engine of this machine is dead.

Each engine binds a datagram socket `<data dir>/engines/<owner>.sock` and holds a lock on
`<owner>.lock` there. After a commit the API sends one byte to every socket there. Engines on other machines
hear PostgreSQL's NOTIFY. A lost signal costs at most one poll; the kernel drops the lock of a dead
process, so its steps are taken over at once, without waiting for their leases.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import selectors
import socket
import tempfile
from pathlib import Path
from typing import Any, Final, Protocol

from nexus.runs.outbox import CHANNEL
from nexus.storage.db import Database

OUTBOX: Final = "outbox"
CANCEL: Final = "cancel"
_WORDS: Final = {b"o": OUTBOX, b"c": CANCEL}
_BYTES: Final = {word: byte for byte, word in _WORDS.items()}
_LONGEST_SOCKET_PATH: Final = 107
_LONGEST_NAME: Final = 56


def lock_folder(data_dir: Path) -> Path:
    """Return where the engines of a data folder hold their locks."""
    return data_dir.resolve() / "engines"


def socket_folder(data_dir: Path) -> Path:
    """Return where their sockets lie: beside the locks, or, that path being too long, in a short one."""
    folder = lock_folder(data_dir)
    if len(os.fsencode(folder)) + _LONGEST_NAME <= _LONGEST_SOCKET_PATH:
        return folder
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"nexus-{os.getuid()}-{digest}"


class Bell:
    """The API's side: wakes every engine of a data folder. Never waits and never fails."""

    def __init__(self, data_dir: Path | None) -> None:
        """Ring for the engines of `data_dir`; None rings nowhere."""
        self._folder = None if data_dir is None else socket_folder(data_dir)
        self._socket: socket.socket | None = None

    def ring(self, what: str) -> None:
        """Tell all engines there is something to publish (`outbox`) or to stop (`cancel`)."""
        if self._folder is None:
            return
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        for path in self._folder.glob("*.sock"):
            try:
                self._socket.sendto(_BYTES[what], os.fspath(path))
            except OSError as error:
                # A full buffer means that the engine has been woken already.
                if error.errno == errno.ECONNREFUSED:
                    path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Ear(Protocol):
    """One source of signals that a selector can wait for."""

    def fileno(self) -> int:
        """Return what to wait for."""
        ...

    def words(self) -> set[str]:
        """Return what has been heard since the last time, without waiting."""
        ...

    def close(self) -> None:
        """Stop listening."""
        ...


class SocketEar:
    """Hears a `Bell`, or `nudge` from within the same process."""

    def __init__(self, path: Path | None) -> None:
        """Listen at `path`; with None only to `nudge`."""
        self._path = path
        self._here, self._there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._outer: socket.socket | None = None
        if path is not None:
            self._outer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._outer.bind(os.fspath(path))
            self._outer.setblocking(False)
            path.chmod(0o600)
        self._here.setblocking(False)
        self._there.setblocking(False)
        self._both = selectors.DefaultSelector()
        self._both.register(self._here, selectors.EVENT_READ)
        if self._outer is not None:
            self._both.register(self._outer, selectors.EVENT_READ)

    def fileno(self) -> int:
        """Return a descriptor that is readable when either socket is (an epoll can be waited for itself)."""
        return self._both.fileno()

    def nudge(self, what: str) -> None:
        """Wake the listener from another thread of this process."""
        # Full: it is awake already. Closed: it needs no waking.
        with contextlib.suppress(OSError):
            self._there.send(_BYTES[what])

    def words(self) -> set[str]:
        """Return what has been heard since the last time, without waiting."""
        heard: set[str] = set()
        for source in (self._here, self._outer):
            while source is not None:
                try:
                    word = _WORDS.get(source.recv(16)[:1])
                except BlockingIOError:
                    break
                if word is not None:
                    heard.add(word)
        return heard

    def close(self) -> None:
        """Stop listening and take the socket away."""
        self._both.close()
        for source in (self._here, self._there, self._outer):
            if source is not None:
                source.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


class PostgresEar:
    """Hears NOTIFY on a connection of its own, which it opens again when it breaks."""

    def __init__(self, database: Database) -> None:
        """Connect and LISTEN. Raises `ConnectionError` when the server does not answer."""
        import psycopg

        self._broken = psycopg.Error
        url = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
        try:
            self._connection: psycopg.Connection[Any] = psycopg.connect(url, autocommit=True, connect_timeout=2)
            self._connection.execute(f"LISTEN {CHANNEL}")
        except psycopg.Error:
            raise ConnectionError from None

    def fileno(self) -> int:
        """Return the connection's socket."""
        return self._connection.fileno()

    def words(self) -> set[str]:
        """Return what has been heard. Raises `ConnectionError` for a broken connection."""
        try:
            return {notice.payload for notice in self._connection.notifies(timeout=0)}
        except self._broken:
            raise ConnectionError from None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Presence:
    """An engine's lock and socket in the data folder, and its view of the peers there."""

    def __init__(self, data_dir: Path | None, owner: str) -> None:
        """Show `owner` as alive in `data_dir`; with None nothing is shown and no peer is known."""
        self.owner = owner
        self._folder = None if data_dir is None else lock_folder(data_dir)
        self._lock: int | None = None
        self.socket_path: Path | None = None
        if data_dir is not None and self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self._folder / f"{owner}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self.socket_path = _socket_path(data_dir, owner)

    def dead_peers(self) -> list[str]:
        """Return the owners whose lock file nobody holds any more."""
        if self._folder is None:
            return []
        locks = (path for path in self._folder.glob("*.lock") if path.stem != self.owner)
        return [path.stem for path in locks if _is_free(path)]

    def bury(self, owner: str) -> None:
        """Remove what a dead engine left, once nothing of it is left in the database."""
        if self._folder is not None:
            (self._folder / f"{owner}.sock").unlink(missing_ok=True)
            (self._folder / f"{owner}.lock").unlink(missing_ok=True)

    def leave(self) -> None:
        """Take this engine's lock and socket away."""
        if self._lock is not None:
            self.bury(self.owner)
            os.close(self._lock)
            self._lock = None


def _socket_path(data_dir: Path, owner: str) -> Path | None:
    """Return where `owner` may listen; None when the folder in the shared temporary one is somebody else's."""
    folder = socket_folder(data_dir)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder / f"{owner}.sock" if folder.stat().st_uid == os.getuid() else None


def _is_free(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
