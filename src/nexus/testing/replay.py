"""Replays recorded provider traffic over real HTTP: VCR cassettes (YAML) and single exchanges (JSON).

    with FakeUpstream(replay(load_cassette(path), cut=random.Random(1))) as upstream:
        ...   # a provider with base_url=upstream.url gets what was recorded, cut at random bytes

Requests are matched by the end of their path, in the order recorded, and the last match is repeated.
"""

from __future__ import annotations

import gzip
import json
import random
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import yaml

from nexus.testing.upstream import Answering, Script, Seen, chunked

_PASSED = ("content-type", "retry-after", "retry-after-ms", "x-request-id", "request-id")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One recorded request and its answer, bodies unpacked."""

    method: str
    url: str
    request: bytes
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """Return the path of the URL, without host and query."""
        return "/" + self.url.partition("://")[2].partition("/")[2].partition("?")[0]

    @property
    def streamed(self) -> bool:
        """Tell whether the answer was a stream of server-sent events."""
        kind = self.headers.get("content-type", "")
        return kind.startswith("text/event-stream") or self.body.lstrip().startswith((b"data:", b"event:"))


def _scalar(loader: yaml.SafeLoader, node: yaml.Node) -> str:
    return str(node.value)


# libyaml's reader where it is there: the same rules, ten times as fast.
_Safe: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Safe):  # type: ignore[misc,valid-type]  # either of the two
    """Reads plain data; recorders use a few tags beyond it."""


# A lone `=` is a YAML 1.1 "value", which has no Python form.
_Loader.add_constructor("tag:yaml.org,2002:value", _scalar)


def load_cassette(path: Path) -> list[Exchange]:
    """Read a recording. Raises ValueError for a file that is none."""
    text = path.read_text(encoding="utf-8")
    try:
        data = json.loads(text) if path.suffix == ".json" else yaml.load(text, _Loader)  # noqa: S506  a SafeLoader
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise ValueError(f"{path.name} is no recording") from error
    items = data.get("interactions", [data]) if isinstance(data, dict) else []
    exchanges = [_exchange(item) for item in items if isinstance(item, dict) and "request" in item]
    if not exchanges:
        raise ValueError(f"{path.name} has no exchange")
    return exchanges


def _exchange(item: dict[str, Any]) -> Exchange:
    asked, told = item["request"], item["response"]
    status = told.get("status", told.get("status_code", 200))
    headers = {
        str(name).lower(): str(value[0] if isinstance(value, list) and value else value)
        for name, value in (told.get("headers") or {}).items()
    }
    return Exchange(
        method=asked.get("method", "POST"),
        url=asked.get("uri") or asked.get("url") or "",
        request=_bytes(asked),
        status=int(status.get("code", 200) if isinstance(status, dict) else status),
        headers=headers,
        body=_bytes(told),
    )


def _bytes(side: dict[str, Any]) -> bytes:
    if side.get("parsed_body") is not None:
        return json.dumps(side["parsed_body"]).encode()
    body = side.get("body", side.get("content"))
    if isinstance(body, dict) and "string" in body:
        body = body["string"]
    if body is None:
        return b""
    if isinstance(body, dict | list):
        return json.dumps(body).encode()
    data = body if isinstance(body, bytes) else str(body).encode()
    if data.startswith(b"\x1f\x8b"):
        try:
            return gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError("a recorded body cannot be unpacked") from error
    return data


def replay(exchanges: list[Exchange], *, cut: random.Random | None = None) -> Answering:
    """Return what makes a `FakeUpstream` answer as recorded; with `cut`, streams are cut at random bytes."""
    used: set[int] = set()

    def answer(request: Seen) -> Script:
        tail = request.path.partition("?")[0].rpartition("/v1")[2]
        fitting = [i for i, exchange in enumerate(exchanges) if exchange.path.endswith(tail)]
        if not fitting:
            return Script((b"HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n",))
        chosen = next((i for i in fitting if i not in used), fitting[-1])
        used.add(chosen)
        return as_script(exchanges[chosen], cut=cut)

    return answer


def as_script(exchange: Exchange, *, cut: random.Random | None = None) -> Script:
    """Return the recorded answer as raw pieces."""
    head = [f"HTTP/1.1 {exchange.status} X"]
    head += [f"{name}: {exchange.headers[name]}" for name in _PASSED if name in exchange.headers]
    if not exchange.streamed:
        head.append(f"content-length: {len(exchange.body)}")
        return Script(("\r\n".join(head).encode() + b"\r\n\r\n" + exchange.body,))
    head.append("transfer-encoding: chunked")
    pieces: list[bytes | float | Literal["reset", "stall"]] = ["\r\n".join(head).encode() + b"\r\n\r\n"]
    pieces += [chunked(piece) for piece in _pieces(exchange.body, cut)]
    pieces.append(b"0\r\n\r\n")
    return Script(tuple(pieces))


def _pieces(body: bytes, cut: random.Random | None) -> list[bytes]:
    if cut is None:
        return [event + b"\n\n" for event in body.split(b"\n\n") if event]
    places = sorted({0, len(body), *(cut.randrange(len(body)) for _ in range(min(len(body) // 40 + 1, 200)))})
    return [body[start:end] for start, end in pairwise(places)]
