from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update
from tests.clock import MovedClock

from nexus.access.types import Principal
from nexus.files.errors import EmptyFile, FileNotFound, FileTooLarge
from nexus.files.service import FileService, display_name
from nexus.files.settings import FilesSettings
from nexus.files.tables import ContentRow, FileRow
from nexus.storage.blob_store import Blob
from nexus.storage.blobs.local import LocalBlobs
from nexus.storage.db import Database

WHO = Principal("key", "key_a", "prj_a")
STRANGER = Principal("key", "key_b", "prj_b")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def files(any_database: Database, folder: Path) -> FileService:
    return FileService(database=any_database, blobs=LocalBlobs(folder), settings=FilesSettings(limit=10_000_000))


def blobs_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


async def chunks(data: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("size", [1, 4096, 300_000, 6_000_000])
async def test_what_is_added_can_be_read(files: FileService, size: int) -> None:
    data = os.urandom(size)
    file = await files.add(WHO, chunks(data), "a.bin", "application/x-own", "dataset")
    assert (file.size, file.sha256) == (size, hashlib.sha256(data).hexdigest())
    assert await files.get(WHO, file.id) == file
    assert await files.read(WHO, file.id) == data
    assert (await files.path(WHO, file.id)).read_bytes() == data
    with pytest.raises(FileTooLarge):
        await files.read(WHO, file.id, limit=size - 1)


async def test_the_same_content_lies_once_and_goes_with_its_last_file(files: FileService, folder: Path) -> None:
    one = await files.add(WHO, b"same", "a.txt")
    two = await files.add(WHO, b"same", "b.txt")
    other = await files.add(STRANGER, b"same", "c.txt")
    assert len({one.id, two.id, other.id}) == 3
    assert blobs_in(folder) == {one.sha256}
    await files.delete(WHO, one.id)
    await files.delete(WHO, two.id)
    assert await files.read(STRANGER, other.id) == b"same"
    await files.delete(STRANGER, other.id)
    assert blobs_in(folder) == set()


async def test_another_projects_file_is_not_there(files: FileService) -> None:
    file = await files.add(WHO, b"secret", "a.txt")
    for attempt in (
        files.get(STRANGER, file.id),
        files.read(STRANGER, file.id),
        files.path(STRANGER, file.id),
        files.delete(STRANGER, file.id),
        files.get(WHO, "../../etc/passwd"),
        files.get(WHO, "file_' OR 1=1--"),
    ):
        with pytest.raises(FileNotFound):
            await attempt
    assert await files.page(STRANGER) == []
    assert [found.id for found in await files.page(WHO)] == [file.id]


async def test_too_large_and_empty_leave_nothing(files: FileService, folder: Path) -> None:
    with pytest.raises(FileTooLarge):
        await files.add(WHO, chunks(b"x" * 10_000_001), "a")
    with pytest.raises(EmptyFile):
        await files.add(WHO, b"", "a")
    assert await files.page(WHO) == []
    assert blobs_in(folder) == set()


async def test_expired_files_are_gone_and_swept(folder: Path, any_database: Database) -> None:
    clock = MovedClock()
    files = FileService(database=any_database, blobs=LocalBlobs(folder), clock=clock)
    soon = clock.now() + timedelta(seconds=60)
    file = await files.add(WHO, b"brief", "a.txt", expires_at=soon)
    assert await files.read(WHO, file.id) == b"brief"
    clock.ahead = 61
    with pytest.raises(FileNotFound):
        await files.get(WHO, file.id)
    assert await files.page(WHO) == []
    assert await files.sweep() == 1
    assert blobs_in(folder) == set()
    assert await any_database.read(lambda session: list(session.scalars(select(FileRow)))) == []


class Dying(LocalBlobs):
    """A blob store whose process dies before or after the content is there."""

    after = False

    async def put(self, content: bytes | AsyncIterator[bytes], *, limit: int | None = None) -> Blob:
        if self.after:
            await super().put(content, limit=limit)
        raise KeyboardInterrupt


@pytest.mark.parametrize("after", [False, True])
async def test_an_interrupted_upload_is_swept(
    any_database: Database, folder: Path, files: FileService, after: bool
) -> None:
    dying = Dying(folder)
    dying.after = after
    with pytest.raises(KeyboardInterrupt):
        await FileService(database=any_database, blobs=dying).add(WHO, b"half", "a.txt")
    assert await files.page(WHO) == []
    assert len(blobs_in(folder)) == (1 if after else 0)
    assert await files.sweep() == 0  # it may still be on its way
    past = datetime.now(UTC) - timedelta(hours=1)
    await any_database.write(lambda session: session.execute(update(ContentRow).values(touched_at=past)))
    assert await files.sweep() == 1
    assert blobs_in(folder) == set()
    # And the same content can come again.
    file = await files.add(WHO, b"half", "a.txt")
    assert await files.read(WHO, file.id) == b"half"


async def test_an_interrupted_upload_is_finished_by_the_next_one(
    any_database: Database, folder: Path, files: FileService
) -> None:
    with pytest.raises(KeyboardInterrupt):
        await FileService(database=any_database, blobs=Dying(folder)).add(WHO, b"half", "a.txt")
    file = await files.add(WHO, b"half", "a.txt")
    assert await files.read(WHO, file.id) == b"half"


async def test_an_interrupted_removal_is_taken_over(any_database: Database, files: FileService, folder: Path) -> None:
    file = await files.add(WHO, b"half", "a.txt")

    def die(session: object) -> None:
        session.execute(FileRow.__table__.delete())  # type: ignore[attr-defined]
        past = datetime.now(UTC) - timedelta(hours=1)
        session.execute(update(ContentRow).values(state="removing", touched_at=past))  # type: ignore[attr-defined]

    await any_database.write(die)
    assert blobs_in(folder) == {file.sha256}
    assert await files.sweep() == 1
    assert blobs_in(folder) == set()


@pytest.mark.slow
async def test_adding_and_removing_the_same_content_at_once_loses_nothing(files: FileService, folder: Path) -> None:
    async def work() -> None:
        for _ in range(15):
            file = await files.add(WHO, b"contended", "a.txt")
            assert await files.read(WHO, file.id) == b"contended"
            await files.delete(WHO, file.id)
            await files.sweep()

    await asyncio.gather(*(work() for _ in range(4)))
    assert await files.page(WHO) == []
    await files.sweep()
    assert blobs_in(folder) == set()


async def test_pages_meet(files: FileService) -> None:
    made = [
        (await files.add(WHO, f"{i}".encode(), f"{i}.txt", purpose="batch" if i % 2 else "vision")).id for i in range(7)
    ]
    first = await files.page(WHO, limit=4)
    rest = await files.page(WHO, limit=4, after=first[-1].id)
    assert [file.id for file in first + rest] == made[::-1]
    assert [file.id for file in await files.page(WHO, newest_first=False)] == made
    assert len(await files.page(WHO, purpose="batch")) == 3


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a.txt", "a.txt"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\system.ini", "system.ini"),
        ("/proc/self/environ", "environ"),
        ("a\x00b\nc.txt", "abc.txt"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("", "file"),
        ("///", "file"),
        ("x" * 5000, "x" * 255),
        ("%2e%2e%2fpasswd", "%2e%2e%2fpasswd"),
        ("con", "con"),
        ("lone \ud800", "lone ?"),
    ],
)
async def test_names_are_text_and_never_paths(files: FileService, folder: Path, name: str, shown: str) -> None:
    assert display_name(name) == shown
    file = await files.add(WHO, b"x", name)
    assert file.filename == shown
    assert blobs_in(folder) == {file.sha256}
