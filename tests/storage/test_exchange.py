"""Many statements in one journey: the same answers, order and atomicity as one by one, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest
from sqlalchemy import JSON, Table, bindparam, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import Mapped, Session, mapped_column

from nexus.storage import db
from nexus.storage.db import Base, Database
from nexus.storage.exchange import exchange_of


class Thing(Base):
    __tablename__ = "test_thing"

    id: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime | None]
    data: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    weight: Mapped[float | None]
    count: Mapped[int] = mapped_column(default=7)
    good: Mapped[bool] = mapped_column(default=True)


THING = cast("Table", Thing.__table__)
PUT = insert(THING)
GET = select(*THING.c).where(THING.c.id == bindparam("b_id"))
ADD = update(THING).where(THING.c.id == bindparam("b_id")).values(count=THING.c.count + bindparam("more"))
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


def thing(id_: str, **more: Any) -> dict[str, Any]:
    return {"id": id_, "at": NOON, "data": {"a": [1, None, "ü"]}, "weight": 1.5, **more}


def count(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Thing)) or 0


def test_rows_come_back_as_the_session_would_give_them(any_database: Database) -> None:
    def query(session: Session) -> tuple[Any, Any, Any]:
        exchange = exchange_of(session)
        exchange.put(PUT, [thing("a"), thing("b", at=None, data=None, weight=None)])
        first, second = exchange.ask(GET, {"b_id": "a"}), exchange.ask(GET, {"b_id": "b"})
        none = exchange.ask(GET, {"b_id": "c"})
        exchange.send()
        assert (first.count, none.count, none.one_or_none()) == (1, 0, None)
        rows = session.execute(select(*THING.c).order_by(THING.c.id)).all()
        return first.one(), second.one(), rows

    first, second, rows = any_database.write_now(query)
    assert [tuple(first), tuple(second)] == [tuple(row) for row in rows]
    assert (first.at, first.data, first.weight, first.count, first.good) == (NOON, {"a": [1, None, "ü"]}, 1.5, 7, True)
    assert first._mapping["id"] == "a"


def test_statements_see_what_went_before_them_in_the_same_journey(any_database: Database) -> None:
    def query(session: Session) -> list[int]:
        exchange = exchange_of(session)
        exchange.put(PUT, thing("a"))
        before = exchange.ask(GET, {"b_id": "a"})
        changed = exchange.ask(ADD, {"b_id": "a", "more": 3})
        missed = exchange.ask(ADD, {"b_id": "z", "more": 3})
        after = exchange.ask(GET, {"b_id": "a"})
        exchange.send()
        return [before.one().count, changed.count, missed.count, after.one().count]

    assert any_database.write_now(query) == [7, 1, 0, 10]


def test_what_is_left_goes_along_with_the_commit_or_not_at_all(any_database: Database) -> None:
    def query(session: Session, *, fail: bool) -> None:
        session.add(Thing(id="orm"))
        exchange_of(session).put(PUT, thing("exchange"))
        if fail:
            raise RuntimeError("after all that")

    with pytest.raises(RuntimeError):
        any_database.write_now(query, fail=True)
    assert any_database.read_now(count) == 0
    any_database.write_now(query, fail=False)
    assert any_database.read_now(count) == 2


@pytest.mark.parametrize("sent", [False, True], ids=["at the commit", "in the middle"])
def test_a_refused_statement_undoes_everything(any_database: Database, *, sent: bool) -> None:
    def query(session: Session) -> None:
        session.add(Thing(id="orm"))
        exchange = exchange_of(session)
        exchange.put(PUT, thing("a"))
        exchange.put(PUT, thing("a"))
        exchange.put(PUT, thing("b"))
        if sent:
            exchange.send()

    with pytest.raises(IntegrityError):
        any_database.write_now(query)
    assert any_database.read_now(count) == 0
    any_database.write_now(lambda session: exchange_of(session).put(PUT, thing("a")))
    assert any_database.read_now(count) == 1


@pytest.mark.parametrize("wrong", [{"at": datetime(2026, 1, 1)}, {"data": {"x": object()}}, {"data": {"x": {1, 2}}}])
def test_a_value_that_cannot_be_stored_is_a_statement_error(any_database: Database, wrong: dict[str, Any]) -> None:
    with pytest.raises((StatementError, TypeError)):
        any_database.write_now(lambda session: exchange_of(session).put(PUT, thing("a", **wrong)))
    assert any_database.read_now(count) == 0


def test_a_forgotten_value_is_not_taken_for_null(database: Database) -> None:
    with pytest.raises(StatementError, match="more"):
        database.write_now(lambda session: exchange_of(session).put(ADD, {"b_id": "a"}))


@pytest.mark.slow
def test_a_connection_that_broke_while_idle_is_replaced(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database, other = Database(postgres_url), Database(postgres_url)
    own = text("SELECT pg_backend_pid()")

    def broken() -> int:
        pid = database.read_now(lambda session: int(session.execute(own).scalar_one()))
        killed = text("SELECT pg_terminate_backend(:pid, 5000)")
        other.read_now(lambda session: session.execute(killed, {"pid": pid}).scalar_one())
        return pid

    monkeypatch.setattr(db, "_FRESH", 0.0)
    assert broken() != database.read_now(lambda session: int(session.execute(own).scalar_one()))
    broken()
    monkeypatch.setattr(db, "_FRESH", 60.0)

    def query(session: Session) -> None:
        exchange_of(session).ask(select(func.count()).select_from(THING), {})
        exchange_of(session).send()

    # One that broke a moment ago is noticed at its next use, and is good again at the one after that.
    with pytest.raises(db.DatabaseUnavailable):
        database.read_now(query)
    assert database.read_now(lambda session: session.execute(text("SELECT 1")).scalar_one()) == 1
    database.close()
    other.close()
