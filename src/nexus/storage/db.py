"""One relational database: SQLite in WAL mode by default, PostgreSQL by URL, the same code for both.

Queries are plain functions that take a `Session` as their first argument and live in the `storage.py`
of their slice. They are run inside one transaction:

    rows = await db.read(queries.runs_of, project_id)          # from async code
    run = await db.write(queries.add_run, spec)
    run = db.write_now(queries.add_run, spec)                  # from a worker thread

Everything a function does is committed when it returns, and rolled back when it raises. The
drivers are synchronous and run in a small pool of threads: sqlite3 does so in any case, and one
way of writing a query serves the API and the engine.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import copy_context
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import orjson
from sqlalchemy import DateTime, MetaData, create_engine, event
from sqlalchemy.engine import URL, Dialect, Engine, make_url
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.types import TypeDecorator

from nexus.core.errors import Unavailable
from nexus.storage.exchange import send_rest

P = ParamSpec("P")
R = TypeVar("R")

_LAST_USED: Final = "nexus_last_used"
_FRESH: Final = 1.0
_NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Moment(TypeDecorator[datetime]):
    """A point in time: aware and in UTC on both sides of both databases."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times; SQLite keeps no zone, so UTC is stored there."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored time must be aware")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware time in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """The root of every table. Tables stand in the `tables.py` of their slice."""

    metadata = MetaData(naming_convention=_NAMING)
    type_annotation_map = {datetime: Moment}  # noqa: RUF012  SQLAlchemy reads it as a class attribute


class DatabaseUnavailable(Unavailable):
    """The database does not answer at the moment; try again shortly."""

    code = "database_unavailable"


class Database:
    """An engine, its connections, and the two ways to run a function in a transaction."""

    def __init__(self, url: str | URL, *, threads: int = 8) -> None:
        """Open nothing yet; connections are made when first needed."""
        self.url = make_url(url)
        if self.url.drivername in ("postgresql", "postgres"):
            self.url = self.url.set(drivername="postgresql+psycopg")
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(self.url, threads) if self.is_sqlite else _postgres_engine(self.url, threads)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="db")
        # SQLite admits one writer; waiting here is fair and immediate, its own busy loop is neither.
        self._writing = threading.Lock() if self.is_sqlite else nullcontext()

    async def read(self, query: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `query(session, ...)` in a read transaction, in a thread."""
        return await self._in_thread(lambda: self.read_now(query, *args, **kwargs))

    async def write(self, query: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `query(session, ...)` in a write transaction, in a thread.

        A caller that is cancelled stops waiting; the transaction itself always ends properly.
        """
        return await self._in_thread(lambda: self.write_now(query, *args, **kwargs))

    async def _in_thread(self, call: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, call)

    def read_now(self, query: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `query(session, ...)` in a read transaction, in this thread."""
        return self._transaction("read", query, *args, **kwargs)

    def write_now(self, query: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `query(session, ...)` in a write transaction, in this thread."""
        with self._writing:
            return self._transaction("write", query, *args, **kwargs)

    def _transaction(
        self, mode: str, query: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        try:
            with (
                self.engine.connect().execution_options(nexus_mode=mode) as connection,
                Session(connection, expire_on_commit=False) as session,
                session.begin(),
            ):
                result = query(session, *args, **kwargs)
                send_rest(session)
                return result
        except (OperationalError, PoolExhausted) as error:
            raise DatabaseUnavailable(retry_after=2) from error
        except DBAPIError as error:
            if error.connection_invalidated:
                raise DatabaseUnavailable(retry_after=2) from error
            raise

    def close(self) -> None:
        """Finish running functions and close every connection."""
        self._threads.shutdown(wait=True)
        self.engine.dispose()


def _json_dump(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY).decode()


def _sqlite_engine(url: URL, threads: int) -> Engine:
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url,
        json_serializer=_json_dump,
        json_deserializer=orjson.loads,
        pool_size=threads,
        max_overflow=threads,
        # The driver must not begin transactions by itself: `_begin` below does.
        connect_args={"timeout": 30, "check_same_thread": False, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: object) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=30000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # A deferred transaction that turns into a writer fails with SQLITE_BUSY at once, without waiting.
        mode = connection.get_execution_options().get("nexus_mode", "write")
        connection.exec_driver_sql("BEGIN" if mode == "read" else "BEGIN IMMEDIATE")

    return engine


def _postgres_engine(url: URL, threads: int) -> Engine:
    engine = create_engine(
        url,
        json_serializer=_json_dump,
        json_deserializer=orjson.loads,
        pool_size=threads,
        max_overflow=threads,
        pool_timeout=5,
        connect_args={"connect_timeout": 2},
    )

    @event.listens_for(engine, "checkin")
    def _note(_connection: object, record: Any) -> None:
        record.info[_LAST_USED] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _probe(connection: Any, record: Any, _fairy: object) -> None:
        # What `pool_pre_ping` does each time, and with it a journey for each transaction.
        now = time.monotonic()
        if now - record.info.get(_LAST_USED, now) < _FRESH:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error

    return engine
