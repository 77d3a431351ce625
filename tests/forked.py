"""Processes of their own to be killed, there in an instant: forked from one that has imported what they need."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import TimeoutExpired

_SERVER = multiprocessing.get_context("forkserver")
_IMPORTED = ["tests.runs.engine_process", "tests.llm.responses.responding_process"]


class Forked:
    """A process that runs `main(said)` of a module in a session of its own; its words are those of `Popen`."""

    def __init__(self, module: str, said: str, log: Path) -> None:
        """Start it; its output is read from `stdout`, its errors go to the end of `log`."""
        _SERVER.set_forkserver_preload(_IMPORTED)
        output, its_output = multiprocessing.Pipe(duplex=False)
        self._process = _SERVER.Process(
            target=_run, args=(module, said, str(log), dict(os.environ), its_output), daemon=True
        )
        self._process.start()
        its_output.close()
        self.stdout = os.fdopen(os.dup(output.fileno()), encoding="utf-8")
        output.close()

    @property
    def pid(self) -> int:
        """Its number, which is that of its group too."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Return how it ended, None while it lives."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return it. Raises `TimeoutExpired`."""
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise TimeoutExpired(str(self._process), timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it with all that it has started, at once, and wait for that."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()


def _run(module: str, said: str, log: str, environment: dict[str, str], output: Connection) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(output.fileno(), 1)
    output.close()
    errors = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(errors, 2)
    os.close(errors)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import_module(module).main(said)
    sys.stdout.flush()
