"""The ids of what is being done right now, carried by context variables into every log line and span."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_NAMES = ("request_id", "trace_id", "span_id", "project_id", "run_id")
_current: dict[str, ContextVar[str | None]] = {name: ContextVar(f"nexus_{name}", default=None) for name in _NAMES}


def bind(**ids: str | None) -> None:
    """Set ids for the rest of the present task: `bind(project_id="prj_..")`."""
    for name, value in ids.items():
        _current[name].set(value)


def bind_request_id(request_id: str) -> None:
    """Set the request id and forget the ids of an earlier request on the same connection."""
    bind(request_id=request_id, project_id=None, run_id=None)


@contextmanager
def bound(**ids: str | None) -> Iterator[None]:
    """Set ids for the length of a block."""
    tokens = [(_current[name], _current[name].set(value)) for name, value in ids.items()]
    try:
        yield
    finally:
        for variable, token in reversed(tokens):
            variable.reset(token)


def current() -> dict[str, str]:
    """Return the ids that are set."""
    return {name: value for name, variable in _current.items() if (value := variable.get()) is not None}
