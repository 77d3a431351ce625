"""One request and its answer on a connection: uvicorn's cycle, with an answer's head and first bytes in one write.

Header lines are checked once and remembered, since most answers carry the same ten; and nothing goes to the socket
before there is a body or the loop has turned, which spares every short answer a system call and its reader a wake-up.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from nexus.http.types import Message

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NO_VALUE: Final = bytes(byte for byte in range(32) if byte != 9) + b"\x7f"
_VALUE: Final = bytes(byte for byte in range(256) if byte not in _NO_VALUE)
_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding", b"connection"))
_UNIQUE: Final = (
    *(b"x-request-id", b"request-id", b"x-nexus-", b"x-ratelimit-", b"ratelimit", b"anthropic-ratelimit-"),
    *(b"date", b"etag", b"location"),
)
"""How the names of headers begin whose values do not come again."""

_REMEMBERED: Final = 512
_SHORT: Final = 256
_lines: dict[tuple[bytes, bytes], bytes] = {}
_names: set[bytes] = set()


class Cycle(RequestResponseCycle):
    """The `receive` and `send` of one request."""

    loop: asyncio.AbstractEventLoop
    _head: bytes = b""
    _until_close = False

    async def send(self, message: Message) -> None:  # type: ignore[override]
        """Take a piece of the answer. Raises RuntimeError for one that breaks HTTP or ASGI."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if not self.response_started:
            if kind != "http.response.start":
                raise RuntimeError(f"an answer begins with http.response.start, not {kind}")
            self._begin(message)
        elif self.response_complete:
            raise RuntimeError("the answer is complete")
        elif kind != "http.response.body":
            raise RuntimeError(f"an answer goes on with http.response.body, not {kind}")
        else:
            self._go_on(message.get("body", b""), more=message.get("more_body", False))

    def _begin(self, message: Message) -> None:
        """Prepare the head; it is written with the first bytes of the body, or when the loop turns."""
        self.response_started = True
        self.waiting_for_100_continue = False
        status = message["status"]
        lines, closes = [STATUS_LINE[status]], False
        for item in (*self.default_headers, *message.get("headers", ())):
            line = _lines.get(item)
            if line is None:
                line, name = _line(item), item[0].lower()
                if name in _FRAMING:
                    closes = self._frame(name, item[1]) or closes
            lines.append(line)
        if not self.keep_alive and not closes:
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in (204, 304):
            if self.scope["http_version"] == "1.0":
                # Such a client knows no chunks; its connection is closed after the answer.
                self._until_close = True
            else:
                self.chunked_encoding = True
                lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        self._head = b"".join(lines)
        if self.chunked_encoding is not False:
            # How soon bytes follow is not known, and a client of a stream waits for its head.
            self.loop.call_soon(self._write_head)

    def _frame(self, name: bytes, value: bytes) -> bool:
        """Note how the body is framed; True for a header that ends the connection."""
        if name == b"content-length":
            if self.chunked_encoding is None:
                self.expected_content_length = int(value)
                self.chunked_encoding = False
        elif name == b"transfer-encoding":
            if value.lower() == b"chunked":
                self.expected_content_length, self.chunked_encoding = 0, True
        elif b"close" in [token.strip() for token in value.lower().split(b",")]:
            self.keep_alive = False
            return True
        return False

    def _write_head(self) -> None:
        if self._head and not self.disconnected:
            head, self._head = self._head, b""
            self.transport.write(head)

    def _go_on(self, body: bytes, *, more: bool) -> None:
        head, self._head = self._head, b""
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            out = head
        elif self.chunked_encoding:
            out = b"%s%x\r\n%s\r\n" % (head, len(body), body) if body else head
            if not more:
                out += b"0\r\n\r\n"
        elif self._until_close:
            out = head + body
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("the body is longer than its Content-Length")
            if not more and self.expected_content_length:
                raise RuntimeError("the body is shorter than its Content-Length")
            out = head + body
        if out:
            self.transport.write(out)
        if not more:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()


def _line(item: tuple[bytes, bytes]) -> bytes:
    """Return a header as it is written, checked. Raises RuntimeError."""
    name, value = item
    if value.translate(None, _VALUE):
        raise RuntimeError("a header is not valid")
    line = b"%s: %s\r\n" % (name, value)
    if name in _names:
        return line
    if not _NAME.fullmatch(name):
        raise RuntimeError("a header is not valid")
    lower = name.lower()
    if lower in _FRAMING or lower.startswith(_UNIQUE):
        if len(_names) < _REMEMBERED:
            _names.add(name)
    elif len(_lines) < _REMEMBERED and len(line) < _SHORT:
        _lines[item] = line
    return line
