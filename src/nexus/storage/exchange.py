"""Many statements of one transaction in few journeys to the database.

For the paths that everything takes, where the way there and back and the unit of work cost more than the
statement itself:

    exchange = exchange_of(session)
    run = exchange.ask(_LOCK, {"b_id": run_id})         # to be sent
    steps = exchange.ask(_STEPS, {"b_run": run_id})
    exchange.send()                                     # both go, both answers are here
    exchange.put(_COUNT_DOWN, {"b_id": run.one().id})   # goes along with the commit

On PostgreSQL what is sent together is one pipeline, with the BEGIN before it and the COMMIT behind it: the
statements are executed one after the other, each seeing what was committed before it began, as if each had
been sent alone. SQLite executes them at once. What is put or asked waits until `send`, or the
commit: whoever speaks to the session in another way sends first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, Row
from sqlalchemy.engine import Dialect, result_tuple
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.orm import Session

Values = Mapping[str, Any]
_KEY: Final = "nexus_exchange"


class Answer:
    """What the database says to one statement, once it was sent: rows, and how many there were or were changed."""

    def __init__(self) -> None:
        """Wait for the sending."""
        self.rows: Sequence[Row[Any]] = ()
        self.count = 0

    def one(self) -> Row[Any]:
        """Return the only row. Raises `ValueError` when there is none, or another."""
        (row,) = self.rows
        return row

    def one_or_none(self) -> Row[Any] | None:
        """Return the only row, or None. Raises `ValueError` when there are more."""
        return self.one() if self.rows else None


class Exchange:
    """The statements of one transaction that are still to be sent."""

    def __init__(self, connection: Connection) -> None:
        """Speak through `connection`, which has begun its transaction."""
        self._connection = connection
        self._waiting: list[tuple[_Prepared, Any, Answer]] = []

    def put(self, statement: Any, values: Values | Sequence[Values]) -> None:
        """Say something whose answer is not wanted; a list says it once for each of its members."""
        if isinstance(values, Mapping):
            self.ask(statement, values)
        elif values:
            prepared = _prepared(statement, self._connection.dialect, tuple(values[0]))
            self._waiting.append((prepared, [prepared.bound(each) for each in values], Answer()))

    def ask(self, statement: Any, values: Values) -> Answer:
        """Say something; what is answered is there after `send`. Raises `StatementError` for values of no use."""
        keys = tuple(values) if statement.is_insert else None
        prepared = _prepared(statement, self._connection.dialect, keys)
        answer = Answer()
        self._waiting.append((prepared, prepared.bound(values), answer))
        return answer

    def send(self, *, commit: bool = False) -> None:
        """Send what waits, and a COMMIT behind it. Raises `DBAPIError`, like the session."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        dialect, driver = self._connection.dialect, self._connection.connection.driver_connection
        cursors = self._cursors(driver, len(waiting) + 1)
        piped = dialect.name == "postgresql"
        error_class = dialect.loaded_dbapi.Error
        try:
            # psycopg and sqlite3 differ in nothing else that is used here.
            with driver.pipeline() if piped else nullcontext():  # type: ignore[union-attr]
                said = [(_said(cursor, *each[:2]), *each) for cursor, each in zip(cursors, waiting, strict=False)]
                if piped and commit:
                    cursors[len(waiting)].execute("COMMIT")
            for cursor, prepared, _, answer in said:
                answer.count = cursor.rowcount
                if prepared.columns:
                    answer.rows = prepared.rows(cursor)
                    answer.count = len(answer.rows)
        except error_class as error:
            gone = dialect.is_disconnect(error, driver, None)
            if gone:
                self._connection.invalidate(error)
            words = "; ".join(prepared.words for prepared, _, _ in waiting)
            raise DBAPIError.instance(
                words, None, error, error_class, connection_invalidated=gone, dialect=dialect
            ) from error

    def _cursors(self, driver: Any, count: int) -> list[Any]:
        """Return at least `count` cursors, kept beside the driver's connection: psycopg's are dear to make."""
        kept: list[Any] = self._connection.info.setdefault(_KEY, [])
        kept += (driver.cursor() for _ in range(count - len(kept)))
        return kept


def exchange_of(session: Session) -> Exchange:
    """Return the exchange of this transaction; what it still holds at the end goes along with the commit."""
    exchange: Exchange | None = session.info.get(_KEY)
    if exchange is None:
        exchange = session.info[_KEY] = Exchange(session.connection())
    return exchange


def send_rest(session: Session) -> None:
    """Send what still waits in this transaction, and commit."""
    exchange: Exchange | None = session.info.get(_KEY)
    if exchange is not None:
        session.flush()
        exchange.send(commit=True)


def _said(cursor: Any, prepared: _Prepared, values: Any) -> Any:
    if isinstance(values, list):
        cursor.executemany(prepared.words, values)
    else:
        cursor.execute(prepared.words, values)
    return cursor


class _Prepared:
    """A statement in the words of a dialect, with what turns values and rows into those of the driver, and back."""

    def __init__(self, statement: Any, dialect: Dialect, keys: tuple[str, ...] | None) -> None:
        returned = list(statement.exported_columns) if statement.is_select or statement.exported_columns else []
        if statement.is_insert and not returned:
            # Or PostgreSQL's dialect would ask for the new id.
            statement = statement.inline()
        compiled = statement.compile(dialect=dialect, column_keys=keys)
        assert not compiled.post_compile_params, "IN is written anew for each list, and cannot be prepared"
        self.words: str = compiled.string
        self.columns: list[str] = [column.key for column in returned]
        self._order: list[str] | None = compiled.positiontup if compiled.positional else None
        self._fixed: dict[str, Any] = {**compiled.params, **_defaults(compiled)}
        self._required = [name for bind, name in compiled.bind_names.items() if bind.required]
        self._binders = {
            name: binder
            for bind, name in compiled.bind_names.items()
            if (binder := _binder(bind.type, dialect)) is not None
        }
        self._dialect = dialect
        self._types = [column.type for column in returned]
        self._readers: list[Callable[[Any], Any] | None] | None = None
        self._make: Callable[[Sequence[Any]], Row[Any]] = result_tuple(self.columns)

    def bound(self, values: Values) -> Any:
        """Return the values as the driver wants them. Raises `StatementError`."""
        given = self._fixed.copy()
        try:
            for name in self._required:
                given[name] = values[name]
            for name, binder in self._binders.items():
                given[name] = binder(given[name])
        except Exception as error:
            # A type says in its own way that it cannot store a value; the session says it like this.
            raise StatementError(str(error), self.words, None, error) from error
        return given if self._order is None else tuple([given[name] for name in self._order])

    def rows(self, cursor: Any) -> list[Row[Any]]:
        """Return what was found, as rows whose columns are named."""
        if self._readers is None:
            kinds = zip(self._types, cursor.description, strict=True)
            self._readers = [_reader(type_, self._dialect, described[1]) for type_, described in kinds]
        readers = self._readers
        return [
            self._make(tuple([reader(value) if reader else value for reader, value in zip(readers, row, strict=True)]))
            for row in cursor.fetchall()
        ]


# As many as there are hot statements, for the few databases that one process ever speaks to.
_prepared = lru_cache(maxsize=256)(_Prepared)


def _defaults(compiled: Any) -> dict[str, Any]:
    """Return what the columns that an INSERT leaves out begin with."""
    assert all(column.default.is_scalar for column in compiled.insert_prefetch)
    return {column.key: column.default.arg for column in compiled.insert_prefetch}


def _binder(type_: Any, dialect: Dialect) -> Callable[[Any], Any] | None:
    made: Callable[[Any], Any] | None = type_.dialect_impl(dialect).bind_processor(dialect)
    return made


def _reader(type_: Any, dialect: Dialect, kind: object) -> Callable[[Any], Any] | None:
    made: Callable[[Any], Any] | None = type_.dialect_impl(dialect).result_processor(dialect, kind)
    return made
