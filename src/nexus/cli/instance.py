"""Where commands find a running NEXUS, and how they start a private one when there is none.

`nexus serve` leaves `<data dir>/run/server.json` (address, process id), true for as long as it holds
its lock, and, made with the first admin, `<data dir>/cli.key`: an API key for commands on this
machine that only its owner can read.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from nexus.cli.output import fail
from nexus.compute.settings import inherited_environment
from nexus.supervision import is_served

START_SECONDS = 300.0
ALONE = {"NEXUS_DATABASE_URL": "", "NEXUS_REDIS_URL": "", "NEXUS_SECRET_KEY_FILE": "", "NEXUS_CONFIG": ""}
"""Settings of an instance that shares nothing with the one this machine is set up for."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance listens, and a key that it takes."""

    url: str
    key: str


class Client:
    """An HTTP client of one instance; an answer of 400 or more ends the command with its message."""

    def __init__(self, place: Place, *, timeout: float = 300.0) -> None:
        """Speak to the instance at `place`."""
        self.place = place
        self.http = httpx2.Client(
            base_url=place.url, headers={"authorization": f"Bearer {place.key}"}, timeout=timeout, trust_env=False
        )

    def call(self, method: str, path: str, **arguments: Any) -> httpx2.Response:
        """Send a request and return the answer, or end the command with what the answer complains of."""
        try:
            answer = self.http.request(method, path, **arguments)
        except httpx2.HTTPError:
            fail(f"{self.place.url} does not answer; start it by ./nexus run")
        if answer.status_code >= 400:
            fail(complaint(answer))
        return answer

    def json(self, method: str, path: str, **arguments: Any) -> Any:
        """Send a request and return the JSON of the answer."""
        return self.call(method, path, **arguments).json()


def complaint(answer: httpx2.Response) -> str:
    """Return what an error answer of any dialect says, in one line."""
    try:
        body = answer.json()
    except ValueError:
        return f"status {answer.status_code}"
    inner = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(inner, dict):
        return f"{inner} (status {answer.status_code})"
    text = inner.get("detail") or inner.get("message") or inner.get("title") or "failed"
    places = [str(item.get("pointer", "")) for item in inner.get("errors", []) if isinstance(item, dict)]
    where = f" [{', '.join(filter(None, places))}]" if any(places) else ""
    return f"{text}{where} (status {answer.status_code}, {inner.get('code', 'no code')})"


def running(data_dir: Path) -> Place | None:
    """Return the instance that serves `data_dir`, if one answers; its key is empty where none was made."""
    if not is_served(data_dir):
        return None
    try:
        server = json.loads((data_dir / "run" / "server.json").read_text())
        key_file = data_dir / "cli.key"
        key = key_file.read_text().strip() if key_file.exists() else ""
        answer = httpx2.get(server["url"] + "/livez", timeout=5, trust_env=False)
    except (OSError, ValueError, KeyError, httpx2.HTTPError):
        return None
    return Place(server["url"], key) if answer.status_code == 200 else None


@contextlib.contextmanager
def private(
    data_dir: Path, *, settings: dict[str, str] | None = None, log: Path | None = None
) -> Iterator[tuple[Place, subprocess.Popen[bytes]]]:
    """Start an instance of its own on a free port over `data_dir`, and stop it at the end."""
    data_dir.mkdir(parents=True, exist_ok=True)
    server_file = data_dir / "run" / "server.json"
    server_file.unlink(missing_ok=True)
    environment = {**inherited_environment(), **(settings or {})}
    command = [sys.executable, "-m", "nexus", "serve", "--first-admin", "--port", "0", "--data-dir", str(data_dir)]
    with (log or Path(os.devnull)).open("ab") as sink:
        process = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink)
    try:
        yield _answering(data_dir, process), process
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answering(data_dir: Path, process: subprocess.Popen[bytes]) -> Place:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the instance ended with status {process.returncode} before it was ready")
        if place := running(data_dir):
            return place
        time.sleep(0.05)
    raise RuntimeError("the instance was not ready in time")


@contextlib.contextmanager
def fresh(models: Path | None = None, settings: dict[str, str] | None = None) -> Iterator[Client]:
    """Yield a client of a private instance over an empty folder that shares the pulled `models`.

    It stands alone: whatever database and broker this machine is set up with are not touched.
    """
    with tempfile.TemporaryDirectory(prefix="nexus-") as folder:
        data_dir = Path(folder)
        if models is not None:
            models.mkdir(parents=True, exist_ok=True)
            (data_dir / "models").symlink_to(models.absolute(), target_is_directory=True)
        with private(data_dir, settings={**ALONE, **(settings or {})}, log=data_dir / "instance.log") as (place, _):
            yield Client(place)
