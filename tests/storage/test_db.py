"""One transaction a function, on both databases."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from nexus.core.ids import new_id
from nexus.storage.db import Base, Database, DatabaseUnavailable


class Note(Base):
    __tablename__ = "test_note"

    id: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime]


def _add(session: Session, at: datetime, *, fail: bool = False) -> str:
    note = Note(id=new_id("note"), at=at)
    session.add(note)
    session.flush()
    if fail:
        raise RuntimeError("after the insert")
    return note.id


def _count(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Note)) or 0


def test_commits_on_return_and_rolls_back_on_error(any_database: Database) -> None:
    any_database.write_now(_add, datetime.now(UTC))
    with pytest.raises(RuntimeError):
        any_database.write_now(_add, datetime.now(UTC), fail=True)
    assert any_database.read_now(_count) == 1


def test_moments_come_back_aware_and_in_utc(any_database: Database) -> None:
    berlin = datetime(2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=2)))
    note = any_database.write_now(_add, berlin)
    back = any_database.read_now(lambda session: session.get_one(Note, note).at)
    assert (back, back.utcoffset()) == (berlin, timedelta(0))


def test_a_naive_moment_is_refused(database: Database) -> None:
    with pytest.raises(Exception, match="must be aware"):
        database.write_now(_add, datetime(2026, 1, 1))


async def test_many_writers_at_once_lose_nothing(any_database: Database) -> None:
    await asyncio.gather(*(any_database.write(_add, datetime.now(UTC)) for _ in range(200)))
    assert await any_database.read(_count) == 200


async def test_two_processes_worth_of_writers_wait_for_each_other(database: Database) -> None:
    other = Database(database.url)
    await asyncio.gather(*(who.write(_add, datetime.now(UTC)) for _ in range(50) for who in (database, other)))
    assert await database.read(_count) == 100
    other.close()


def test_an_unreachable_server_is_unavailable_not_a_crash() -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(DatabaseUnavailable) as caught:
        database.read_now(_count)
    assert "127.0.0.1" not in caught.value.message
    database.close()
