"""What a fake upstream sees, and what it sends: raw pieces of HTTP, with waits and accidents among them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote

Accident = Literal["reset", "stall"]
Piece = bytes | float | Accident

# Where wire formats name the model in the path: Gemini and Vertex, Bedrock, Azure. `/as/NAME/` in front
# of any path does the same for those that name none at all.
_IN_PATH = re.compile(r"/(?:as|models?|deployments)/([^/:?]+)")


@dataclass(slots=True)
class Seen:
    """One request as it arrived, and how it went. Times are `time.monotonic()`."""

    path: str
    headers: dict[str, str]
    body: bytes
    began: float = field(default_factory=time.monotonic)
    finished: bool = False
    closed: float | None = None
    method: str = "POST"

    @property
    def json(self) -> Any:
        """Return the body decoded. Raises ValueError for one that is no JSON."""
        return json.loads(self.body)

    @property
    def fields(self) -> dict[str, Any]:
        """Return the body decoded where it is a JSON object, else nothing."""
        try:
            body = json.loads(self.body or b"{}")
        except ValueError:
            return {}
        return body if isinstance(body, dict) else {}

    @property
    def route(self) -> str:
        """Return the path without its query."""
        return self.path.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """Return the query, the last of repeated names."""
        return dict(parse_qsl(self.path.partition("?")[2]))

    @property
    def model(self) -> str:
        """Return the model asked for: `/as/NAME/` in the path, a field of the body, or the path's own place for it."""
        found = _IN_PATH.search(self.route)
        given = self.fields.get("model")
        if isinstance(given, str) and given and not (found and found.group().startswith("/as/")):
            return given
        return unquote(found.group(1)) if found else ""

    @property
    def credential(self) -> str:
        """Return the credential that came with it, without its scheme; "" if there was none."""
        for name in ("authorization", "x-api-key", "api-key", "x-goog-api-key"):
            if value := self.headers.get(name):
                return value.rpartition("Bearer ")[2]
        return self.query.get("key", "")


@dataclass(frozen=True, slots=True)
class Script:
    """What to answer: raw pieces to send, with numbers (seconds to wait) and "reset" or "stall" among them.

    The connection is kept when the pieces end, or closed with `close`.
    """

    pieces: tuple[Piece, ...]
    close: bool = False


Answering = Callable[[Seen], Script]


def response(status: int, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    """Return a whole HTTP answer; each of `headers` is a line."""
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def stream_head(kind: str = "text/event-stream") -> bytes:
    """Return the head of a chunked stream."""
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()


def chunked(data: bytes) -> bytes:
    """Wrap one piece for chunked transfer."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def streamed(pieces: Iterable[bytes], *, kind: str = "text/event-stream", gap: float = 0.0) -> Script:
    """Return a script that streams these pieces, `gap` seconds apart."""
    out: list[Piece] = [stream_head(kind)]
    for piece in pieces:
        out += [chunked(piece), gap] if gap else [chunked(piece)]
    return Script((*out, b"0\r\n\r\n"))
