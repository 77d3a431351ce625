"""Reads recorded HTTP traffic: VCR cassettes (Python's, Go's, LangChain's; YAML or JSON), single exchanges, HAR files.

What recorders do to bodies is undone: base64, gzip, deflate, `parsed_body`, odd YAML tags.
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

_GZIP = b"\x1f\x8b"
_SUFFIXES = (".yaml", ".yml", ".json", ".har", ".gz")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One recorded request and its answer, bodies unpacked, header names in lower case."""

    method: str
    url: str
    request: bytes
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """Return the path of the URL, without host, query and fragment."""
        return urlsplit(self.url).path or "/"

    @property
    def query(self) -> str:
        """Return the query of the URL."""
        return urlsplit(self.url).query

    @property
    def streamed(self) -> bool:
        """Tell whether the answer was a stream of server-sent events."""
        kind = self.headers.get("content-type", "")
        return kind.startswith("text/event-stream") or self.body.lstrip().startswith((b"data:", b"event:"))

    @property
    def framed(self) -> bool:
        """Tell whether the answer was a stream of binary frames."""
        return "eventstream" in self.headers.get("content-type", "")

    @property
    def fields(self) -> dict[str, Any]:
        """Return the request's body where it is a JSON object, else nothing."""
        try:
            body = json.loads(self.request or b"{}")
        except ValueError:
            return {}
        return body if isinstance(body, dict) else {}


@dataclass(slots=True)
class Recordings:
    """What was found in files: exchanges in order, how many of each file, and why a file was left out."""

    exchanges: list[Exchange] = field(default_factory=list)
    files: dict[Path, int] = field(default_factory=dict)
    left_out: dict[Path, str] = field(default_factory=dict)


def load(paths: Iterable[Path]) -> Recordings:
    """Read files, and all recordings below folders. What cannot be read is in `left_out`, with the reason."""
    found = Recordings()
    for path in _files(paths):
        try:
            exchanges = load_cassette(path)
        except (ValueError, OSError) as error:
            found.left_out[path] = str(error)
            continue
        found.exchanges += exchanges
        found.files[path] = len(exchanges)
    return found


def load_cassette(path: Path) -> list[Exchange]:
    """Read a recording. Raises ValueError for a file that is none."""
    data = path.read_bytes()
    if data.startswith(_GZIP):
        data = _unpacked(data, gzip.decompress)
    try:
        text = data.decode()
        content = json.loads(text) if text.lstrip()[:1] in ("{", "[") else yaml.load(text, _Loader)  # noqa: S506  safe
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path.name} is no recording: {str(error)[:200]}") from error
    exchanges = [_exchange(asked, told) for asked, told in _pairs(content)]
    if not exchanges:
        raise ValueError(f"{path.name} has no exchange")
    return exchanges


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(item for item in path.rglob("*") if item.suffix in _SUFFIXES and item.is_file())
        else:
            yield path


def _scalar(loader: yaml.SafeLoader, node: yaml.Node) -> str:
    return str(node.value)


# libyaml's reader where it is there: the same rules, ten times as fast.
_Safe: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Safe):  # type: ignore[misc,valid-type]  # either of the two
    """Reads plain data; recorders use a few tags beyond it."""


# A lone `=` is a YAML 1.1 "value", which has no Python form; dates would not survive being written again.
_Loader.add_constructor("tag:yaml.org,2002:value", _scalar)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _scalar)


def _pairs(content: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield requests and responses, however the file arranges them."""
    if not isinstance(content, dict):
        return
    entries = (content.get("log") or {}).get("entries") if isinstance(content.get("log"), dict) else None
    if entries is None and isinstance(content.get("requests"), list):  # LangChain's: two lists side by side
        both = zip(content["requests"], content.get("responses") or [], strict=False)
        entries = [{"request": asked, "response": told} for asked, told in both]
    for item in content.get("interactions", [content]) if entries is None else entries:
        if isinstance(item, dict) and isinstance(item.get("request"), dict) and isinstance(item.get("response"), dict):
            yield item["request"], item["response"]


def _exchange(asked: dict[str, Any], told: dict[str, Any]) -> Exchange:
    headers = _headers(told.get("headers"))
    return Exchange(
        method=str(asked.get("method", "POST")).upper(),
        url=str(asked.get("uri") or asked.get("url") or ""),
        request=_body(asked, _headers(asked.get("headers"))),
        status=_status(told),
        headers=headers,
        body=_body(told, headers),
    )


def _status(told: dict[str, Any]) -> int:
    """Read `{"code": 200}`, `200`, or Go's `"200 OK"` with the number beside it."""
    status = told.get("status", told.get("status_code", 200))
    if isinstance(status, dict):
        status = status.get("code", 200)
    number = str(told.get("code", status) if isinstance(status, str) else status).partition(" ")[0]
    if not number.isdecimal():
        raise ValueError(f"the status {status!r} is no number")
    return int(number)


def _headers(given: Any) -> dict[str, str]:
    """Read headers: names to values or lists of them, or HAR's list of pairs."""
    if isinstance(given, list):
        return {str(item["name"]).lower(): str(item["value"]) for item in given if isinstance(item, dict)}
    pairs = (given or {}).items()
    return {str(k).lower(): str(v[0] if isinstance(v, list) and v else v) for k, v in pairs if v != []}


def _body(side: dict[str, Any], headers: dict[str, str]) -> bytes:
    if side.get("parsed_body") is not None:
        return json.dumps(side["parsed_body"]).encode()
    body: Any = side.get("body", side.get("content", side.get("postData")))
    if isinstance(body, dict) and ("string" in body or "base64_string" in body):
        body = body["string"] if "string" in body else base64.b64decode(body["base64_string"])
    elif isinstance(body, dict) and "text" in body and "mimeType" in body:  # HAR
        body = base64.b64decode(body["text"]) if body.get("encoding") == "base64" else body["text"]
    if body is None:
        return b""
    if isinstance(body, dict | list):
        return json.dumps(body).encode()
    data = body if isinstance(body, bytes) else str(body).encode()
    if data.startswith(_GZIP):
        return _unpacked(data, gzip.decompress)
    if headers.get("content-encoding") == "deflate" and data[:1] == b"\x78":
        return _unpacked(data, zlib.decompress)
    return data


def _unpacked(data: bytes, unpack: Any) -> bytes:
    try:
        return bytes(unpack(data))
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError("a recorded body cannot be unpacked") from error
