"""Download one large file over HTTP: to disk as it comes, resumed after a cut.

Half a file is kept as `<target>.part` with its validator in `<target>.part.tag`; the next attempt
asks for the rest (RFC 9110, Range and If-Range), and starts anew when the server's file changed.
"""

from __future__ import annotations

import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from email.message import Message
from functools import cache
from pathlib import Path
from typing import IO, Final

from nexus.catalog.errors import ChecksumMismatch, SourceRefused, SourceUnreachable
from nexus.catalog.source import Work

_CHUNK: Final = 1 << 20
_ATTEMPTS: Final = 4
_PASSING: Final = frozenset({408, 425, 429})


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to HTTP addresses, remembering the headers of the first answer."""

    def __init__(self) -> None:
        self.first: Message | None = None

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Keep Range for the next host; credentials are unredirected headers and stay behind."""
        self.first = self.first or headers
        if not newurl.startswith(("http://", "https://")):
            raise SourceRefused("The download was redirected to an address that is not HTTP.")
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None:
            following.method = req.get_method()  # urllib would turn a HEAD into a GET
        return following


class Answer:
    """An open answer: its status, its headers, and those of the answer before any redirect."""

    def __init__(self, response: http.client.HTTPResponse, first: Message | None) -> None:
        """Wrap what urllib returned."""
        self.status = response.status
        self.headers: Message = response.headers
        self.first: Message = first if first is not None else response.headers
        self.read = response.read
        self.close = response.close


@cache
def _tls() -> ssl.SSLContext:
    """Return the trusted certificates, which take longer to read than most answers."""
    return ssl.create_default_context()


def open_url(
    url: str,
    *,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    secret: str | None = None,
    method: str = "GET",
) -> Answer:
    """Send one request and return the answer, of whatever status below 400.

    `secret` goes into Authorization, to the first host only. Raises `SourceUnreachable`, which is
    `retryable` as the status says.
    """
    if not url.startswith(("http://", "https://")):
        raise SourceRefused("A download address must be HTTP.", field="source.url")
    redirects = _Redirects()
    # No file:, ftp: or data: handlers here, and the machine's own proxies and certificates.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=_tls()),
        redirects,
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    request = urllib.request.Request(url, headers={"User-Agent": "nexus", **(headers or {})}, method=method)  # noqa: S310  checked above
    if secret:
        request.add_unredirected_header("Authorization", f"Bearer {secret}")
    try:
        return Answer(opener.open(request, timeout=timeout), redirects.first)
    except urllib.error.HTTPError as error:
        error.close()
        raise _refused(error.code) from None
    except (OSError, http.client.HTTPException, ValueError):
        raise SourceUnreachable(retry_after=5) from None


def _refused(status: int) -> SourceUnreachable:
    refusal = SourceUnreachable if status >= 500 or status in _PASSING else SourceRefused
    return refusal(f"The place that the file comes from answered {status}.", status_of_source=status)


def download(url: str, target: Path, size: int, work: Work, *, secret: str | None = None) -> None:
    """Bring `url` to `target`, going on from an earlier half. `size` is the number of bytes expected.

    Raises `SourceUnreachable` after four attempts without success, `ChecksumMismatch` when the
    server sends more than `size` bytes.
    """
    part = target.with_name(target.name + ".part")
    for attempt in range(1, _ATTEMPTS + 1):
        before = part.stat().st_size if part.exists() else 0
        try:
            _transfer(url, part, size, work, secret)
        except SourceUnreachable as error:
            after = part.stat().st_size if part.exists() else 0
            if not error.retryable or (attempt == _ATTEMPTS and after <= before):
                raise
            _pause(0.1 * 2**attempt, work.check)
            continue
        if part.stat().st_size == size:
            part.replace(target)
            _tag(part).unlink(missing_ok=True)
            return
    raise SourceUnreachable("The download broke off again and again; what came is kept for the next attempt.")


def _pause(seconds: float, check: Callable[[], None]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        check()
        time.sleep(0.05)


def _tag(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _transfer(url: str, part: Path, size: int, work: Work, secret: str | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    tag = _tag(part).read_text() if _tag(part).exists() else ""
    if have >= size or not tag:
        have = 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-", "If-Range": tag} if have else {})
    answer = open_url(url, timeout=work.settings.connect_timeout, headers=headers, secret=secret)
    try:
        if answer.status != 206:
            have = 0
        elif not str(answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-"):
            part.unlink()
            raise SourceUnreachable("The server sent another part of the file than was asked for.")
        validator = str(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")
        # A weak validator does not promise the same bytes (RFC 9110, 8.8.1).
        _tag(part).write_text("" if validator.startswith("W/") else validator)
        with part.open("ab" if have else "wb") as file:
            _pour(answer, file, have, size, work)
    finally:
        answer.close()


def _pour(answer: Answer, file: IO[bytes], have: int, size: int, work: Work) -> None:
    while True:
        work.check()
        try:
            chunk = answer.read(_CHUNK)
        except (OSError, http.client.HTTPException):
            raise SourceUnreachable("The download broke off.") from None
        if not chunk:
            return
        have += len(chunk)
        if have > size:
            raise ChecksumMismatch("The file at the source is larger than the catalogue says.", expected_bytes=size)
        file.write(chunk)
        work.report(have)
