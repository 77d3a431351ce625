"""One engine under `nexus bench runs`: its workers, the process that starts runs, and the marks they leave."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

_START_LIMIT: Final = 120.0
_LOOK: Final = 0.002


class CrewFailed(RuntimeError):
    """A program under test did not do what was asked; its log is in the message."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A line that a step left: `phase` is begin or end, `at` in seconds since the epoch."""

    run: str
    step: int
    phase: str
    pid: int
    at: float


def read_mark(line: str) -> Mark:
    """Return the mark of a line. Raises `ValueError` for any other line."""
    run, step, phase, pid, at = line.split(" ")
    return Mark(run, int(step), phase, int(pid), float(at))


@dataclass(frozen=True, slots=True)
class Programs:
    """How to start the parts of one engine. Without `drive`, the worker itself takes the requests."""

    work: Sequence[str]
    drive: Sequence[str] | None
    environment: dict[str, str] = field(default_factory=dict)


class Crew:
    """Programs that run, and what they have marked so far."""

    def __init__(self, programs: Programs, folder: Path) -> None:
        """Start nothing yet; `folder` gets the marks and the logs."""
        self.marks: list[Mark] = []
        self.workers: list[subprocess.Popen[str]] = []
        self._everyone: list[subprocess.Popen[str]] = []
        self._programs = programs
        self._folder = folder
        self._path = marks_of(folder)
        self._path.touch()
        self._read = 0
        self._number = 0
        self._driver: subprocess.Popen[str] | None = None

    def start(self, workers: int = 1) -> None:
        """Start workers, one after the other, and the driver. Raises `CrewFailed`."""
        for _ in range(workers):
            self.workers.append(self._spawn(self._programs.work, "worker"))
        if self._programs.drive:
            for worker in self.workers:
                # Whatever else a worker says must not fill the pipe and hold it up.
                threading.Thread(target=collections.deque, args=(worker.stdout, 0), daemon=True).start()
        self._driver = self._spawn(self._programs.drive, "driver") if self._programs.drive else self.workers[0]

    def _spawn(self, command: Sequence[str], name: str) -> subprocess.Popen[str]:
        with (self._folder / f"{name}.log").open("a") as log:
            process = subprocess.Popen(
                command,
                env=self._programs.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self._folder,
                start_new_session=True,
            )
        self._everyone.append(process)
        impatience = threading.Timer(_START_LIMIT, process.kill)
        impatience.start()
        try:
            self._heard(process, "ready")
        finally:
            impatience.cancel()
        return process

    def _heard(self, process: subprocess.Popen[str], first: str) -> str:
        assert process.stdout is not None
        # Programs may greet on the same stream; what they were asked for is a line of its own.
        for line in process.stdout:
            if line.startswith(first):
                return line
        logs = "\n".join(path.read_text(errors="replace")[-1500:] for path in sorted(self._folder.glob("*.log")))
        raise CrewFailed(f"{' '.join(map(str, process.args))[:200]} ended:\n{logs}")  # type: ignore[arg-type]

    def ask(self, count: int, steps: int, seconds: float = 0.0) -> dict[str, float]:
        """Start runs; return the moment of each call by the run's name. Raises `CrewFailed`."""
        driver = self.driver
        assert driver.stdin is not None
        names = [f"r{self._number + number}" for number in range(count)]
        self._number += count
        asked = (json.dumps({"run": name, "steps": steps, "seconds": seconds}) + "\n" for name in names)
        driver.stdin.write("".join(asked))
        driver.stdin.flush()
        called = {}
        for name in names:
            answer = json.loads(self._heard(driver, "{"))
            if "error" in answer:
                raise CrewFailed(answer["error"])
            called[name] = float(answer["at"])
        return called

    @property
    def driver(self) -> subprocess.Popen[str]:
        """Return the process that takes requests."""
        assert self._driver is not None
        return self._driver

    def look(self) -> list[Mark]:
        """Read the marks that are new; return all."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            fresh = file.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read += len(whole)
        self.marks += map(read_mark, whole.decode().splitlines())
        return self.marks

    def until(self, count: int, seconds: float) -> list[Mark]:
        """Wait until there are `count` marks more than now was read before; return those. Raises `CrewFailed`."""
        before = len(self.marks)
        end = time.monotonic() + seconds
        while len(self.look()) < before + count:
            if time.monotonic() > end:
                raise CrewFailed(f"{len(self.marks) - before} of {count} steps in {seconds:.0f} s")
            time.sleep(_LOOK)
        return self.marks[before:]

    def family(self, worker: subprocess.Popen[str]) -> set[int]:
        """Return the process ids of a worker and all its children."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return {worker.pid, *(child.pid for child in psutil.Process(worker.pid).children(recursive=True))}
        return set()

    def kill(self, worker: subprocess.Popen[str]) -> None:
        """End a worker and all its children by SIGKILL."""
        for pid in self.family(worker):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        worker.wait()

    def close(self) -> None:
        """End everything."""
        for process in self._everyone:
            self.kill(process)
            for stream in (process.stdin, process.stdout):
                if stream:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()


def marks_of(folder: Path) -> Path:
    """Return where the programs of this folder leave their marks."""
    return folder / "marks"


@contextlib.contextmanager
def crew(programs: Programs, folder: Path, *, workers: int = 1) -> Iterator[Crew]:
    """Start an engine; end it afterwards."""
    made = Crew(programs, folder)
    try:
        made.start(workers)
        yield made
    finally:
        made.close()


def said(**values: Any) -> str:
    """Return what a program is told, as JSON."""
    return json.dumps(values, default=str)
