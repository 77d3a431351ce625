"""Bytes kept by their SHA-256: uploads, data sets, model artefacts, results.

A name given by a user never becomes a path; the only key is the digest of the content. The same
bytes are stored once.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from nexus.core.errors import NexusError, NotFound, TooLarge

_SHA256 = re.compile(r"[0-9a-f]{64}")


class BlobNotFound(NotFound):
    """The stored content is not there."""

    code = "blob_not_found"


class BlobTooLarge(TooLarge):
    """The upload is larger than allowed."""

    code = "upload_too_large"


class StorageFull(NexusError):
    """There is no space left to store this."""

    code = "storage_full"
    status = 507


@dataclass(frozen=True, slots=True)
class Blob:
    """What was stored: its digest and its size in bytes."""

    sha256: str
    size: int


@runtime_checkable
class BlobStore(Protocol):
    """Where blobs are kept."""

    async def put(self, content: bytes | AsyncIterator[bytes], *, limit: int | None = None) -> Blob:
        """Store the content, whole or not at all.

        Raises `BlobTooLarge` past `limit` bytes and `StorageFull` when the disk is full.
        """
        ...

    async def read(self, sha256: str) -> bytes:
        """Return the content. Raises `BlobNotFound`."""
        ...

    def path(self, sha256: str) -> Path:
        """Return a local file with the content, to be read only. Raises `BlobNotFound`."""
        ...

    async def exists(self, sha256: str) -> bool:
        """Tell whether the content is there."""
        ...

    async def delete(self, sha256: str) -> None:
        """Forget the content; nothing happens when it is not there."""
        ...


def checked(sha256: str) -> str:
    """Return the digest, or raise `BlobNotFound` for what is none: it is about to become a path."""
    if not _SHA256.fullmatch(sha256):
        raise BlobNotFound
    return sha256
