"""`nexus serve` on one machine: an API process and an engine process, watched over.

The listening socket is bound here and handed down, so that connections wait in its queue while
the API starts, also after a crash. The built-in language model is started by the process that
first needs it (`nexus.llm.local.runtime`).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from nexus.compute.errors import ChildNotReady
from nexus.compute.supervisor import Child, Supervisor
from nexus.settings import Settings

_GRACE = 32.0
_SMALL_HEAP: Final = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_TRIM_THRESHOLD_": "131072",
    "MALLOC_MMAP_THRESHOLD_": "131072",
}
"""glibc gives every thread a heap of its own and keeps what is freed: megabytes that nobody uses."""


async def supervise(settings: Settings, listener: socket.socket, *, on_ready: Callable[[str], None]) -> int:
    """Run both processes until SIGTERM or SIGINT; return the exit status."""
    url = address_of(listener)
    notice = settings.data_dir / "run" / "server.json"
    supervisor = Supervisor(children_of(settings, listener, url))
    supervisor.handle_signals()
    try:
        # Both at once: the API needs no engine to accept work, nor the engine an API.
        await asyncio.gather(*(running.start() for running in supervisor.running.values()))
    except ChildNotReady:
        await supervisor.stop(fast=True)
        return 0 if supervisor.asked_to_stop else 1
    write_notice(notice, url)
    on_ready(url)
    try:
        await supervisor.wait()
    finally:
        notice.unlink(missing_ok=True)
    return 0


def children_of(settings: Settings, listener: socket.socket, url: str) -> list[Child]:
    """Return the two programs to run."""
    common = ["--data-dir", str(settings.data_dir)]
    command = [sys.executable, "-m", "nexus.programs"]
    descriptor = listener.fileno()

    async def answers() -> bool:
        return await _alive(listener)

    return [
        Child(
            name="api",
            argv=[*command, "api", *common, "--host", settings.host, "--listen-fd", str(descriptor)],
            env=_SMALL_HEAP,
            pass_fds=(descriptor,),
            ready=answers,
            grace=_GRACE,
            on_line=None,
        ),
        Child(name="engine", argv=[*command, "engine", *common], env=_SMALL_HEAP, grace=_GRACE, on_line=None),
    ]


async def _alive(listener: socket.socket) -> bool:
    """Ask the API itself whether it lives; it accepts from our socket, so a refusal cannot be told from patience."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound
    writer = None
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return b" 200 " in await reader.readline()
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def address_of(listener: socket.socket) -> str:
    """Return the URL at which this machine reaches the listener."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def write_notice(path: Path, url: str) -> None:
    """Tell the commands of this machine where we are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"url": url, "pid": os.getpid()}))
    temporary.replace(path)


def hold(data_dir: Path) -> int | None:
    """Become the one watcher over a data dir; None while another lives. The lock ends with the process."""
    path = data_dir / "run" / "serve.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_served(data_dir: Path) -> bool:
    """Tell whether a watcher over the data dir lives."""
    try:
        descriptor = os.open(data_dir / "run" / "serve.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
