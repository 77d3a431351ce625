"""Heads of requests that a connection has seen before: clients send the same one again and again, but for its length.

What `httptools` has read once need not be read again: a request whose head is the same, byte for byte but for the
digits of its Content-Length, means the same. Layers keep what they found out of it by `nexus.known` in the scope.
"""

from __future__ import annotations

from typing import Any, Final

from nexus.http.cycle import Cycle
from nexus.http.protocol import BoundedProtocol
from nexus.http.types import KNOWN, LENGTH, SHORT_WAYS, RawHeaders, Scope

_LENGTH: Final = b"content-length"
_FRAMING: Final = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"trailer"})
_DIGITS: Final = 10
_LEARNT: Final = 8
"""So many heads are learnt on a connection at the most: one that always sends others would gain nothing."""
_LARGEST: Final = 8192
"""Larger heads are not kept: there may be thousands of connections."""
_OF_ONE_REQUEST: Final = frozenset({"state", *SHORT_WAYS})


class KnownHead:
    """One head of a POST with a body of known length on a connection that stays open."""

    __slots__ = ("_after", "_at", "_before", "_headers", "_length", "_place", "_scope", "url")

    def __init__(self, head: bytes, at: int, end: int, place: int, url: bytes, scope: Scope) -> None:
        """Take a head whose length stands from `at` to `end`; see `learn`."""
        self._before, self._length, self._after, self._at = head[:at], head[at:end], head[end:], at
        self._place = place
        self._headers: RawHeaders = scope["headers"]
        self._scope = {name: value for name, value in scope.items() if name not in _OF_ONE_REQUEST}
        self._scope["nexus.headers"] = dict(self._headers)
        self.url = url

    def match(self, data: bytes) -> tuple[dict[str, Any], int] | None:
        """Return the scope of a request that begins with this head, and where its body begins."""
        at = self._at
        if not data.startswith(self._before):
            return None
        end = data.find(b"\r", at, at + _DIGITS + 1)
        length = data[at:end]
        if end < 0 or not length.isdigit() or not data.startswith(self._after, end):
            return None
        scope = self._scope.copy()
        scope[KNOWN], scope[LENGTH] = self._scope, int(length)
        if length != self._length:
            headers = scope["headers"] = self._headers.copy()
            headers[self._place] = (_LENGTH, length)
            scope["nexus.headers"] = scope["nexus.headers"] | {_LENGTH: length}
        return scope, end + len(self._after)


def learn(data: bytes, url: bytes, scope: Scope) -> KnownHead | None:
    """Return the head at the beginning of `data`, which was understood as `scope`; None for one not to be known again.

    Only a head that is plain is learnt: what this simple reading finds in it must be what the parser found.
    """
    end = data.find(b"\r\n\r\n", 0, _LARGEST)
    if end < 0 or scope["method"] != "POST" or scope["http_version"] != "1.1":
        return None
    head = data[: end + 4]
    first, *lines = head[:end].split(b"\r\n")
    read = [(name.lower(), value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]
    names = [name for name, _ in read]
    if first != b"POST %s HTTP/1.1" % url or read != scope["headers"]:
        return None
    if names.count(_LENGTH) != 1 or not _FRAMING.isdisjoint(names):
        return None
    if any(name == b"connection" and value.lower() != b"keep-alive" for name, value in read):
        return None
    place = names.index(_LENGTH)
    line_at = len(first) + 2 + sum(len(line) + 2 for line in lines[:place])
    at = line_at + len(lines[place]) - len(lines[place].partition(b":")[2].lstrip(b" \t"))
    length = read[place][1]
    if not length.isdigit() or head[at : at + len(length)] != length or head[at + len(length)] != ord("\r"):
        return None
    return KnownHead(head, at, at + len(length), place, url, scope)


class KnowingProtocol(BoundedProtocol):
    """A `BoundedProtocol` that has requests answered whose heads are known without reading them again."""

    __slots__ = ("_due", "_known", "_strange")

    def __init__(self, *given: Any, **named: Any) -> None:
        """Know nothing yet."""
        super().__init__(*given, **named)
        self._known: KnownHead | None = None
        self._strange = self._due = 0

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget."""
        self._known = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a request whose head is known, or have it parsed."""
        if self._due:
            data = self._take_due(data)
        begins = self._in_headers and not self._begun and self._header_bytes == 0
        if begins and self._known is not None and (self._serving is None or self._serving.complete):
            data = self._take_known(self._known, data)
        if data:
            before = self._cycle
            super().data_received(data)
            if begins and self._cycle is not before and self._cycle is not None:
                self._learn(data, self._cycle)

    def _learn(self, data: bytes, cycle: Cycle) -> None:
        """Know the head of this request again, if it is not the connection's only one."""
        if 0 < self._strange <= _LEARNT and cycle.keep_alive:
            self._known = learn(data, self._url, cycle.scope)
        self._strange += 1

    def _take_known(self, known: KnownHead, data: bytes) -> bytes:
        """Have a request answered whose head is known; return what of `data` is left for the parser."""
        found = known.match(data)
        if found is None or len(self._connections) > self._limits.connections or self.transport.is_closing():
            return data
        if self.clock is not None:
            self.stop_clock()
        scope, begin = found
        self._url = known.url
        scope["state"] = self._shared.copy()
        end = begin + scope[LENGTH]
        body = data[begin:end] if len(data) >= end else None
        cycle = self._cycle = Cycle(self, scope, keep_alive=True, expects_continue=False, body=body)
        self._serve(cycle, self.app)
        if body is not None:
            return data[end:]
        self._begun, self._in_headers, self._due, self._body_bytes = True, False, scope[LENGTH], 0
        return self._take_due(data[begin:])

    def _take_due(self, data: bytes) -> bytes:
        """Take what is due of the body behind a known head; return what comes after it."""
        piece = data[: self._due]
        self._due -= len(piece)
        if piece:
            self.on_body(piece)
        if not self._due:
            self.on_message_complete()
        elif self.transport.is_closing():
            self.stop_clock()
        else:
            self._watch_body(len(piece))
        return data[len(piece) :]
