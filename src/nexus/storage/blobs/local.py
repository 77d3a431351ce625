"""Blobs as files below one folder: `ab/cd/abcd...`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from nexus.storage.blob_store import Blob, BlobNotFound, BlobTooLarge, StorageFull, checked

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class LocalBlobs:
    """A blob store in a folder of this machine. Writes go to a temporary file and are renamed."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, made when first needed."""
        self._folder = folder
        self._incoming = folder / ".incoming"

    async def put(self, content: bytes | AsyncIterator[bytes], *, limit: int | None = None) -> Blob:
        """Store the content, whole or not at all."""
        await asyncio.to_thread(self._incoming.mkdir, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._incoming)
        temporary = Path(name)
        digest, size = hashlib.sha256(), 0
        try:
            with os.fdopen(handle, "wb") as file:
                async for chunk in _chunks(content):
                    size += len(chunk)
                    if limit is not None and size > limit:
                        raise BlobTooLarge(limit=limit)
                    digest.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
                await asyncio.to_thread(_sync, file)
            target = self._place(digest.hexdigest())
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(target)
        except OSError as error:
            if error.errno in _FULL:
                raise StorageFull from None
            raise
        finally:
            temporary.unlink(missing_ok=True)
        return Blob(digest.hexdigest(), size)

    async def read(self, sha256: str) -> bytes:
        """Return the content."""
        return await asyncio.to_thread(self.path(sha256).read_bytes)

    def path(self, sha256: str) -> Path:
        """Return the file itself."""
        place = self._place(sha256)
        if not place.is_file():
            raise BlobNotFound
        return place

    async def exists(self, sha256: str) -> bool:
        """Tell whether the content is there."""
        return self._place(sha256).is_file()

    async def delete(self, sha256: str) -> None:
        """Forget the content."""
        self._place(sha256).unlink(missing_ok=True)

    def sweep_incoming(self, older_than: float) -> int:
        """Remove what interrupted uploads left behind, older than so many seconds; return how many."""
        if not self._incoming.is_dir():
            return 0
        limit = time.time() - older_than
        removed = 0
        for path in self._incoming.iterdir():
            # An upload that ends in this moment takes its file away.
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < limit:
                    path.unlink()
                    removed += 1
        return removed

    def _place(self, sha256: str) -> Path:
        digest = checked(sha256)
        return self._folder / digest[:2] / digest[2:4] / digest


async def _chunks(content: bytes | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    async for chunk in content:
        yield chunk


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
