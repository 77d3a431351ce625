"""Watched folders: a file that has come to rest is copied into the project's files and told as `file.arrived`.

Only folders that a trigger names are looked at, below the roots of the settings and nowhere else: every level is
opened without following links. A file counts once for each path and content, whatever happens in between: the row
that says so, and the event, are one transaction. Until then a file may be copied twice; the spare copy goes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import stat
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import exists, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from nexus.automation import trigger_storage as queries
from nexus.automation.settings import AutomationSettings
from nexus.automation.trigger_tables import TriggerRow, WatchedFileRow
from nexus.automation.triggers.file import ARRIVED, FileConfig, plug
from nexus.core.clock import Clock
from nexus.core.errors import InvalidInput
from nexus.files.service import FileService
from nexus.files.types import File
from nexus.runs.records import principal_of
from nexus.storage.db import Database
from nexus.storage.events import publish

log = logging.getLogger(__name__)

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE: Final = 256 * 1024
_DONE: Final = "done"
_MOST: Final = 10_000
_UNREADABLE: Final = "folder_unreadable"


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as it lay there at one look."""

    name: str
    size: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class Watched:
    """One folder of one project, and the triggers that name it."""

    project_id: str
    folder: str
    path: Path
    below: tuple[str, ...]
    triggers: tuple[tuple[TriggerRow, FileConfig], ...]

    def wanting(self, name: str) -> list[FileConfig]:
        """Return what the triggers that want a file of this name say."""
        event = {"data": {"folder": self.folder, "name": name}}
        return [config for _, config in self.triggers if plug.admits(config, event)]

    def place(self, name: str) -> str:
        """Return the key of a path of this project."""
        return hashlib.sha256(f"{self.project_id}\0{self.folder}/{name}".encode()).hexdigest()


class FolderWatch:
    """Looks at watched folders, as a ticker of the scheduler."""

    name = "folders"

    def __init__(self, *, database: Database, files: FileService, settings: AutomationSettings, clock: Clock) -> None:
        """Look below `settings.watch`; keep copies in `files`."""
        self._database = database
        self._files = files
        self._settings = settings
        self._clock = clock
        self._seen: dict[str, Seen] = {}
        self._over: dict[str, Seen] = {}

    async def tick(self) -> float | None:
        """Take in what has come to rest."""
        if not self._settings.watch:
            return 60.0
        present: set[str] = set()
        for watched in await self._watched():
            try:
                found = await asyncio.to_thread(_scan, watched)
            except OSError as error:
                log.warning("the watched folder %s cannot be read (%s)", watched.folder, type(error).__name__)
                await self._say(watched, _UNREADABLE, _why(watched, error))
                continue
            await self._say(watched, None, "")
            for seen in found:
                present.add(place := watched.place(seen.name))
                await self._look(watched, seen, place)
        for memory in (self._seen, self._over):
            for gone in memory.keys() - present:
                del memory[gone]
        return self._settings.watch_seconds

    async def _watched(self) -> list[Watched]:
        groups: dict[tuple[str, str], list[tuple[TriggerRow, FileConfig]]] = defaultdict(list)
        for row in await self._database.read(queries.listening, None, (plug.kind,)):
            config = FileConfig.model_validate(row.config)
            groups[row.project_id, config.folder].append((row, config))
        found = []
        for (project_id, folder), triggers in groups.items():
            root, *below = folder.split("/")
            if (path := self._settings.watch.get(root)) is not None:
                real = Path(str(path).replace("{project}", project_id))
                found.append(Watched(project_id, folder, real, tuple(below), tuple(triggers)))
        return found

    async def _say(self, watched: Watched, code: str | None, message: str) -> None:
        """Show at the triggers of a folder that it cannot be read, or that it can be again; where that is news."""
        for row, _ in watched.triggers:
            shown = (row.last_error or {}).get("code")
            if code == shown or (code is None and shown != _UNREADABLE):
                continue
            error = None if code is None else {"code": code, "message": message, "at": self._clock.now().isoformat()}
            await self._database.write(queries.note, row.id, {"last_error": error})

    async def _look(self, watched: Watched, seen: Seen, place: str) -> None:
        before, self._seen[place] = self._seen.get(place), seen
        rests = self._clock.now().timestamp() - seen.modified_ns / 1e9 >= self._settings.watch_settle
        if before != seen or not rests or self._over.get(place) == seen:
            return
        try:
            if await self._database.read(_known, place, seen) or await self._take(watched, seen, place):
                if any(config.move_to_done for config in watched.wanting(seen.name)):
                    await asyncio.to_thread(_move, watched, seen)
                self._over[place] = seen
        except InvalidInput as error:
            log.warning("a file in %s was left alone: %s", watched.folder, error.code)
            await self._say(watched, error.code, f"{seen.name} was left alone: {error.message}")
            self._over[place] = seen
        except OSError as error:
            # It is gone or was changed at this moment; the next look tells.
            log.info("a file in %s could not be taken in (%s)", watched.folder, type(error).__name__)

    async def _take(self, watched: Watched, seen: Seen, place: str) -> bool:
        """Copy a file and tell of it; False when it changed meanwhile."""
        row = watched.triggers[0][0]
        principal = principal_of(row.project_id, row.starter)
        descriptor = await asyncio.to_thread(_open, watched, seen.name)
        try:
            file = await self._files.add(principal, _pieces(descriptor), seen.name, purpose="watched")
            same = _seen(seen.name, os.fstat(descriptor)) == seen and file.size == seen.size
        finally:
            os.close(descriptor)
        if not same or not await self._database.write(self._tell, watched, seen, place, file):
            await self._files.delete(principal, file.id)
        return same

    def _tell(self, session: Session, watched: Watched, seen: Seen, place: str, file: File) -> bool:
        """Say that the file has arrived; False when that was said of this path and content before."""
        values = {
            "id": hashlib.sha256(f"{place}\0{file.sha256}".encode()).hexdigest(),
            "place": place,
            "size": seen.size,
            "modified_ns": seen.modified_ns,
            "file_id": file.id,
            "arrived_at": self._clock.now(),
        }
        dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
        put = dialect.insert(WatchedFileRow).values(values).on_conflict_do_nothing().returning(WatchedFileRow.id)
        if session.execute(put).scalar_one_or_none() is None:
            again = {"modified_ns": seen.modified_ns}
            session.execute(update(WatchedFileRow).where(WatchedFileRow.id == values["id"]).values(again))
            return False
        data: dict[str, Any] = {"file_id": file.id, "folder": watched.folder, "name": seen.name, "size": file.size}
        data |= {"sha256": file.sha256, "content_type": file.content_type}
        subject = f"{watched.folder}/{seen.name}"
        publish(session, ARRIVED, watched.project_id, data, at=self._clock.now(), subject=subject)
        return True


def _why(watched: Watched, error: OSError) -> str:
    """Say in words for users, who know of no paths of this machine, why a folder cannot be read."""
    match error:
        case FileNotFoundError():
            return f"There is no folder {watched.folder}."
        case PermissionError():
            return f"NEXUS may not read the folder {watched.folder}."
    if isinstance(error, NotADirectoryError) or error.errno == errno.ELOOP:
        return f"{watched.folder} is no folder, or a link, which is not followed."
    return f"The folder {watched.folder} cannot be read."


def _known(session: Session, place: str, seen: Seen) -> bool:
    same = (WatchedFileRow.place == place, WatchedFileRow.size == seen.size)
    return bool(session.scalar(select(exists().where(*same, WatchedFileRow.modified_ns == seen.modified_ns))))


@contextlib.contextmanager
def _opened(watched: Watched, *further: str) -> Iterator[int]:
    """Open the folder level by level, following no link below the root. Raises `OSError`."""
    descriptor = os.open(watched.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for level in (*watched.below, *further):
            deeper = os.open(level, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = deeper
        yield descriptor
    finally:
        os.close(descriptor)


def _scan(watched: Watched) -> Sequence[Seen]:
    """Return the plain files that some trigger wants, by name."""
    found = []
    with _opened(watched) as folder, os.scandir(folder) as entries:
        for entry in entries:
            if _plain_name(entry.name) and entry.is_file(follow_symlinks=False) and watched.wanting(entry.name):
                with contextlib.suppress(FileNotFoundError):
                    found.append(_seen(entry.name, entry.stat(follow_symlinks=False)))
            if len(found) >= _MOST:
                break
    return sorted(found, key=lambda seen: seen.name)


def _plain_name(name: str) -> bool:
    """Tell whether a name is one for users: not hidden, not half a character."""
    return not name.startswith(".") and name.isprintable() and len(name.encode(errors="replace")) <= 255


def _seen(name: str, status: os.stat_result) -> Seen:
    return Seen(name, status.st_size, status.st_mtime_ns)


def _open(watched: Watched, name: str) -> int:
    with _opened(watched) as folder:
        descriptor = os.open(name, _FILE, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(name)
    return descriptor


async def _pieces(descriptor: int) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(os.read, descriptor, _PIECE):
        yield piece


def _move(watched: Watched, seen: Seen) -> None:
    """Move a file to the folder `done` beside it, under a free name; leave it where it has changed."""
    with _opened(watched) as folder:
        with contextlib.suppress(FileExistsError):
            os.mkdir(_DONE, 0o755, dir_fd=folder)
        with _opened(watched, _DONE) as done:
            if _seen(seen.name, os.stat(seen.name, dir_fd=folder, follow_symlinks=False)) != seen:
                return
            taken = set(os.listdir(done))  # noqa: PTH208  a descriptor, which no link can lead elsewhere
            stem, suffix = Path(seen.name).stem, Path(seen.name).suffix
            names = (f"{stem}-{number}{suffix}" if number else seen.name for number in range(len(taken) + 1))
            os.rename(seen.name, next(name for name in names if name not in taken), src_dir_fd=folder, dst_dir_fd=done)
