"""Blobs are stored whole or not at all, by digest only."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nexus.storage.blob_store import BlobNotFound, BlobStore, BlobTooLarge
from nexus.storage.blobs.local import LocalBlobs


async def _stream(*parts: bytes, fail: bool = False) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if fail:
        raise ConnectionResetError


async def test_keeps_bytes_by_their_digest(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    assert isinstance(blobs, BlobStore)
    blob = await blobs.put(_stream(b"ab", b"", b"c"))
    assert (blob.sha256, blob.size) == (hashlib.sha256(b"abc").hexdigest(), 3)
    assert await blobs.put(b"abc") == blob
    assert await blobs.read(blob.sha256) == b"abc"
    await blobs.delete(blob.sha256)
    assert not await blobs.exists(blob.sha256)


async def test_too_much_and_broken_streams_leave_nothing(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    with pytest.raises(BlobTooLarge):
        await blobs.put(_stream(b"x" * 10, b"y" * 10), limit=15)
    with pytest.raises(ConnectionResetError):
        await blobs.put(_stream(b"half", fail=True))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "a" * 63, "A" * 64, "g" * 64, "0" * 64 + "/x", "0" * 64])
async def test_only_a_known_digest_is_a_key(tmp_path: Path, key: str) -> None:
    with pytest.raises(BlobNotFound):
        await LocalBlobs(tmp_path).read(key)
