"""Which run is behind what happens: carried from a step to the events it leads to, through our own API too.

A run that starts another by way of an event may be started by that one again. Who starts runs for events counts
how many stand before them, and has to know of each event which run it came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from nexus.core.ids import is_id

HEADER: Final = b"idempotency-key"
"""What steps send with every call: `<run id>.<step key>`."""
_run: ContextVar[str | None] = ContextVar("nexus_run_behind", default=None)


def run_behind() -> str | None:
    """Return the id of the run whose step does what is being done; None where it is no step."""
    return _run.get()


@contextmanager
def behind(run_id: str | None) -> Iterator[None]:
    """Say which run it is for the length of a block."""
    token = _run.set(run_id)
    try:
        yield
    finally:
        _run.reset(token)


def run_of_key(key: str | bytes | None) -> str | None:
    """Return the run that an idempotency key names; None for those of others. What it says is only a claim."""
    text = key.decode("latin-1") if isinstance(key, bytes) else key or ""
    run_id, dot, _ = text.partition(".")
    return run_id if dot and is_id(run_id, "run") else None
