"""Finds the built-in model's child process, and starts one where nobody else has."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import sys
from pathlib import Path

import msgspec

from nexus.catalog.service import CatalogService
from nexus.compute.errors import ChildNotReady
from nexus.compute.supervisor import Child, Running
from nexus.core.errors import NexusError, Unavailable
from nexus.core.secrets import Secret
from nexus.llm.settings import LocalSettings


class LocalModelUnavailable(Unavailable):
    """The built-in language model is not ready; try again shortly."""

    code = "local_model_unavailable"


class LocalChild(msgspec.Struct, frozen=True):
    """Where a child listens, the key that it asks for, and its process id."""

    address: str
    key: Secret
    pid: int


class LocalRuntime:
    """The way to the child: by the notice that it leaves when ready.

    Whoever runs the parts of NEXUS under a supervisor starts it there (`child`). Where nobody did, the first
    process that needs it starts it under a file lock, and it ends with that process.
    """

    def __init__(self, *, data_dir: Path, settings: LocalSettings, catalog: CatalogService) -> None:
        """Look for nothing yet."""
        self._data_dir = data_dir
        self._settings = settings
        self._catalog = catalog
        self._running: Running | None = None
        self._lock: int | None = None
        self._starting = asyncio.Lock()

    @property
    def model(self) -> str:
        """Return the catalogue's name of the built-in model."""
        return self._settings.model

    @property
    def notice(self) -> Path:
        """Return the file that says where the child is."""
        return self._data_dir / "run" / "local-llm.json"

    async def child(self) -> Child:
        """Describe the child for a supervisor. Raises what the catalogue says when the model is not here."""
        version = await self._catalog.find(self._settings.model)
        model = version.files.get("model") or next(iter(version.files.values()))
        settings = self._settings
        options = {
            "--data-dir": self._data_dir,
            "--model": model,
            "--parallel": settings.parallel,
            "--context": settings.context,
            "--threads": settings.threads,
            "--gpu-layers": settings.gpu_layers,
        }
        argv = [sys.executable, "-m", "nexus.llm.local.server", *(str(x) for pair in options.items() for x in pair)]
        return Child(
            name="local-llm",
            argv=argv,
            # Spinning threads starve a shared machine: 0.5 instead of 25 tokens a second (research: local_llm 2.3).
            env={"OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"},
            ready=self.answers,
            ready_timeout=settings.start_timeout,
            on_line=quiet,
            grace=2.0,
        )

    async def answers(self) -> bool:
        """Tell whether a child has left its notice and lives."""
        return self.look() is not None

    def look(self) -> LocalChild | None:
        """Return the child, if one has left its notice and lives."""
        return living(self.notice)

    async def find(self) -> LocalChild:
        """Return the child, starting one or waiting for it. Raises `LocalModelUnavailable`."""
        if (child := self.look()) is not None:
            return child
        loop = asyncio.get_running_loop()
        end = loop.time() + self._settings.start_timeout
        while loop.time() < end:
            async with self._starting:
                if self._running is None and self._take_lock():
                    await self._start()
            if (child := self.look()) is not None:
                return child
            await asyncio.sleep(0.05)
        raise LocalModelUnavailable(retry_after=5)

    async def stop(self) -> None:
        """End the child if this process started it."""
        running, self._running = self._running, None
        if running is not None:
            await running.stop()
        self._drop_lock()

    async def _start(self) -> None:
        try:
            running = Running(await self.child())
            await running.start()
        except ChildNotReady:
            self._drop_lock()
            raise LocalModelUnavailable(retry_after=5) from None
        except NexusError:
            self._drop_lock()
            raise
        self._running = running

    def _take_lock(self) -> bool:
        """Become the one process that runs the child; False while another is."""
        self._lock = take_lock(self._data_dir / "run" / "local-llm.lock")
        return self._lock is not None

    def _drop_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def living(notice: Path) -> LocalChild | None:
    """Return the child that a notice tells of, if it lives: it holds a lock on its notice until it ends."""
    try:
        with notice.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                told = json.loads(file.read())
                return LocalChild(address=told["address"], key=Secret(told["key"]), pid=int(told["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def take_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock until it is closed; None while another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def quiet(name: str, line: str) -> None:
    """Pass over what llama.cpp prints: it may hold prompts."""
