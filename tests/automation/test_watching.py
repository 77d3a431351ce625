"""Watched folders: what has come to rest is taken in once, links lead nowhere, nothing outside is read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from tests.automation.conftest import WHO
from tests.automation.test_triggers import House

from nexus.automation.errors import TriggerInvalid
from nexus.automation.settings import AutomationSettings
from nexus.automation.trigger_service import TriggerService
from nexus.automation.watching import FolderWatch
from nexus.core.secrets import Keyring
from nexus.files.tables import FileRow
from nexus.storage.db import Database

pytestmark = pytest.mark.slow


class Inbox(House):
    """A house with a watched folder `in/prj_a/day`."""

    def __init__(self, database: Database, folder: Path) -> None:
        super().__init__(database, folder)
        self.path = folder / "in" / "prj_a" / "day"
        self.path.mkdir(parents=True)
        self.settings = AutomationSettings(watch={"inbox": folder / "in" / "{project}"}, watch_settle=2)
        self.clock.at = datetime.now(UTC)
        self.triggers = TriggerService(
            database=database,
            automation=self.automation,
            firing=self.firing,
            keyring=Keyring(b"k" * 48),
            clock=self.clock,
            settings=self.settings,
        )
        self.watch = self.watcher()

    def watcher(self) -> FolderWatch:
        return FolderWatch(database=self.database, files=self.files, settings=self.settings, clock=self.clock)

    async def watched(self, **config: Any) -> None:
        given = {"folder": "inbox/day", "pattern": "*.csv", **config}
        await self.trigger("file", config=given, inputs={"n": ["{{ event.data.name }}", "{{ event.data.file_id }}"]})
        await self.firing.tick()

    async def pass_time(self, *watchers: FolderWatch) -> None:
        for _ in range(3):
            self.clock.at += timedelta(seconds=3)
            await asyncio.gather(*(watcher.tick() for watcher in watchers or (self.watch,)))
        await self.firing.tick()

    def put(self, name: str, content: bytes) -> None:
        (self.path / name).write_bytes(content)
        moment = self.clock.at.timestamp()
        os.utime(self.path / name, (moment, moment))

    def names(self) -> list[str]:
        return [name for name, _ in self.inputs()]

    def kept(self) -> int:
        return self.count(FileRow)


@pytest.fixture
def inbox(any_database: Database, tmp_path: Path) -> Inbox:
    return Inbox(any_database, tmp_path)


async def test_a_file_that_arrives_starts_a_run_with_a_copy_of_it(inbox: Inbox) -> None:
    await inbox.watched()
    inbox.put("a.csv", b"x,y\n1,2\n")
    inbox.put("a.txt", b"not asked for")
    inbox.put(".hidden.csv", b"x")
    await inbox.watch.tick()
    assert inbox.kept() == 0, "not before it has come to rest"
    await inbox.pass_time()
    ((name, file_id),) = inbox.inputs()
    assert name == "a.csv"
    assert await inbox.files.read(WHO, file_id) == b"x,y\n1,2\n"


async def test_a_file_that_still_grows_is_left_alone(inbox: Inbox) -> None:
    await inbox.watched()
    for length in range(1, 5):
        inbox.put("a.csv", b"x" * length)
        await inbox.watch.tick()
        inbox.clock.at += timedelta(seconds=3)
    assert inbox.kept() == 0
    await inbox.pass_time()
    assert inbox.names() == ["a.csv"]


async def test_each_path_and_content_counts_once(inbox: Inbox) -> None:
    await inbox.watched()
    inbox.put("a.csv", b"one")
    await inbox.pass_time(*(inbox.watcher() for _ in range(5)))
    await inbox.pass_time(inbox.watcher())  # one that remembers nothing
    assert (inbox.names(), inbox.kept()) == (["a.csv"], 1)
    inbox.put("a.csv", b"one")  # written again, the same
    await inbox.pass_time()
    assert (inbox.names(), inbox.kept()) == (["a.csv"], 1)
    inbox.put("a.csv", b"two")
    inbox.put("b.csv", b"one")
    await inbox.pass_time()
    assert sorted(inbox.names()) == ["a.csv", "a.csv", "b.csv"]


async def test_what_was_taken_in_moves_to_done(inbox: Inbox) -> None:
    await inbox.watched(move_to_done=True)
    for content in (b"one", b"two", b"three"):
        inbox.put("a.csv", content)
        await inbox.pass_time()
    assert names_in(inbox.path) == ["done"]
    assert names_in(inbox.path / "done") == ["a-1.csv", "a-2.csv", "a.csv"]
    assert len(inbox.names()) == 3


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _link_to_file(inbox: Inbox, outside: Path) -> None:
    (inbox.path / "a.csv").symlink_to(outside / "secret.csv")


def _link_instead_of_folder(inbox: Inbox, outside: Path) -> None:
    inbox.path.rmdir()
    inbox.path.symlink_to(outside, target_is_directory=True)


def _pipe(inbox: Inbox, outside: Path) -> None:
    os.mkfifo(inbox.path / "a.csv")


def _folder(inbox: Inbox, outside: Path) -> None:
    (inbox.path / "a.csv").mkdir()


def _empty(inbox: Inbox, outside: Path) -> None:
    inbox.put("a.csv", b"")


@pytest.mark.parametrize("trap", [_link_to_file, _link_instead_of_folder, _pipe, _folder, _empty])
async def test_traps(database: Database, tmp_path: Path, trap: Callable[[Inbox, Path], None]) -> None:
    inbox, outside = Inbox(database, tmp_path), tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.csv").write_bytes(b"secret")
    os.utime(outside / "secret.csv", (1, 1))
    await inbox.watched()
    trap(inbox, outside)
    await inbox.pass_time()
    assert (inbox.names(), inbox.kept()) == ([], 0)


async def test_a_done_that_is_a_link_takes_nothing_out(database: Database, tmp_path: Path) -> None:
    inbox, outside = Inbox(database, tmp_path), tmp_path / "outside"
    outside.mkdir()
    await inbox.watched(move_to_done=True)
    (inbox.path / "done").symlink_to(outside, target_is_directory=True)
    inbox.put("a.csv", b"one")
    await inbox.pass_time()
    assert (inbox.names(), names_in(outside)) == (["a.csv"], [])


async def test_only_roots_of_the_settings(inbox: Inbox) -> None:
    for folder in ("outbox", "outbox/day", "inbox/../x", "inbox//x", "inbox/.git"):
        with pytest.raises(TriggerInvalid):
            await inbox.watched(folder=folder)
    await inbox.watched(folder="inbox/not-there")
    await inbox.pass_time()
    assert inbox.database.read_now(lambda s: s.scalar(select(func.count()).select_from(FileRow))) == 0


@pytest.mark.parametrize(
    ("broken", "words"),
    [("gone", "There is no folder inbox/day."), ("file", "is no folder"), ("link", "a link, which is not followed")],
)
async def test_a_folder_that_cannot_be_read_is_shown_at_its_triggers(inbox: Inbox, broken: str, words: str) -> None:
    await inbox.watched()
    await inbox.watch.tick()
    (row,) = await inbox.triggers.page(WHO)
    assert row.last_error is None
    inbox.path.rmdir()
    if broken == "file":
        inbox.path.write_text("x")
    if broken == "link":
        inbox.path.symlink_to("/tmp", target_is_directory=True)
    for _ in range(2):
        await inbox.watch.tick()
        inbox.clock.at += timedelta(seconds=5)
    (row,) = await inbox.triggers.page(WHO)
    error = row.last_error or {}
    assert error["code"] == "folder_unreadable"
    assert words in error["message"]
    assert str(inbox.path.parent) not in str(error)
    assert datetime.fromisoformat(error["at"]) == inbox.clock.at - timedelta(seconds=10), "said once"
    if broken != "gone":
        inbox.path.unlink()
    inbox.path.mkdir()
    await inbox.watch.tick()
    (row,) = await inbox.triggers.page(WHO)
    assert row.last_error is None
