"""The far side of `ComputePool`: reads calls from a private socket, runs them, answers.

Started by the pool with the descriptor of its socket and the parent's process id. Frames are pickles between our own
two processes: nothing that a user sent is ever unpickled.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import sys
import traceback
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from nexus.compute.process import die_with_parent, limit_memory
from nexus.core.errors import NexusError


@dataclass(frozen=True, slots=True)
class Setup:
    """The first frame: where to import from, the limits, and what to load before the first call."""

    path: list[str]
    memory_mb: int | None = None
    warm_up: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply: a value, an error of ours that travels as itself, or the traceback of a foreign one."""

    value: Any = None
    error: NexusError | None = None
    out_of_memory: bool = False
    trace: str | None = None


def answer(frame: bytes) -> Answer:
    """Run the pickled `(function, args, kwargs)` and return what became of it."""
    try:
        function, args, kwargs = pickle.loads(frame)  # noqa: S301  our own parent wrote it
        return Answer(value=function(*args, **kwargs))
    except NexusError as error:
        return Answer(error=error, trace=traceback.format_exc())
    except MemoryError:
        return Answer(out_of_memory=True)
    # The boundary of a process: whatever the function raised must reach the parent's log.
    except Exception:  # noqa: BLE001
        return Answer(trace=traceback.format_exc())


def serve(connection: Connection) -> None:
    """Answer calls until the parent closes its end."""
    setup: Setup = pickle.loads(connection.recv_bytes())  # noqa: S301  our own parent wrote it
    sys.path[:] = setup.path
    if setup.memory_mb is not None:
        limit_memory(setup.memory_mb)
    for module in setup.warm_up:
        # What is not installed is missed by the call that needs it, not by all others.
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    while True:
        try:
            frame = connection.recv_bytes()
        except EOFError:
            return
        reply = answer(frame)
        try:
            body = pickle.dumps(reply, protocol=5)
        # Anything may go wrong while pickling a foreign value; the caller must hear of it.
        except Exception:  # noqa: BLE001
            body = pickle.dumps(Answer(trace=traceback.format_exc()))
        connection.send_bytes(body)


def main() -> None:
    """Bind this process's life to its parent's and serve."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    die_with_parent()
    if os.getppid() != parent:
        return
    # Libraries print; the parent's standard output belongs to its own user.
    os.dup2(2, 1)
    try:
        serve(Connection(descriptor))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
