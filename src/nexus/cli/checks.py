"""`nexus smoke`, `nexus doctor`: does it work, and on what."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sqlite3
import sys
from contextlib import ExitStack
from typing import Annotated, Any

import typer

from nexus import __version__
from nexus.cli.first_run import ensure
from nexus.cli.instance import Client, Place, fresh, running
from nexus.cli.options import DataDir, Key, Url, settings_of
from nexus.cli.output import AsJson, console, print_json, print_table
from nexus.smoke import run_checks

_WATCHED = (
    "fastapi", "uvicorn", "sqlalchemy", "celery", "onnxruntime", "xllamacpp", "statsforecast", "lightgbm", "tzdata",
)  # fmt: skip


def smoke(
    private: Annotated[bool, typer.Option(help="Use an instance of its own even if one is running.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Send one real request of each kind, and a bad one of each; exit 1 unless all hold."""
    settings = settings_of(data_dir)
    place = Place(url.rstrip("/"), key or "") if url else None if private else running(settings.data_dir)
    with ExitStack() as stack:
        if place is None:
            ensure(settings, starters=True, first_admin=False)
            own = {"NEXUS_FETCH_ALLOW": "127.0.0.0/8"}
            client = stack.enter_context(fresh(settings.data_dir / "models", own))
        else:
            client = Client(place)
        outcomes = []
        for outcome in run_checks(client.http, webhook=place is None):
            outcomes.append(outcome)
            if not as_json:
                mark = "[green]ok[/green]  " if outcome.ok else "[red]FAIL[/red]"
                console.print(f"{mark} {outcome.what:24} {outcome.milliseconds:8.0f} ms  ", end="")
                console.print(outcome.result, markup=False, highlight=False, overflow="ellipsis", no_wrap=True)
    if as_json:
        print_json([{"what": o.what, "ok": o.ok, "result": o.result, "ms": o.milliseconds} for o in outcomes])
    failed = sum(not outcome.ok for outcome in outcomes)
    if not as_json:
        console.print(f"{len(outcomes) - failed} of {len(outcomes)} checks hold")
    raise typer.Exit(1 if failed else 0)


def doctor(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show versions, devices, disk and what is missing."""
    settings = settings_of(data_dir)
    place = running(settings.data_dir)
    found: dict[str, Any] = {
        "nexus": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "machine": f"{platform.system()} {platform.machine()}",
        "sqlite": sqlite3.sqlite_version,
        "data dir": str(settings.data_dir.absolute()),
        "disk free": f"{shutil.disk_usage(settings.data_dir.absolute().anchor).free / 2**30:.0f} GB",
        "running": place.url if place else "no",
        "database": "postgresql" if settings.database_url else "sqlite",
        "broker": "redis" if settings.redis_url else "in-process",
        **{name: _version(name) for name in _WATCHED},
        **_gpu(),
    }
    if place:
        health = Client(place).json("GET", "/api/v1/system/health")
        found |= {f"health: {c['name']}": f"{c['status']} ({c['detail']})" for c in health["components"]}
    if as_json:
        print_json(found)
        return
    print_table(("what", "is"), found.items())


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _gpu() -> dict[str, Any]:
    from nexus.telemetry.gpus import GPUs

    gpus = GPUs()
    sample = gpus.sample()
    gpus.close()
    devices = ", ".join(str(device.get("name")) for device in sample.get("devices", []))
    return {"gpu": devices or str(sample.get("state"))}
