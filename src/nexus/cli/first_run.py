"""`nexus setup`: the database, the starter models and the first admin of a fresh installation.

`nexus run` and `nexus serve` run it as a process of its own when the stamp in the data dir says that
something is missing, so that the process that watches over the others stays small.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from nexus import __version__
from nexus.cli.options import DataDir, settings_of
from nexus.cli.output import errors, fail
from nexus.compute.settings import inherited_environment
from nexus.core.errors import NexusError
from nexus.settings import Settings

_HERE = Path(__file__).resolve().parents[1]


def ensure(settings: Settings, *, starters: bool, first_admin: bool) -> None:
    """Run the set-up unless it has been done by this version; end the command when it fails."""
    wanted = stamp(settings, starters=starters, first_admin=first_admin)
    file = settings.data_dir / "run" / "setup"
    gone = settings.database_url is None and not (settings.data_dir / "nexus.db").exists()
    if not gone and file.exists() and set(wanted) <= set(file.read_text().split()):
        return
    command = [sys.executable, "-m", "nexus", "setup", "--data-dir", str(settings.data_dir)]
    command += ["--starters" if starters else "--no-starters"]
    command += ["--first-admin" if first_admin else "--no-first-admin"]
    status = subprocess.run(command, env=inherited_environment(), check=False).returncode
    if status:
        raise typer.Exit(status)


def stamp(settings: Settings, *, starters: bool, first_admin: bool) -> list[str]:
    """Return the words that say what has been set up, by what."""
    migrations = sorted(path.name for path in (_HERE / "storage" / "migrations" / "versions").glob("*.py"))
    catalogue = b"".join(path.read_bytes() for path in sorted((_HERE / "catalog").glob("*.toml")))
    where = hashlib.sha256(settings.database.encode()).hexdigest()[:16]
    base = hashlib.sha256(f"{__version__} {migrations} {where}".encode()).hexdigest()[:16]
    words = [f"database:{base}"]
    if starters:
        words.append(f"models:{hashlib.sha256(catalogue).hexdigest()[:16]}")
    if first_admin:
        words.append(f"admin:{where}")
    return words


def setup(
    starters: Annotated[bool, typer.Option(help="Fetch the starter models.")] = True,
    first_admin: Annotated[bool, typer.Option(help="Make the first admin if there is nobody.")] = True,
    data_dir: DataDir = None,
) -> None:
    """Set up what is missing: database, starter models, first admin. Serves nothing."""
    settings = settings_of(data_dir)
    try:
        asyncio.run(_setup(settings, starters=starters, first_admin=first_admin))
    except NexusError as error:
        fail(error.message, 78)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _setup(settings: Settings, *, starters: bool, first_admin: bool) -> None:
    from nexus.access.service import AccessService
    from nexus.catalog.service import CatalogService
    from nexus.composition import build
    from nexus.setup import make_first_admin, migrate, pull_starters

    details = settings.data_dir / "run" / "setup.log"
    details.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=details, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    parts = build(settings, children=1)
    done = stamp(settings, starters=starters, first_admin=first_admin)
    try:
        await asyncio.to_thread(migrate, parts.database)
        if starters and (missing := await pull_starters(parts.services.get(CatalogService), _say)):
            _say(f"there is no model yet for {', '.join(missing)}; the next start tries again ({details} says why)")
            done = [word for word in done if not word.startswith("models:")]
        if first_admin:
            admin = await make_first_admin(parts.services.get(AccessService), settings)
            if admin is not None:
                _show(admin.email, admin.password, admin.key)
    finally:
        await parts.stop()
    file = settings.data_dir / "run" / "setup"
    kept = file.read_text().split() if file.exists() else []
    kinds = {word.partition(":")[0] for word in done}
    file.write_text(" ".join([*(word for word in kept if word.partition(":")[0] not in kinds), *done]))


def _say(line: str) -> None:
    errors.print(f"nexus: {line}", markup=False, highlight=False)


def _show(email: str, password: str | None, key: str) -> None:
    lines = [
        "",
        "The first administrator and an API key. They are shown this once; keep them.",
        f"  sign in:   {email}",
        f"  password:  {password or '(from the file you gave)'}",
        f"  API key:   {key}",
        "",
    ]
    for line in lines:
        # Plain print: a terminal's line breaks inside a key would spoil copying it.
        print(line, flush=True)
