"""Where in a trace we are, as W3C trace context tells it (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

import re
from functools import partial
from random import getrandbits
from typing import Final, NamedTuple

import msgspec

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_BITS: Final = 128 + 64


class TraceContext(NamedTuple):
    """Where in a trace we are."""

    trace_id: str
    span_id: str
    sampled: bool = False

    @property
    def header(self) -> str:
        """The `traceparent` that a callee gets."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def parse_traceparent(value: str) -> TraceContext | None:
    """Read a `traceparent` header; None when it is not valid, as the specification asks."""
    match = _TRACEPARENT.fullmatch(value.strip())
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return None
    if set(match[2]) == {"0"} or set(match[3]) == {"0"}:
        return None
    return TraceContext(match[2], match[3], bool(int(match[4], 16) & 1))


fresh_bits: Final = partial(getrandbits, _BITS)
"""Returns what ids of a trace and a span are made of. They have to be unique, not secret: no system call."""


def child_of(parent: TraceContext | None, *, sampled: bool = False, bits: int | None = None) -> TraceContext:
    """Return a new span's context below `parent`, or the start of a new trace; the same for the same `bits`."""
    fresh = f"{fresh_bits() if bits is None else bits:048x}"
    if parent is not None:
        return TraceContext(parent.trace_id, fresh[32:], parent.sampled)
    return TraceContext(fresh[:32], fresh[32:], sampled)


class Entered(msgspec.Struct, frozen=True, gc=False):
    """A request as it came in. Its place in a trace is worked out when somebody asks, and always the same."""

    request_id: str
    traceparent: bytes | None
    bits: int

    def place(self) -> TraceContext:
        """Return where the request is: in its caller's trace, or at the start of a new one."""
        parent = parse_traceparent(self.traceparent.decode("latin-1")) if self.traceparent else None
        return child_of(parent, bits=self.bits)

    def ids(self) -> dict[str, str | None]:
        """Return the ids that its log lines carry."""
        trace_id, span_id, _ = self.place()
        return {"request_id": self.request_id, "trace_id": trace_id, "span_id": span_id}
