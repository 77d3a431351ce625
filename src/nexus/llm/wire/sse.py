"""Server-sent events, read as they come.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html. Bytes may be cut anywhere, inside a
character too: nothing is decoded before an event is whole. Beyond the specification it takes what real
servers send: a last event without its blank line, and events of one JSON line each with no blank line
between them.
"""

from __future__ import annotations

import re

from nexus.llm.errors import UpstreamMalformed

_BOM = b"\xef\xbb\xbf"
_BEGINNING = len(b"\nevent:")
# A whole one-line JSON event (or the end mark) directly followed by the next one; a name may stand behind its data.
_UNSEPARATED = re.compile(rb"(?:data: ?(?:\{.*\}|\[DONE\]))[ ]*\n(?=data:|event:[^\n]*\ndata:)")


class EventSplitter:
    """Cuts a byte stream into raw events, each without its closing blank line, line ends made LF."""

    __slots__ = ("_after_cr", "_begun", "_held", "_limit", "_more", "_size")

    def __init__(self, limit: int = 4_000_000) -> None:
        """Hold back at most `limit` bytes of an unfinished event."""
        self._held = b""
        self._more: list[bytes] = []
        self._size = 0
        self._limit = limit
        self._begun = False
        self._after_cr = False

    def takes_plainly(self, data: bytes) -> list[bytes] | None:
        """Return the events of `data` where all are whole and have one line each, without their line ends.

        None for other data, which has to be fed then. What the lines are, data or a comment, is not looked at.
        """
        if self._held or self._after_cr or data.find(b"\r") >= 0 or data[-3:] != b"}\n\n" or not _is_text(data):
            return None
        if not self._begun:
            if not data.startswith(b"data:"):
                return None  # perhaps a mark of byte order
            self._begun = True
        lines = data.split(b"\n")
        return None if any(lines[1::2]) else lines[:-1:2]

    @property
    def between(self) -> bool:
        """Tell whether an event begins with what comes next."""
        return self._begun and not self._held and not self._after_cr

    @property
    def held(self) -> bytes:
        """Return the bytes of the event that is not whole yet."""
        return b"".join((self._held, *self._more))

    def feed(self, data: bytes) -> list[bytes]:
        """Return the events that `data` completes. Raises `UpstreamMalformed` for one beyond the limit."""
        if self._begun and not self._held and not self._after_cr and data.endswith(b"\n\n") and b"\r" not in data:
            lines = data.count(b"\n") - 1
            if (lines == 1 and data.startswith(b"data:")) or (lines == 2 and data.startswith(b"event:")):
                # One event, as most reads of most streams are.
                return [data[:-2]] if data.isascii() else _cleaned([data[:-2]])
        if not self._begun and data:
            data = self._first(data)
        if self._after_cr or b"\r" in data:
            data = self._line_feeds(data)
        if self._held:
            if self._only_lengthens(data):
                self._more.append(data)
                self._check(self._size + len(data))
                return []
            data = b"".join((self._held, *self._more, data))
            self._more.clear()
        *events, self._held = data.split(b"\n\n")
        if data.count(b"\ndata:") > data.count(b"\n\ndata:"):
            events = [part for event in events for part in _separate(event)]
            *more, self._held = _separate(self._held)
            events += more
        self._check(len(self._held))
        return [event for event in events if event] if data.isascii() and not _resumes(data) else _cleaned(events)

    def end(self) -> list[bytes]:
        """Return the last event if it lacked only its blank line."""
        last, self._held = self.held.strip(b"\n"), b""
        self._more.clear()
        return _cleaned(_separate(last))

    def _only_lengthens(self, data: bytes) -> bool:
        """Tell whether `data` neither ends a line nor begins one: of a picture, no part is looked at twice."""
        return b"\n" not in data and (bool(self._more) or b"\n" not in self._held[-_BEGINNING:])

    def _check(self, size: int) -> None:
        self._size = size
        if size > self._limit:
            raise UpstreamMalformed("The provider sent an event that is too large.")

    def _first(self, data: bytes) -> bytes:
        data, self._held = self._held + data, b""
        if _BOM.startswith(data[:3]) and len(data) < 3:
            self._held = data
            return b""
        self._begun = True
        return data[3:] if data.startswith(_BOM) else data

    def _line_feeds(self, data: bytes) -> bytes:
        """Make CRLF and CR one LF each, also when a CRLF is cut in two."""
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _is_text(data: bytes) -> bool:
    """Tell whether `data` is UTF-8, whole."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _resumes(data: bytes) -> bool:
    """Tell whether there are lines that serve to resume a stream, which clients of ours cannot."""
    return data.startswith((b"id:", b"retry:")) or b"\nid:" in data or b"\nretry:" in data


def _cleaned(events: list[bytes]) -> list[bytes]:
    """Return the events without lines to resume by, some of which stop clients. Raises for what is no UTF-8."""
    found = []
    for event in events:
        if not event.isascii():
            try:
                event.decode()
            except UnicodeDecodeError:
                raise UpstreamMalformed from None
        if _resumes(event):
            event = b"\n".join(line for line in event.split(b"\n") if not line.startswith((b"id:", b"retry:")))
        if event:
            found.append(event)
    return found


def _separate(event: bytes) -> list[bytes]:
    """Cut off the whole one-line events at the front of `event`; what is left, perhaps nothing, comes last."""
    if not event.startswith(b"data:"):
        return [event]
    parts = []
    while found := _UNSEPARATED.match(event):
        parts.append(found.group().rstrip(b" \n"))
        event = event[found.end() :]
    return [*parts, event]


def data_of(event: bytes) -> bytes | None:
    """Return the data of a raw event, its lines joined by LF; None when it has no data (comments, names)."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    if event.startswith(b"event:") and event.count(b"\n") == 1:
        data = event[event.index(b"\n") + 1 :]
        if data.startswith(b"data: "):
            return data[6:]
    lines = []
    for line in event.split(b"\n"):
        if line.startswith(b"data:"):
            lines.append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line == b"data":
            lines.append(b"")
    return b"\n".join(lines) if lines else None


def name_of(event: bytes) -> bytes | None:
    """Return the `event:` name of a raw event, or None."""
    name = None
    for line in event.split(b"\n"):
        if line.startswith(b"event:"):
            name = line[7:] if line.startswith(b"event: ") else line[6:]
    return name
