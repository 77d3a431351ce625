"""Gemini's streams cut into pieces: server-sent events, or one JSON array that grows element by element.

Google sends events for `?alt=sse` and the array otherwise; what came is told by its first byte. Bytes may be
cut anywhere, inside a character too.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from nexus.llm.errors import UpstreamMalformed
from nexus.llm.wire.sse import EventSplitter, data_of

# Events carry whole pictures.
_LIMIT = 64_000_000
_OUTSIDE = re.compile(rb'["{}\[\]]')
_INSIDE = re.compile(rb'["\\]')


class Piece(NamedTuple):
    """One answer of a stream: its JSON, and the event that brought it (empty in an array)."""

    data: bytes
    event: bytes = b""


class PieceSplitter:
    """Cuts a stream of either kind. `closed` is set once an array has ended."""

    __slots__ = ("_array", "_begun", "_events")

    def __init__(self) -> None:
        """Know nothing of the kind yet."""
        self._begun = False
        self._events = EventSplitter(_LIMIT)
        self._array: _ArraySplitter | None = None

    @property
    def closed(self) -> bool:
        """Tell whether an array has come to its proper end."""
        return self._array is not None and self._array.closed

    def feed(self, data: bytes) -> list[Piece]:
        """Return the pieces that `data` completes. Raises `UpstreamMalformed` for one beyond the limit."""
        if not self._begun and (first := data.lstrip()):
            self._begun = True
            if first.startswith((b"[", b"{")):
                self._array = _ArraySplitter()
        if self._array is not None:
            return [Piece(element) for element in self._array.feed(data)]
        return _pieces(self._events.feed(data))

    def end(self) -> list[Piece]:
        """Return the last event if it lacked only its blank line."""
        return [] if self._array is not None else _pieces(self._events.end())


def _pieces(events: list[bytes]) -> list[Piece]:
    found = []
    for event in events:
        data = data_of(event)
        if data is None and event.lstrip().startswith(b"{"):
            data = event  # an error in the middle of a stream may come without its `data:`
        if data is not None:
            found.append(Piece(data, event))
    return found


class _ArraySplitter:
    """Finds the whole objects of a JSON array, or one object without an array around it."""

    __slots__ = ("_depth", "_held", "_in_array", "_in_string", "_place", "_start", "closed")

    def __init__(self) -> None:
        self._held = bytearray()
        self._place = 0
        self._start = 0
        self._depth = 0
        self._in_array = False
        self._in_string = False
        self.closed = False

    def feed(self, data: bytes) -> list[bytes]:
        held = self._held
        held += data
        place, found = self._place, []
        while not self.closed and (mark := (_INSIDE if self._in_string else _OUTSIDE).search(held, place)):
            sign, place = bytes(mark.group()), mark.end()
            if self._in_string:
                if sign == b'"':
                    self._in_string = False
                elif place == len(held):
                    place = mark.start()  # what is escaped has not come yet
                    break
                else:
                    place += 1
            elif sign == b'"':
                self._in_string = True
            elif (element := self._bracket(sign, held, place)) is not None:
                found.append(element)
        else:
            place = len(held)
        kept = self._start if self._depth else place
        del held[:kept]
        self._place, self._start = place - kept, 0
        if len(held) > _LIMIT:
            raise UpstreamMalformed("The provider sent an event that is too large.")
        return found

    def _bracket(self, sign: bytes, held: bytearray, place: int) -> bytes | None:
        """Go one level down or up; return the object that is whole now."""
        if sign == b"[" and not self._in_array and not self._depth:
            self._in_array = True
        elif sign in b"{[":
            if not self._depth:
                self._start = place - 1
            self._depth += 1
        elif self._depth:
            self._depth -= 1
            if not self._depth:
                self.closed = not self._in_array
                return bytes(held[self._start : place])
        else:
            self.closed = True
        return None
