"""Files by id: kept once for each content, found only in their own project.

file = await files.add(who, chunks, "photo.jpg", "image/jpeg", "vision")
data = await files.read(who, file.id)
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from nexus.access.types import Principal
from nexus.core.clock import Clock, SystemClock
from nexus.core.errors import Unavailable
from nexus.core.ids import is_id, new_id
from nexus.files import storage
from nexus.files.errors import EmptyFile, FileNotFound, FileTooLarge
from nexus.files.settings import FilesSettings
from nexus.files.sniff import HEAD, content_type_of
from nexus.files.tables import FileRow
from nexus.files.types import File
from nexus.storage.blob_store import BlobNotFound, BlobStore
from nexus.storage.blobs.local import LocalBlobs
from nexus.storage.db import Database

log = logging.getLogger(__name__)

_IN_MEMORY: Final = 4 * 2**20
_PIECE: Final = 256 * 1024
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
_TRIES: Final = 100

Content = bytes | AsyncIterator[bytes]


class FileService:
    """Adds, finds and removes files. The blob store must be its own: it deletes what no file refers to."""

    def __init__(
        self,
        *,
        database: Database,
        blobs: BlobStore,
        settings: FilesSettings | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Keep rows in `database` and content in `blobs`."""
        self._database = database
        self._blobs = blobs
        self.settings = settings or FilesSettings()
        self._clock = clock or SystemClock()
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to sweep now and then."""
        if self._sweeping is None:
            self._sweeping = asyncio.create_task(self._sweep_for_ever(), name="files-sweep")

    async def stop(self) -> None:
        """Stop sweeping."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeping
            self._sweeping = None

    async def add(
        self,
        principal: Principal,
        chunks: Content,
        filename: str,
        content_type: str = "application/octet-stream",
        purpose: str = "user_data",
        *,
        expires_at: datetime | None = None,
    ) -> File:
        """Keep a file. The content type is what the bytes say, `content_type` only where they say nothing.

        Raises `FileTooLarge`, `EmptyFile`, or `StorageFull`; nothing is kept then.
        """
        with SpooledTemporaryFile[bytes](max_size=_IN_MEMORY) as copy:
            sha256, size, head = await self._take(chunks, copy)
            row = FileRow(
                id=new_id("file"),
                project_id=principal.project_id,
                principal_id=principal.id,
                sha256=sha256,
                size=size,
                filename=display_name(filename),
                content_type=content_type_of(head, content_type),
                purpose=purpose[:64],
                created_at=self._clock.now(),
                expires_at=expires_at,
            )
            # What steps of workflows write is no news: it could start them again for ever.
            await self._store(row, copy, tell=principal.kind != "system")
        return _file(row)

    async def _take(self, content: Content, copy: SpooledTemporaryFile[bytes]) -> tuple[str, int, bytes]:
        """Copy the content; return its digest, size and first bytes."""
        digest, size, head = hashlib.sha256(), 0, b""
        async for chunk in _pieces(content):
            size += len(chunk)
            if size > self.settings.limit:
                raise FileTooLarge(
                    f"The file is larger than {self.settings.limit} bytes.", field="file", limit=self.settings.limit
                )
            if len(head) < HEAD:
                head = (head + chunk)[:HEAD]
            digest.update(chunk)
            if size > _IN_MEMORY:
                await asyncio.to_thread(copy.write, chunk)
            else:
                copy.write(chunk)
        if not size:
            raise EmptyFile(field="file")
        return digest.hexdigest(), size, head

    async def _store(self, row: FileRow, copy: SpooledTemporaryFile[bytes], *, tell: bool) -> None:
        for _ in range(_TRIES):
            state = await self._database.write(storage.claim, row.sha256, row.size, self._clock.now(), row, tell=tell)
            if state == "present":
                return
            if state == "incoming":
                copy.seek(0)
                await self._blobs.put(_spooled(copy), limit=self.settings.limit)
                if await self._database.write(storage.arrived, row, self._clock.now(), tell=tell):
                    return
            await asyncio.sleep(0.05)
        raise Unavailable(retry_after=1)

    async def get(self, principal: Principal, file_id: str) -> File:
        """Return a file of the caller's project. Raises `FileNotFound`."""
        if not is_id(file_id, "file"):
            raise FileNotFound(field="file_id")
        row = await self._database.read(storage.file, principal.project_id, file_id, self._clock.now())
        if row is None:
            raise FileNotFound(field="file_id")
        return _file(row)

    async def read(self, principal: Principal, file_id: str, limit: int | None = None) -> bytes:
        """Return the content. Raises `FileNotFound`, or `FileTooLarge` past `limit` bytes."""
        file = await self.get(principal, file_id)
        if limit is not None and file.size > limit:
            raise FileTooLarge(f"The file is larger than {limit} bytes.", field="file_id", limit=limit)
        return await self.content(file)

    async def content(self, file: File) -> bytes:
        """Return the content of a file that has been found. Raises `FileNotFound` where it has gone meanwhile."""
        try:
            return await self._blobs.read(file.sha256)
        except BlobNotFound:
            raise FileNotFound(field="file_id") from None

    async def path(self, principal: Principal, file_id: str) -> Path:
        """Return a local file with the content, to be read only. Raises `FileNotFound`."""
        file = await self.get(principal, file_id)
        return self._blobs.path(file.sha256)

    async def page(
        self,
        principal: Principal,
        *,
        after: str | None = None,
        limit: int = 20,
        purpose: str | None = None,
        newest_first: bool = True,
    ) -> list[File]:
        """Return a page of the project's files behind the id `after`."""
        rows = await self._database.read(
            storage.files,
            principal.project_id,
            self._clock.now(),
            after,
            limit,
            purpose=purpose,
            newest_first=newest_first,
        )
        return [_file(row) for row in rows]

    async def delete(self, principal: Principal, file_id: str) -> None:
        """Remove a file, and its content unless another file has the same. Raises `FileNotFound`."""
        await self.get(principal, file_id)
        sha256 = await self._database.write(storage.remove_file, principal.project_id, file_id)
        if sha256 is None:
            raise FileNotFound(field="file_id")
        await self._remove_content(sha256)

    async def sweep(self) -> int:
        """Remove expired files, content that no file refers to and interrupted uploads; return how many contents."""
        await self._database.write(storage.remove_expired, self._clock.now())
        removed = 0
        for sha256 in await self._database.read(storage.unused, self._orphaned_before()):
            removed += await self._remove_content(sha256)
        if isinstance(self._blobs, LocalBlobs):
            await asyncio.to_thread(self._blobs.sweep_incoming, self.settings.orphan_seconds)
        return removed

    async def _remove_content(self, sha256: str) -> bool:
        """Delete content in three steps, each of which another process may take over."""
        now = self._clock.now()
        if not await self._database.write(storage.begin_removal, sha256, self._orphaned_before(), now):
            return False
        await self._blobs.delete(sha256)
        await self._database.write(storage.end_removal, sha256)
        return True

    def _orphaned_before(self) -> datetime:
        return self._clock.now() - timedelta(seconds=self.settings.orphan_seconds)

    async def _sweep_for_ever(self) -> None:
        while True:
            try:
                await self.sweep()
            except (Unavailable, SQLAlchemyError, OSError) as error:
                # What is left lies there until the next round.
                log.warning("files could not be swept (%s)", type(error).__name__)
            await asyncio.sleep(self.settings.sweep_seconds)


def display_name(name: str) -> str:
    """Return a name to show: its last segment, without control and direction characters; never a path to open."""
    last = name.replace("\\", "/").rpartition("/")[2]
    clean = _CONTROL.sub("", last).encode("utf-8", "replace").decode().strip()
    return clean[:255] or "file"


def _file(row: FileRow) -> File:
    return File(
        id=row.id,
        project_id=row.project_id,
        sha256=row.sha256,
        size=row.size,
        filename=row.filename,
        content_type=row.content_type,
        purpose=row.purpose,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


async def _pieces(content: Content) -> AsyncIterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    async for chunk in content:
        yield chunk


async def _spooled(copy: SpooledTemporaryFile[bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(copy.read, _PIECE):
        yield chunk
