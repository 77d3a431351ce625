"""The migrations make exactly the tables that the code declares, on both databases, and can be undone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

import nexus.app
import nexus.engine  # noqa: F401
from nexus.setup import DatabaseNotMigrated, check_migrated, head, migrate
from nexus.storage import migrations
from nexus.storage.db import Base, Database

FOLDER = Path(next(iter(migrations.__path__)))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        return Database(f"sqlite:///{tmp_path / 'empty.db'}")
    database = Database(request.getfixturevalue("postgres_url"))
    with database.engine.begin() as connection:
        connection.exec_driver_sql("drop schema public cascade")
        connection.exec_driver_sql("create schema public")
    return database


def _ours() -> set[str]:
    return {name for name in Base.metadata.tables if not name.startswith("test_")}


def test_migrations_make_the_declared_tables(empty: Database) -> None:
    with pytest.raises(DatabaseNotMigrated):
        check_migrated(empty)
    migrate(empty)
    migrate(empty)
    check_migrated(empty)
    with empty.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = [
            difference
            for difference in compare_metadata(context, Base.metadata)
            if not str(getattr(difference[-1], "name", "")).startswith("test_")
        ]
    assert not differences
    empty.close()


def test_migrations_can_be_undone(empty: Database) -> None:
    migrate(empty)
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    with empty.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert not _ours() & set(inspect(empty.engine).get_table_names())
    empty.close()


def test_a_database_of_this_version_only_is_left_alone(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(empty)
    asked: list[str] = []
    monkeypatch.setattr(command, "upgrade", lambda _config, revision: asked.append(revision))
    migrate(empty)
    assert not asked
    for change in ("update alembic_version set version_num = '0001'", "delete from alembic_version"):
        with empty.engine.begin() as connection:
            connection.exec_driver_sql(change)
        migrate(empty)
    assert asked == ["head", "head"]
    empty.close()


@pytest.mark.slow
def test_a_start_over_a_database_of_this_version_imports_no_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'nexus.db'}"
    database = Database(url)
    migrate(database)
    database.close()
    program = (
        "import sys; from nexus.setup import Database, migrate\n"
        f"migrate(Database({url!r})); print([name for name in ('alembic', 'mako') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_head_is_the_newest_file_and_the_only_end_of_the_chain() -> None:
    newest = max(path.name for path in (FOLDER / "versions").glob("[0-9]*.py"))
    assert newest.startswith(head())
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    assert ScriptDirectory.from_config(config).get_heads() == [head()]
