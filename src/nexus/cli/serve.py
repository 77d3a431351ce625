"""`nexus run`, `serve`, `api`, `engine`, `migrate`, `admin create`: the installation itself."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from nexus.cli.first_run import ensure
from nexus.cli.instance import running
from nexus.cli.options import DataDir, settings_of
from nexus.cli.output import console, errors, fail
from nexus.core.errors import NexusError
from nexus.programs import CANNOT_START, serve_api, work_as_engine
from nexus.settings import Settings, use_config
from nexus.supervision import hold, is_served, supervise

Host = Annotated[str | None, typer.Option(help="Address to serve on.", show_default="127.0.0.1")]
Port = Annotated[int | None, typer.Option(help="Port to serve on; 0: any free one.", show_default="8000")]
Config = Annotated[Path | None, typer.Option("--config", help="A YAML file of settings.", show_default=False)]

admin = typer.Typer(help="Administrators: create.", no_args_is_help=True)


def run(host: Host = None, port: Port = None, data_dir: DataDir = None, config: Config = None) -> None:
    """Set up what is missing (database, starter models, first admin), then serve."""
    settings = _settings(data_dir, config, host, port)
    _refuse_second(settings)
    ensure(settings, starters=True, first_admin=True)
    _serve(settings)


def serve(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    config: Config = None,
    first_admin: Annotated[bool, typer.Option("--first-admin", help="Make the first admin if there is none.")] = False,
) -> None:
    """Serve: the API and an engine, watched over and started again when they end."""
    settings = _settings(data_dir, config, host, port)
    _refuse_second(settings)
    ensure(settings, starters=False, first_admin=first_admin or settings.admin_password_file is not None)
    _serve(settings)


def api(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Serve the API alone; engines run elsewhere."""
    settings = _settings(data_dir, config, host, port)
    _refuse_public_without_admin(settings)
    try:
        status = serve_api(settings, _listener(settings))
    except NexusError as error:
        fail(error.message, CANNOT_START)
    raise typer.Exit(status)


def engine(
    data_dir: DataDir = None,
    config: Config = None,
    queues: Annotated[str | None, typer.Option(help="Queues to work on, such as llm,cpu.", show_default="all")] = None,
) -> None:
    """Execute the steps of runs; any number of engines may work at once."""
    settings = _settings(data_dir, config)
    if queues is not None:
        settings.runs.consume = [name.strip() for name in queues.split(",") if name.strip()]
        unknown = set(settings.runs.consume) - set(settings.runs.queues)
        if unknown or not settings.runs.consume:
            fail(f"there is no queue {', '.join(sorted(unknown))}; there are {', '.join(settings.runs.queues)}")
    try:
        work_as_engine(settings)
    except NexusError as error:
        fail(error.message, CANNOT_START)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def scheduler(data_dir: DataDir = None, config: Config = None) -> None:
    """Do what happens by itself: schedules, triggers, alert rules; any number may run beside engines."""
    settings = _settings(data_dir, config)
    from nexus.engine import run_scheduler
    from nexus.telemetry.logs import configure

    configure(settings.telemetry)
    _guarded(lambda: run_scheduler(settings))


def migrate(data_dir: DataDir = None, config: Config = None) -> None:
    """Bring the database to this version's tables."""
    settings = _settings(data_dir, config)
    from nexus.setup import migrate as migrate_database
    from nexus.storage.db import Database

    database = Database(settings.database)
    try:
        migrate_database(database)
    except NexusError as error:
        fail(error.message)
    finally:
        database.close()
    console.print("the database is up to date")


@admin.command("create")
def create_admin(
    email: Annotated[str, typer.Argument(help="The address to sign in with.")],
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Make an administrator; the password is asked for, or read from standard input."""
    settings = _settings(data_dir, config)
    password = typer.prompt("Password", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    ensure(settings, starters=False, first_admin=False)
    _guarded(lambda: _create_admin(settings, email, password))
    console.print(f"{email} can sign in")


async def _create_admin(settings: Settings, email: str, password: str) -> None:
    from nexus.access.service import AccessService
    from nexus.composition import build
    from nexus.setup import add_cli_key

    parts = build(settings, children=1)
    try:
        access = parts.services.get(AccessService)
        user = await access.accounts.create_admin(email, password)
        if not (settings.data_dir / "cli.key").exists():
            await add_cli_key(access, settings, user.id)
    finally:
        await parts.stop()


def _settings(data_dir: Path | None, config: Path | None, host: str | None = None, port: int | None = None) -> Settings:
    if config is not None:
        use_config(config)
    settings = settings_of(data_dir, host=host, port=port)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return settings


def _guarded(work: Callable[[], Awaitable[Any]]) -> None:
    """Run `work`, its expected errors as one line."""

    async def inner() -> None:
        await work()

    try:
        asyncio.run(inner())
    except NexusError as error:
        fail(error.message, CANNOT_START)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _refuse_second(settings: Settings) -> None:
    if is_served(settings.data_dir):
        place = running(settings.data_dir)
        fail(f"{settings.data_dir} is already being served" + (f" at {place.url}" if place else ""))


def _refuse_public_without_admin(settings: Settings) -> None:
    try:
        private = ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        private = settings.host == "localhost"
    try:
        allowed = private or asyncio.run(_somebody_can_sign_in(settings))
    except NexusError as error:
        fail(error.message, CANNOT_START)
    if not allowed:
        fail("a public address is refused until an admin exists; make one by: nexus admin create", CANNOT_START)


async def _somebody_can_sign_in(settings: Settings) -> bool:
    from nexus.access.service import AccessService
    from nexus.composition import build

    parts = build(settings, children=1)
    try:
        return not await parts.services.get(AccessService).accounts.needs_setup()
    finally:
        await parts.stop()


def _serve(settings: Settings) -> None:
    _refuse_public_without_admin(settings)
    if hold(settings.data_dir) is None:
        fail(f"{settings.data_dir} is already being served")
    raise typer.Exit(asyncio.run(supervise(settings, _listener(settings), on_ready=_say_where)))


def _say_where(url: str) -> None:
    errors.print(f"NEXUS is at [bold]{url}[/bold]  (Ctrl-C stops)")


def _listener(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        fail(f"cannot serve on {settings.host} port {settings.port}: {error.strerror}; try --port 0")
    listener.listen(2048)
    listener.set_inheritable(True)
    return listener
