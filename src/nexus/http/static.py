"""The built dashboard: hashed assets for ever, `index.html` fresh each time, deep links lead to the index.

Only files of a listing made beforehand are served, so no path of a request is ever opened.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Final

from nexus.core.errors import MethodNotAllowed, NotFound
from nexus.http.problem import send_error
from nexus.http.types import RawHeaders, Receive, Scope, Send, header, path_of

_ENCODINGS: Final = ((b"br", ".br"), (b"gzip", ".gz"))
_COMPRESSIBLE: Final = ("text/", "application/javascript", "application/json", "image/svg+xml", "application/manifest")
_MINIMUM: Final = 1024
_IMMUTABLE: Final = b"public, max-age=31536000, immutable"
_TYPES: Final = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
    ".wasm": "application/wasm",
    ".json": "application/json",
}
_NOT_BUILT: Final = b"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>NEXUS</title></head><body>
<h1>NEXUS is running</h1>
<p>The dashboard is not built. Run <code>./nexus ui</code> and load this page again.</p>
<p>The API is at <code>/v1</code> and <code>/api/v1</code>.</p>
</body></html>"""


@dataclass(frozen=True, slots=True)
class _File:
    """One file and the ready-made compressed forms beside it."""

    path: Path
    media_type: str
    compressed: dict[bytes, Path]


class Dashboard:
    """An ASGI app that serves a built single-page dashboard."""

    def __init__(self, folder: Path) -> None:
        """Serve `folder` as the build left it; it may be absent, or come later."""
        self._folder = folder
        self._built = 0
        self._files: dict[str, _File] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["method"] not in ("GET", "HEAD"):
            await send_error(scope, send, MethodNotAllowed(allow="GET, HEAD"))
            return
        self._refresh()
        path = path_of(scope).lstrip("/")
        file = self._files.get(path)
        if file is not None and path != "index.html":
            await self._send_file(scope, send, path, file)
        elif path.startswith("assets/"):
            # A stale page asks for assets of an older build: HTML in place of a script would confuse it.
            await send_error(scope, send, NotFound())
        else:
            await self._send_index(scope, send)

    def _refresh(self) -> None:
        try:
            built = (self._folder / "index.html").stat().st_mtime_ns
        except OSError:
            built = 0
        if built != self._built:
            self._built = built
            self._files = dict(_listing(self._folder)) if built else {}

    async def _send_file(self, scope: Scope, send: Send, path: str, file: _File) -> None:
        accepted = header(scope, b"accept-encoding") or b""
        encoding, content = _encoded(file, accepted)
        headers = [(b"content-type", _with_charset(file.media_type))]
        headers.append((b"cache-control", _IMMUTABLE if path.startswith("assets/") else b"no-cache"))
        headers.append((b"vary", b"accept-encoding"))
        if encoding is not None:
            headers.append((b"content-encoding", encoding))
        await _send(scope, send, content, headers)

    async def _send_index(self, scope: Scope, send: Send) -> None:
        headers = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-cache")]
        page = self._files.get("index.html")
        if page is None:
            await _send(scope, send, _NOT_BUILT, headers)
            return
        html = _with_base(page.path.read_bytes(), scope.get("root_path", ""))
        await _send(scope, send, html, headers)


def _listing(folder: Path) -> Iterator[tuple[str, _File]]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    names = set(files)
    for path in files:
        if path.suffix in (".br", ".gz", ".map"):
            continue
        others = {name: path.with_name(path.name + suffix) for name, suffix in _ENCODINGS}
        compressed = {name: other for name, other in others.items() if other in names}
        media_type = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        yield path.relative_to(folder).as_posix(), _File(path, media_type, compressed)


def _encoded(file: _File, accepted: bytes) -> tuple[bytes | None, bytes]:
    """The content in the best form that the client takes."""
    for encoding, other in file.compressed.items():
        if encoding in accepted:
            return encoding, other.read_bytes()
    if b"gzip" in accepted and file.media_type.startswith(_COMPRESSIBLE) and file.path.stat().st_size >= _MINIMUM:
        return b"gzip", _zipped(file.path, file.path.stat().st_mtime_ns)
    return None, file.path.read_bytes()


@lru_cache(maxsize=128)
def _zipped(path: Path, modified: int) -> bytes:
    """The file compressed, once for each build (`modified` tells builds apart)."""
    return gzip.compress(path.read_bytes(), 6, mtime=0)


def _with_charset(media_type: str) -> bytes:
    text = media_type.startswith("text/") or media_type == "image/svg+xml"
    return (media_type + "; charset=utf-8" if text else media_type).encode()


def _with_base(html: bytes, root_path: str) -> bytes:
    """Tell the page where it lives, so that relative links work from deep links and below a sub-path."""
    base = f'<base href="{escape(root_path.rstrip("/"), quote=True)}/">'.encode()
    return html.replace(b"<head>", b"<head>" + base, 1) if b"<base " not in html else html


async def _send(scope: Scope, send: Send, content: bytes, headers: RawHeaders) -> None:
    tag = b'"' + hashlib.sha256(content).hexdigest()[:20].encode() + b'"'
    if tag in (header(scope, b"if-none-match") or b""):
        await send({"type": "http.response.start", "status": 304, "headers": [*headers, (b"etag", tag)]})
        await send({"type": "http.response.body", "body": b""})
        return
    raw = [*headers, (b"etag", tag), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": raw})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})
