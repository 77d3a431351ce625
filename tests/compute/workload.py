"""What the tests run in compute children: functions that behave, and some that do not."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from nexus.core.errors import InvalidInput


def add(a: int, b: int) -> int:
    return a + b


def pid() -> int:
    return os.getpid()


def environment(name: str) -> str | None:
    return os.environ.get(name)


def modules() -> list[str]:
    return sorted(sys.modules)


def sleep_then(seconds: float, value: int) -> int:
    time.sleep(seconds)
    return value


def refuse() -> None:
    raise InvalidInput("The column is not there.", field="columns.0", known=["a"])


def read_a_file_that_is_not_there() -> None:
    Path("/no/such/secret-place").read_text()


def unpicklable() -> object:
    return lambda: 1


def spawn_and_hang(marker: str) -> None:
    """Start a grandchild, write its pid, and hang."""
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    part = Path(marker + ".part")
    part.write_text(str(grandchild.pid))
    part.rename(marker)
    time.sleep(60)


def segfault() -> None:
    ctypes.string_at(0)


def exit_quietly() -> None:
    os._exit(0)


def gone(pid: int, within: float = 30.0) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False
