"""The children of language models on this machine beside the built-in one: one for each, as long as it is asked.

    children = LocalChildren(data_dir=..., settings=..., runtime=...)
    child = await children.find(LocalModel("mistral-7b", file=path, context=32768))

A child leaves its notice in `<data dir>/run/local-llm/`, where every process of this machine finds it. It ends
by itself after `idle` seconds without work; where `children` of them run already, the one that has been idle for
longest makes room. None ends in the middle of an answer, but with the process that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from nexus.catalog.gguf import read_head
from nexus.catalog.types import ModelVersion
from nexus.compute.errors import ChildNotReady
from nexus.compute.supervisor import Child, Running
from nexus.core.errors import Unavailable
from nexus.llm.local.runtime import LocalChild, LocalModelUnavailable, LocalRuntime, living, quiet, take_lock
from nexus.llm.settings import LocalSettings

# Under which name an account's options have the `LocalModel` that it stands for.
MODEL = "local_model"
_LONGEST_WAIT = 15.0
_STILL_AT_WORK = 1.0
_USUAL_CONTEXT = 2048


class LocalModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model whose GGUF file lies here; `context` is tokens of a request, `project` the only one that may ask."""

    name: str
    key: str
    file: str
    context: int
    tools: bool = False
    project: str = ""


class LocalModelsBusy(Unavailable):
    """As many local models as this machine may run are at work; try again shortly."""

    code = "local_models_busy"


class LocalChildren:
    """Finds the child of a model, or starts it."""

    def __init__(self, *, data_dir: Path, settings: LocalSettings, runtime: LocalRuntime) -> None:
        """Start nothing yet; `runtime` has the child of the built-in model."""
        self._folder = data_dir / "run" / "local-llm"
        self._settings = settings
        self._runtime = runtime
        self._running: dict[str, Running] = {}
        self._starting = asyncio.Lock()

    def notice(self, key: str) -> Path:
        """Return the file that says where the child of a version is; its name tells nothing of the model's."""
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"

    async def find(self, model: LocalModel) -> LocalChild:
        """Return the model's child, starting it or waiting for it.

        Raises `LocalModelUnavailable`, `LocalModelsBusy`.
        """
        if model.name == self._runtime.model and not model.project:
            return await self._runtime.find()
        notice = self.notice(model.key)
        if (child := living(notice)) is not None:
            return child
        loop = asyncio.get_running_loop()
        end = loop.time() + self._settings.start_timeout
        while loop.time() < end:
            async with self._starting:
                if (child := living(notice)) is not None:
                    return child
                # One lock for all of them, so that no two processes count the same room as theirs.
                if (descriptor := take_lock(self._folder / "starting.lock")) is not None:
                    try:
                        await self._make_room()
                        await self._start(model, notice)
                    finally:
                        os.close(descriptor)
            await asyncio.sleep(0.05)
        raise LocalModelUnavailable(retry_after=5)

    async def load(self, version: ModelVersion) -> None:
        """Start the version's child ahead of its first use (the catalogue's `Runner`)."""
        if version.model == self._runtime.model and version.project_id is None:
            await self._runtime.find()
        else:
            await self.find(await asyncio.to_thread(local_model, version, self._settings.longest_context))

    async def unload(self, version: ModelVersion) -> None:
        """End the version's child as soon as it has no work, whoever started it."""
        if version.model == self._runtime.model and version.project_id is None:
            await self._runtime.stop()
        else:
            _ask_to_end(self.notice(version.key))

    async def stop(self) -> None:
        """End the children that this process started."""
        running, self._running = list(self._running.values()), {}
        await asyncio.gather(*(one.stop() for one in running))

    async def _start(self, model: LocalModel, notice: Path) -> None:
        for key in [key for key, one in self._running.items() if one.pid is None]:
            del self._running[key]
        settings = self._settings
        options = {
            "--data-dir": self._folder.parent.parent,
            "--notice": notice,
            "--alias": model.name,
            "--model": model.file,
            "--parallel": settings.parallel,
            "--context": model.context,
            "--threads": settings.threads,
            "--gpu-layers": settings.gpu_layers,
            "--idle": settings.idle,
        }

        async def ready() -> bool:
            return living(notice) is not None

        running = Running(
            Child(
                name="local-llm",
                argv=[
                    sys.executable,
                    "-m",
                    "nexus.llm.local.server",
                    *(str(x) for pair in options.items() for x in pair),
                ],
                env={"OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"},
                ready=ready,
                ready_timeout=settings.start_timeout,
                restart=False,
                on_line=quiet,
                grace=2.0,
            )
        )
        self._running[model.key] = running
        try:
            await running.start()
        except ChildNotReady:
            raise LocalModelUnavailable(retry_after=5) from None

    async def _make_room(self) -> None:
        """Wait until fewer than the allowed children run, having asked the one idle for longest to end."""
        clock = asyncio.get_running_loop().time
        end, asked = clock() + _LONGEST_WAIT, False
        while clock() < end:
            running = [path for path in self._folder.glob("*.json") if living(path) is not None]
            if len(running) < self._settings.children:
                return
            idle = [path for path in running if _used_at(path) + _STILL_AT_WORK < time.time()]
            if idle and not asked:
                _ask_to_end(min(idle, key=_used_at))
                asked = True
            await asyncio.sleep(0.05)
        raise LocalModelsBusy(retry_after=5)


def local_model(version: ModelVersion, longest: int) -> LocalModel:
    """Return what a version's GGUF file says of it, with `longest` tokens of context at the most.

    Tools work only with a chat template that knows of them: llama.cpp passes over them in silence with others.
    Raises `ModelRefused` for a file that is no GGUF.
    """
    file = version.files.get("model") or next(iter(version.files.values()))
    head = read_head(file)
    family = str(head.get("general.architecture", ""))
    return LocalModel(
        name=version.model,
        key=version.key,
        file=str(file),
        context=min(int(head.get(f"{family}.context_length") or _USUAL_CONTEXT), longest),
        tools="tools" in str(head.get("tokenizer.chat_template", "")),
        project=version.project_id or "",
    )


def _used_at(notice: Path) -> float:
    """Return when the child was last at work: it touches its notice as long as it is."""
    try:
        return notice.stat().st_mtime
    except OSError:
        return 0.0


def _ask_to_end(notice: Path) -> None:
    """Ask a living child to end as soon as it has no work."""
    if (child := living(notice)) is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(child.pid, signal.SIGUSR1)
