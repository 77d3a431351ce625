"""SQL databases of users: read by one SELECT, written by keys. PostgreSQL over the network, SQLite as a file.

The address is a URL of SQLAlchemy and belongs into a secret. A SQLite database is a file of the project,
`sqlite:///file_...`: it is read where it lies, and written as a new file. A server is reached like any address
that users name (`http/fetch.py`): private networks only where `NEXUS_FETCH_ALLOW` says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, create_engine, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NoSuchTableError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
    StatementError,
)
from sqlalchemy.pool import NullPool

from nexus.automation.errors import DatabaseAway, DatabaseNotAllowed, DatabaseRefused, QueryInvalid
from nexus.core.errors import NexusError
from nexus.core.ids import is_id
from nexus.http.errors import FetchFailed, UrlNotAllowed
from nexus.http.fetch import checked_addresses

_SERVERS: Final = frozenset({"postgresql", "postgres", "postgresql+psycopg"})
_OPTIONS: Final = frozenset({"sslmode", "application_name", "connect_timeout", "channel_binding"})
_PORT: Final = 5432
_CONNECT_SECONDS: Final = "15"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A PostgreSQL server whose addresses have been checked. The URL holds the password: never show it."""

    url: str
    addresses: tuple[str, ...]

    def __repr__(self) -> str:
        return "ServerAddress(***)"


@dataclass(frozen=True, slots=True)
class SqliteFile:
    """A SQLite database by the id of its file; None for one that is to be made."""

    file_id: str | None


Target = ServerAddress | Path


async def address_of(text: str, *, field: str) -> ServerAddress | SqliteFile:
    """Read the URL of a database and check where it leads. Raises `DatabaseNotAllowed`, or `DatabaseAway`."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise DatabaseNotAllowed("This is no URL of a database, such as postgresql://...", field=field) from None
    if url.drivername == "sqlite":
        return _sqlite(url, field)
    if url.drivername not in _SERVERS:
        raise DatabaseNotAllowed("Databases are postgresql://... or sqlite:///file_...", field=field)
    if not url.host or url.host.startswith(("/", "@")):
        raise DatabaseNotAllowed("The URL names no host.", field=field)
    unknown = sorted(set(url.query) - _OPTIONS)
    if unknown:
        raise DatabaseNotAllowed(f"The URL may not say {unknown[0][:40]}; it may: {', '.join(sorted(_OPTIONS))}.",
                                 field=field)  # fmt: skip
    try:
        addresses = await checked_addresses(url.host, url.port or _PORT)
    except UrlNotAllowed:
        raise DatabaseNotAllowed(field=field) from None
    except FetchFailed:
        raise DatabaseAway("The host of the database is not known.", field=field) from None
    plain = url.set(drivername="postgresql+psycopg")
    return ServerAddress(plain.render_as_string(hide_password=False), tuple(addresses))


def _sqlite(url: URL, field: str) -> SqliteFile:
    name = url.database or ""
    if url.query or url.host or (name and not is_id(name, "file")):
        raise DatabaseNotAllowed("A SQLite database is a file of the project: sqlite:///file_...", field=field)
    return SqliteFile(name or None)


@contextmanager
def connected(target: Target, *, field: str, writing: bool, seconds: float = 600) -> Iterator[Connection]:
    """Yield a connection with an open transaction, which is committed at the end. Runs in a compute child.

    What fails is raised as one of this slice's errors, without the database's own words where they could
    hold data: `QueryInvalid`, `DatabaseRefused`, `DatabaseAway`.
    """
    engine = (
        _sqlite_engine(target, writing=writing)
        if isinstance(target, Path)
        else _server_engine(target, writing=writing, seconds=seconds)
    )
    try:
        with _told(field), engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _server_engine(target: ServerAddress, *, writing: bool, seconds: float) -> Any:
    url = make_url(target.url)
    count = len(target.addresses)
    options = f"-c statement_timeout={int(seconds * 1000)} -c timezone=UTC"
    if not writing:
        options += " -c default_transaction_read_only=on"
    return create_engine(
        url,
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={
            # The name for TLS, and the addresses that were checked: it is not resolved a second time.
            "host": ",".join([str(url.host)] * count),
            "hostaddr": ",".join(target.addresses),
            "port": ",".join([str(url.port or _PORT)] * count),
            "connect_timeout": url.query.get("connect_timeout", _CONNECT_SECONDS),
            "options": options,
        },
    )


def _sqlite_engine(path: Path, *, writing: bool) -> Any:
    import sqlite3

    # Blobs are never changed, so nobody needs to be locked out.
    where = f"file:{path}?mode=rwc" if writing else f"file:{path}?mode=ro&immutable=1"
    engine = create_engine(f"sqlite:///{where}&uri=true", poolclass=NullPool, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _leash(connection: sqlite3.Connection, _record: object) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.execute("PRAGMA trusted_schema = OFF")

    return engine


@contextmanager
def _told(field: str) -> Iterator[None]:
    try:
        yield
    except NexusError:
        raise
    except OperationalError as error:
        raise _operational(error, field) from None
    except IntegrityError:
        raise DatabaseRefused("The rows break a constraint of the table.", field=field) from None
    except DataError:
        raise DatabaseRefused("A value does not fit its column.", field=field) from None
    except (ProgrammingError, NoSuchTableError) as error:
        raise QueryInvalid(_first_line(error), field=field) from None
    except DBAPIError as error:
        if error.connection_invalidated:
            raise DatabaseAway("The connection to the database broke.", field=field) from None
        raise DatabaseRefused(_first_line(error), field=field) from None
    except StatementError as error:
        raise QueryInvalid(f"The query and its parameters do not fit: {_first_line(error)}", field=field) from None
    except SQLAlchemyError:
        raise DatabaseRefused(field=field) from None


def _operational(error: OperationalError, field: str) -> NexusError:
    state = getattr(error.orig, "sqlstate", None)
    if state is None and type(error.orig).__module__.startswith("sqlite3"):
        # SQLite says this of wrong SQL too.
        return QueryInvalid(_first_line(error), field=field)
    if state == "57014":
        return DatabaseRefused("The query took longer than allowed.", field=field)
    if state is not None and state.startswith("28"):
        return DatabaseRefused("The database does not accept this user or password.", field=field)
    return DatabaseAway("The database does not answer.", field=field)


def _first_line(error: Exception) -> str:
    """Return what the database says of a query: names of tables and columns, never of hosts or rows."""
    if isinstance(error, NoSuchTableError):
        return "There is no such table."
    original = getattr(error, "orig", None) or error
    return str(original).strip().partition("\n")[0][:300]
