"""The ids of what is being done right now, carried by context variables into every log line and span."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ids: ContextVar[dict[str, str | None]] = ContextVar("nexus_ids")
"""The ids `request_id`, `trace_id`, `span_id`, `project_id`, `run_id`. Never changed in place."""


def bind(**ids: str | None) -> None:
    """Set ids for the rest of the present task: `bind(project_id="prj_..")`."""
    _ids.set({**_ids.get({}), **ids})


def become(**ids: str | None) -> None:
    """Set exactly these ids for the rest of the present task: those of an earlier request are gone."""
    _ids.set(ids)


def bind_request_id(request_id: str) -> None:
    """Set the request id and forget the ids of an earlier request on the same connection."""
    kept = _ids.get({})
    _ids.set({"trace_id": kept.get("trace_id"), "span_id": kept.get("span_id"), "request_id": request_id})


@contextmanager
def bound(**ids: str | None) -> Iterator[None]:
    """Set ids for the length of a block."""
    token = _ids.set({**_ids.get({}), **ids})
    try:
        yield
    finally:
        _ids.reset(token)


def ids() -> dict[str, str | None]:
    """Return the ids as they stand, those that are None too; not to be changed."""
    return _ids.get({})


def current() -> dict[str, str]:
    """Return the ids that are set."""
    return {name: value for name, value in _ids.get({}).items() if value is not None}
