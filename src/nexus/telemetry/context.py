"""The ids of what is being done right now, carried by context variables into every log line and span."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from nexus.telemetry.traceparent import Entered

_ids: ContextVar[dict[str, str | None] | Entered | None] = ContextVar("nexus_ids", default=None)
"""A request as it came in, or the ids `request_id`, `trace_id`, `span_id`, `project_id`, `run_id`; never changed."""

become: Final = _ids.set
"""Sets exactly the ids of a request that came in for the rest of the present task: those of an earlier one are gone."""

here: Final = _ids.get
"""Returns the request whose ids are the present ones; where others have been set since, those; None without any."""


def bind(**ids: str | None) -> None:
    """Set ids for the rest of the present task: `bind(project_id="prj_..")`."""
    _ids.set({**_present(), **ids})


def bind_request_id(request_id: str) -> None:
    """Set the request id and forget the ids of an earlier request on the same connection."""
    kept = _present()
    _ids.set({"trace_id": kept.get("trace_id"), "span_id": kept.get("span_id"), "request_id": request_id})


@contextmanager
def bound(**ids: str | None) -> Iterator[None]:
    """Set ids for the length of a block."""
    token = _ids.set({**_present(), **ids})
    try:
        yield
    finally:
        _ids.reset(token)


def ids() -> dict[str, str | None]:
    """Return the ids as they stand, those that are None too; not to be changed."""
    return _present()


def current() -> dict[str, str]:
    """Return the ids that are set."""
    return {name: value for name, value in _present().items() if value is not None}


def _present() -> dict[str, str | None]:
    found = _ids.get()
    if found is None:
        return {}
    return found.ids() if isinstance(found, Entered) else found
