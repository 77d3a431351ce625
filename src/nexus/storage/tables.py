"""The tables that storage itself owns: the cache, and what has happened."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import JSON, BigInteger, Index, Integer, LargeBinary, String, Table
from sqlalchemy.orm import Mapped, mapped_column

from nexus.storage.db import Base


class CacheEntry(Base):
    """A cached value and when its time has passed."""

    __tablename__ = "cache_entry"

    key: Mapped[str] = mapped_column(String(300), primary_key=True)
    value: Mapped[bytes] = mapped_column(LargeBinary)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class EventRow(Base):
    """Something that happened, for whoever wants to act on it (`nexus.storage.events`).

    `transaction` is the number of the writing transaction on PostgreSQL, 0 on SQLite: readers go by
    `(transaction, id)`, because ids alone are not committed in their order. `once` keeps a second
    event of the same name out.
    """

    __tablename__ = "event"
    __table_args__ = (Index("ix_event_order", "transaction", "id"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    transaction: Mapped[int] = mapped_column(BigInteger)
    project_id: Mapped[str | None] = mapped_column(String(40))
    type: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(255))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    once: Mapped[str | None] = mapped_column(String(255), unique=True)
    at: Mapped[datetime] = mapped_column(index=True)


class EventCursorRow(Base):
    """How far one reader of the events has come."""

    __tablename__ = "event_cursor"

    reader: Mapped[str] = mapped_column(String(100), primary_key=True)
    transaction: Mapped[int] = mapped_column(BigInteger)
    event_id: Mapped[int] = mapped_column(BigInteger)


EVENT: Final = cast("Table", EventRow.__table__)
