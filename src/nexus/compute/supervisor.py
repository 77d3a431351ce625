"""Long-lived programs kept running: the parts of `nexus serve`, the local language model.

    supervisor = Supervisor([Child(name="api", argv=[...], ready=answers), Child(name="engine", argv=[...])])
    await supervisor.start()          # in order, each ready before the next
    await supervisor.wait()           # until stop(), or SIGTERM/SIGINT after handle_signals()

Every child leads its own session and is killed by the kernel when this process dies, whatever kills it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nexus.compute.errors import ChildNotReady
from nexus.compute.process import die_with_parent, signal_group
from nexus.compute.settings import inherited_environment

_log = logging.getLogger("nexus.supervisor")
State = Literal["stopped", "starting", "ready", "waiting", "failed"]


def print_line(name: str, line: str) -> None:
    """Write one line of a child's output to standard error, prefixed with its name."""
    sys.stderr.write(f"[{name}] {line}\n")


@dataclass(frozen=True, kw_only=True)
class Child:
    """One program: how it is started, when it counts as ready, and how it is stopped.

    `env` is added to the whole environment of this process, or replaces it with `bare`. `ready` is
    asked every `ready_every` seconds until it returns True or `ready_timeout` seconds have passed.
    A child that ends by itself is started again after `backoff` seconds, doubled each time up to
    `backoff_cap`, reset once it has stayed up for a minute; with `restarts` given it is `failed` after
    that many in a row. `on_line` gets each line of its output; None lets it inherit our own streams.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    bare: bool = False
    cwd: Path | None = None
    ready: Callable[[], Awaitable[bool]] | None = None
    ready_timeout: float = 60.0
    ready_every: float = 0.05
    restart: bool = True
    restarts: int | None = None
    backoff: float = 0.5
    backoff_cap: float = 30.0
    grace: float = 20.0
    on_line: Callable[[str, str], None] | None = print_line
    pass_fds: tuple[int, ...] = ()


class Running:
    """One child in the care of a `Supervisor`: its state, process id and how often it was restarted."""

    def __init__(self, child: Child) -> None:
        """Start nothing yet."""
        self.child = child
        self.state: State = "stopped"
        self.restarted = 0
        self.returncode: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._stopping = False
        self._changed = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Return the process id, or None while there is no process."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start it and return once it is ready. Raises `ChildNotReady`, also when it is stopped meanwhile."""
        self._stopping = False
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.child.name}")
        while self.state not in ("ready", "failed") and not (self._stopping and self.state == "stopped"):
            await self._changed.wait()
        if self.state != "ready":
            await self.stop(fast=True)
            raise ChildNotReady(f"The part {self.child.name} did not start.")

    async def stop(self, *, fast: bool = False) -> None:
        """Ask it to end (SIGTERM), and kill it and its children after the grace, or at once."""
        self._stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            signal_group(process.pid, signal.SIGKILL if fast else signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self.child.grace)
            if process.returncode is None:
                _log.warning("%s did not end in %.0f s and is killed", self.child.name, self.child.grace)
            # Also what it left behind in its session.
            signal_group(process.pid, signal.SIGKILL)
            await process.wait()
        for task in (self._keeper, self._reader):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._to("stopped")

    def kill(self) -> None:
        """End it at once, without waiting."""
        if (pid := self.pid) is not None:
            signal_group(pid, signal.SIGKILL)

    def _to(self, state: State) -> None:
        self.state = state
        self._changed.set()
        self._changed = asyncio.Event()

    async def _keep(self) -> None:
        """Start, wait for the end, back off, and again."""
        pause, in_a_row, first = self.child.backoff, 0, True
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            ready = await self._launch()
            if first and not ready:
                return self._to("failed")
            first = False
            if self._process is not None:
                self.returncode = await self._process.wait()
                # What a dead child left behind would hold its ports and files.
                signal_group(self._process.pid, signal.SIGKILL)
            if self._stopping or not self.child.restart:
                return self._to("stopped")
            if loop.time() - began > 60:
                pause, in_a_row = self.child.backoff, 0
            in_a_row += 1
            if self.child.restarts is not None and in_a_row > self.child.restarts:
                _log.error("%s ended %d times in a row and is given up", self.child.name, in_a_row)
                return self._to("failed")
            _log.warning("%s ended with %s; again in %.1f s", self.child.name, self.returncode, pause)
            self._to("waiting")
            await asyncio.sleep(pause)
            pause = min(pause * 2, self.child.backoff_cap)
            self.restarted += 1

    async def _launch(self) -> bool:
        """Start the process and wait until it is ready; False (and no process) when it is not."""
        self._to("starting")
        child = self.child
        pipe = asyncio.subprocess.PIPE if child.on_line is not None else None
        try:
            self._process = await asyncio.create_subprocess_exec(
                *child.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=pipe,
                stderr=asyncio.subprocess.STDOUT if pipe else None,
                env=({} if child.bare else inherited_environment()) | dict(child.env or {}),
                cwd=child.cwd,
                pass_fds=child.pass_fds,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        except OSError as error:
            _log.error("%s cannot be started: %s", child.name, error.strerror)
            return False
        if self._process.stdout is not None:
            self._reader = asyncio.create_task(self._read_lines(self._process.stdout))
        if await self._becomes_ready(self._process):
            self._to("ready")
            return True
        signal_group(self._process.pid, signal.SIGKILL)
        return False

    async def _becomes_ready(self, process: asyncio.subprocess.Process) -> bool:
        if self.child.ready is None:
            return True
        loop = asyncio.get_running_loop()
        end = loop.time() + self.child.ready_timeout
        while loop.time() < end and process.returncode is None:
            if await self.child.ready():
                return True
            await asyncio.sleep(self.child.ready_every)
        return False

    async def _read_lines(self, stream: asyncio.StreamReader) -> None:
        write = functools.partial(self.child.on_line or print_line, self.child.name)
        rest = b""
        while chunk := await stream.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                write(line.decode(errors="replace"))
            if len(rest) > 1 << 20:
                write(rest.decode(errors="replace"))
                rest = b""
        if rest:
            write(rest.decode(errors="replace"))


class Supervisor:
    """Some children, started in order and stopped in reverse."""

    def __init__(self, children: Sequence[Child]) -> None:
        """Start nothing yet."""
        self.running = {child.name: Running(child) for child in children}
        self._ended = asyncio.Event()
        self._stop_asked = 0
        self._stop_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start each child once the one before is ready. Raises `ChildNotReady`, all stopped again."""
        for running in self.running.values():
            try:
                await running.start()
            except ChildNotReady:
                await self.stop(fast=True)
                raise

    async def stop(self, *, fast: bool = False) -> None:
        """Stop every child, the last started first."""
        for running in reversed(self.running.values()):
            await running.stop(fast=fast)
        self._ended.set()

    async def wait(self) -> None:
        """Return once all has been stopped."""
        await self._ended.wait()

    def states(self) -> dict[str, State]:
        """Return the state of every child by name."""
        return {name: running.state for name, running in self.running.items()}

    @property
    def asked_to_stop(self) -> bool:
        """Tell whether a signal has asked for the end."""
        return self._stop_asked > 0

    def handle_signals(self) -> None:
        """Stop on SIGTERM or SIGINT; a second one kills at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop)

    def _asked_to_stop(self) -> None:
        self._stop_asked += 1
        if self._stop_asked == 1:
            self._stop_task = asyncio.get_running_loop().create_task(self.stop())
            return
        for running in self.running.values():
            running.kill()
