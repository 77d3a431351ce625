"""Replays recorded provider traffic over real HTTP.

    with ReplayServer([folder], cut=random.Random(1)) as upstream:
        ...   # a provider with base_url=upstream.url gets what was recorded, cut at random bytes

A request is answered by an exchange of the same method and path form: first one with the very same body, else
the unused one that resembles it most; once all are used, the best fitting one again.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from nexus.testing.recordings import Exchange, Recordings, load, load_cassette
from nexus.testing.script import Answering, Piece, Script, Seen, chunked, response
from nexus.testing.upstream import FakeUpstream

__all__ = ["Exchange", "Recordings", "ReplayServer", "as_script", "load", "load_cassette", "replay"]

# Of the connection, not of the answer; bodies are unpacked already.
_DROPPED = {
    "connection", "content-encoding", "content-length", "keep-alive", "set-cookie", "trailer", "transfer-encoding",
}  # fmt: skip
# What a gateway adds to or changes in a request on its way.
_CHANGED = ("model", "stream_options")


class ReplayServer(FakeUpstream):
    """A server that answers as recorded in these files and folders; `recordings` tells what was left out."""

    def __init__(
        self, paths: Iterable[Path], *, cut: random.Random | None = None, gap: float = 0.0, **more: Any
    ) -> None:
        """Read everything now. With `cut`, streams are cut at random bytes, their pieces `gap` seconds apart."""
        self.recordings = load(paths)
        super().__init__(replay(self.recordings.exchanges, cut=cut, gap=gap), **more)


def replay(exchanges: list[Exchange], *, cut: random.Random | None = None, gap: float = 0.0) -> Answering:
    """Return what makes a `FakeUpstream` answer as recorded; with `cut`, streams are cut at random bytes."""
    used: set[int] = set()
    places: dict[tuple[str, str], list[int]] = {}
    for index, exchange in enumerate(exchanges):
        places.setdefault((exchange.method, form(exchange.path)), []).append(index)

    def answer(request: Seen) -> Script:
        fitting = places.get((request.method, form(request.route)), [])
        if not fitting:
            told = {"error": {"message": f"Nothing is recorded for {request.method} {request.route}.", "code": 404}}
            return Script((response(404, json.dumps(told).encode()),))
        chosen = max(fitting, key=lambda index: _rank(request, exchanges[index], unused=index not in used))
        used.add(chosen)
        return as_script(exchanges[chosen], cut=cut, gap=gap)

    return answer


def form(path: str) -> str:
    """Return what tells endpoints apart, whatever stands before it: `chat/completions`, `:generateContent` ..."""
    parts = [unquote(part) for part in path.split("/") if part]
    if not parts:
        return "/"
    last = parts[-1]
    if ":" in last and parts[-2:-1] != ["model"]:
        return ":" + last.rpartition(":")[2]
    if parts[-2:] == ["chat", "completions"] or parts[-2:-1] in (["responses"], ["models"], ["files"]):
        return "/".join(parts[-2:])
    if "threads" in parts:
        return "/".join(parts[parts.index("threads") :])
    return last


def _rank(request: Seen, exchange: Exchange, *, unused: bool) -> tuple[bool, bool, float]:
    """Rank an exchange: the very same body, not used yet, alike. The first of equals wins."""
    asked, recorded = request.fields, exchange.fields
    if request.body == exchange.request or _core(asked) == _core(recorded):
        return True, unused, 1.0
    same_stream = (request.query.get("alt") == "sse") == ("alt=sse" in exchange.query)
    mine, theirs = set(_leaves(asked)), set(_leaves(recorded))
    alike = len(mine & theirs) / max(1, len(mine | theirs))
    return False, unused, alike + same_stream


def _core(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in _CHANGED}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}/{name}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}/{index}")
    else:
        yield path, str(value)


def as_script(exchange: Exchange, *, cut: random.Random | None = None, gap: float = 0.0) -> Script:
    """Return the recorded answer as raw pieces: a stream in its events, frames or random cuts, else whole."""
    head = [f"HTTP/1.1 {exchange.status} X"]
    for name, value in exchange.headers.items():
        if name not in _DROPPED and value.isprintable() and value.isascii():
            head.append(f"{name}: {value}")
    streamed = exchange.streamed or exchange.framed or "stream" in form(exchange.path).lower()
    if not streamed or not exchange.body:
        head.append(f"content-length: {len(exchange.body)}")
        return Script(("\r\n".join(head).encode() + b"\r\n\r\n" + exchange.body,))
    head.append("transfer-encoding: chunked")
    pieces: list[Piece] = ["\r\n".join(head).encode() + b"\r\n\r\n"]
    for piece in _pieces(exchange, cut):
        pieces += [chunked(piece), gap] if gap else [chunked(piece)]
    return Script((*pieces, b"0\r\n\r\n"))


def _pieces(exchange: Exchange, cut: random.Random | None) -> list[bytes]:
    body = exchange.body
    if cut is not None:
        places = sorted({0, len(body), *(cut.randrange(len(body)) for _ in range(min(len(body) // 40 + 1, 200)))})
        return [body[start:end] for start, end in pairwise(places)]
    if exchange.framed:
        return list(_frames(body))
    return [event + b"\n\n" for event in body.split(b"\n\n") if event] if exchange.streamed else [body]


def _frames(body: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(body):
        size = struct.unpack_from("!I", body, start)[0] if len(body) - start >= 4 else 0
        end = start + size if size >= 16 else len(body)
        yield body[start:end]
        start = end
