"""What a fresh installation needs before it serves: the database, the starter models, the first admin."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.orm import Session

from nexus.access.roles import EVERYTHING
from nexus.access.service import AccessService
from nexus.access.types import Principal
from nexus.catalog.errors import ModelNotPulled
from nexus.catalog.service import CatalogService
from nexus.catalog.types import CatalogueRow
from nexus.core.errors import NexusError
from nexus.settings import Settings
from nexus.storage.db import Database

ADMIN_EMAIL = "admin@localhost"
_MIGRATIONS = Path(__file__).parent / "storage" / "migrations"
_LOCK = 0x6E6578757300


class AdminPasswordUnreadable(NexusError):
    """The file with the first admin's password cannot be read."""

    code = "admin_password_unreadable"


class DatabaseNotMigrated(NexusError):
    """The database has the tables of another version; bring it up to date by: nexus migrate."""

    code = "database_not_migrated"


@dataclass(frozen=True, slots=True)
class FirstAdmin:
    """The first admin. `password` is None when a file gave it; the key is shown this once."""

    email: str
    password: str | None
    key: str


def migrate(database: Database) -> None:
    """Bring the database to this version's tables. Two processes at once wait for each other."""
    if database.read_now(_revision) == head():
        return
    # Slow to import, and only a database of another version needs it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    if database.is_sqlite:
        # BEGIN IMMEDIATE is the lock: the second process sees the finished migration.
        with database.engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        return
    with database.engine.begin() as connection:
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def head() -> str:
    """Return the newest revision, read from the names of the migrations: Alembic is slow to import."""
    return max(path.stem for path in (_MIGRATIONS / "versions").glob("[0-9]*.py")).partition("_")[0]


def check_migrated(database: Database) -> None:
    """Raise `DatabaseNotMigrated` unless the database is at this version's revision."""
    found = database.read_now(_revision)
    if found != head():
        raise DatabaseNotMigrated(found=found, wanted=head())


def _revision(session: Session) -> str | None:
    try:
        found = session.scalar(text("select version_num from alembic_version"))
    except (OperationalError, ProgrammingError):
        return None
    return None if found is None else str(found)


async def pull_starters(catalog: CatalogService, say: Callable[[str], None]) -> list[str]:
    """Fetch a starter model for each task; return the tasks for which none could be had.

    The catalogue lists them best first, and the next one is tried where the best cannot be reached.
    """
    tasks: dict[str, bool] = {}
    for row in catalog.starter_models():
        if not tasks.get(row.task):
            tasks[row.task] = await _is_here(catalog, row) or await _fetched(catalog, row, say)
    return [task for task, served in tasks.items() if not served]


async def _is_here(catalog: CatalogService, row: CatalogueRow) -> bool:
    try:
        await catalog.find(row.name, version=row.version)
    except ModelNotPulled:
        return False
    return True


async def _fetched(catalog: CatalogService, row: CatalogueRow, say: Callable[[str], None]) -> bool:
    say(f"fetching {row.name} ({row.task})")
    try:
        await catalog.pull(row.name, version=row.version)
    except NexusError as error:
        say(f"{row.name} could not be had here: {error.message}")
        return False
    return True


async def make_first_admin(access: AccessService, settings: Settings) -> FirstAdmin | None:
    """Make the first admin and a key for the commands of this machine; None when there is a user already."""
    if not await access.accounts.needs_setup():
        return None
    given = _given_password(settings)
    password = given or secrets.token_urlsafe(18)
    user = await access.accounts.create_admin(ADMIN_EMAIL, password, "Administrator")
    key = await add_cli_key(access, settings, user.id)
    return FirstAdmin(ADMIN_EMAIL, None if given else password, key)


async def add_cli_key(access: AccessService, settings: Settings, user_id: str) -> str:
    """Make the key that commands on this machine use, keep it in the data dir, and return it."""
    project = (await access.projects.of_user(user_id))[0]
    principal = Principal("system", user_id, project.id, EVERYTHING, user_id=user_id)
    made = await access.keys.create(principal, name="command line of this machine", scopes=sorted(EVERYTHING))
    token = made.token.reveal() if made.token else ""
    keep_private(settings.data_dir / "cli.key", token + "\n")
    return token


def _given_password(settings: Settings) -> str | None:
    if settings.admin_password_file is None:
        return None
    try:
        return settings.admin_password_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise AdminPasswordUnreadable from None


def keep_private(path: Path, content: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    temporary.replace(path)
