"""Events: there if and only if the change is, and each reader sees each of them once, in order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy.orm import Session

from nexus.storage.db import Database
from nexus.storage.events import Event, Events, consume, publish

T0 = datetime(2026, 11, 26, tzinfo=UTC)


def tell(db: Database, word: str, once: str | None = None) -> bool:
    return db.write_now(publish, "thing.done", "prj_a", {"word": word}, at=T0, subject=word, once=once)


class Reader:
    def __init__(self, db: Database, name: str = "reader") -> None:
        self.db, self.name = db, name
        self.seen: list[str] = []
        self.read()

    def read(self, handle: Callable[[Session, Event], None] | None = None, limit: int = 100) -> int:
        batch: list[str] = []

        def take(session: Session, event: Event) -> None:
            batch.append(event.subject)
            if handle is not None:
                handle(session, event)

        found = self.db.write_now(consume, self.name, take, limit)
        self.seen += batch
        return found


def test_a_reader_sees_what_happens_after_its_first_call_in_order_and_once(any_database: Database) -> None:
    tell(any_database, "before")
    reader = Reader(any_database)
    for word in "abc":
        tell(any_database, word)
    assert reader.read(limit=2) == 2
    assert reader.read() == 1
    assert reader.read() == 0
    assert reader.seen == ["a", "b", "c"]


def test_an_event_of_a_change_that_is_undone_never_was(any_database: Database) -> None:
    reader = Reader(any_database)

    def change(session: Session) -> None:
        publish(session, "thing.done", None, {}, at=T0, subject="undone")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        any_database.write_now(change)
    assert reader.read() == 0


def test_once_keeps_a_second_one_out(any_database: Database) -> None:
    reader = Reader(any_database)
    assert tell(any_database, "a", once="file:1")
    assert not tell(any_database, "a", once="file:1")
    assert reader.read() == 1


def test_what_a_reader_cannot_handle_comes_again(any_database: Database) -> None:
    reader = Reader(any_database)
    tell(any_database, "a")

    def fail(session: Session, event: Event) -> None:
        publish(session, "thing.seen", None, {}, at=T0, subject="side")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        reader.read(fail)
    assert reader.read() == 1
    assert reader.seen == ["a"], "and what the failed handler wrote is gone"


def test_nothing_is_passed_over_when_transactions_overlap(any_database: Database) -> None:
    """The classic trap: a low id is committed after a higher one was read."""
    if any_database.is_sqlite:
        pytest.skip("SQLite has one writer at a time")
    reader = Reader(any_database)
    begun, go_on = threading.Event(), threading.Event()

    def slow(session: Session) -> None:
        publish(session, "thing.done", None, {}, at=T0, subject="slow")
        begun.set()
        go_on.wait(60)

    thread = threading.Thread(target=any_database.write_now, args=(slow,))
    thread.start()
    begun.wait(60)
    tell(any_database, "fast")
    reader.read()
    go_on.set()
    thread.join()
    reader.read()
    assert sorted(reader.seen) == ["fast", "slow"]


def test_many_writers_and_two_processes_of_one_reader(any_database: Database) -> None:
    reader, twin = Reader(any_database), Reader(any_database)
    writers = [
        threading.Thread(target=lambda n=n: [tell(any_database, f"{n}.{m}") for m in range(20)]) for n in range(4)
    ]
    for thread in writers:
        thread.start()
    while any(thread.is_alive() for thread in writers):
        reader.read(limit=7)
        twin.read(limit=7)
    while reader.read() or twin.read():
        pass
    assert sorted(reader.seen + twin.seen) == sorted(f"{n}.{m}" for n in range(4) for m in range(20))


async def test_the_service_looks_before_it_writes(any_database: Database) -> None:
    events = Events(any_database)
    seen: list[str] = []
    take = lambda _session, event: seen.append(event.subject)  # noqa: E731
    await events.consume("me", take)
    assert await events.consume("me", take) == 0
    await events.publish("thing.done", "prj_a", {"n": 1}, subject="x")
    assert await events.consume("me", take) == 1
    assert seen == ["x"]
    assert [event.data for event in await events.newest("prj_a")] == [{"n": 1}]
    await events.publish("thing.done", "prj_a", {"n": 2}, subject="y", once="y")
    await events.forget(-1)
    assert [event.subject for event in await events.newest("prj_a")] == ["y"]
    assert not await events.publish("thing.done", "prj_a", {"n": 2}, subject="y", once="y")
