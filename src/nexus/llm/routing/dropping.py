"""What may be left out of a request that a model cannot take, on routes whose owner has said so. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from nexus.llm.errors import Unsupported
from nexus.llm.types import Call

R = TypeVar("R")
Headers = tuple[tuple[bytes, bytes], ...]
"""Lines of an answer."""

_HEADER = b"x-nexus-dropped"


def dropped_in(headers: Headers) -> bytes:
    """Return what the lines of an answer say was left out, nothing where they do not."""
    for name, value in headers:
        if name == _HEADER:
            return value
    return b""


def telling(headers: Headers, dropped: bytes) -> Headers:
    """Return the lines of an answer with what was left out in the place of what they said before."""
    rest = tuple(line for line in headers if line[0] != _HEADER)
    return (*rest, (_HEADER, dropped)) if dropped else rest


def with_less(write: Callable[[Call], R], call: Call, droppable: Sequence[str]) -> tuple[R, list[str]]:
    """Return what `write` makes of a call, and the fields that had to be left out for it.

    Raises `Unsupported` for a field that is not `droppable`.
    """
    dropped: list[str] = []
    while True:
        try:
            return write(call), dropped
        except Unsupported as error:
            if error.field is None or error.field not in droppable or error.field in dropped:
                raise
            dropped.append(error.field)
            call = _without(call, error.field)


def _without(call: Call, field: str) -> Call:
    request = call.parse()
    if field in request.extra:
        extra = {name: value for name, value in request.extra.items() if name != field}
        less = msgspec.structs.replace(request, extra=extra)
    else:
        less = msgspec.structs.replace(request, **{field: None})
    return msgspec.structs.replace(call, parse=lambda: less)
