"""The edge: what every request passes on its way in, and every answer on its way out, in one layer.

In this order: its id, trusted proxies, probes, the number of requests at once, host, origin, announced size. Then the
app below, whose reading is counted and whose answer gets id and security headers; whatever it raises becomes an
answer in the caller's dialect. At the end stand one log line and one measurement.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from random import getrandbits
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect

from nexus.core.errors import NexusError
from nexus.http.access_log import AccessLog, Observe, Write
from nexus.http.errors import Overloaded, ShuttingDown
from nexus.http.gates.bodies import announced, refuse, too_large
from nexus.http.gates.hosts import HostGate
from nexus.http.gates.origins import OriginGate
from nexus.http.gates.proxies import TrustedProxies
from nexus.http.lifecycle import Lifecycle
from nexus.http.probes import Check, Probes
from nexus.http.problem import send_error
from nexus.http.security_headers import lines_beside, security_lines
from nexus.http.settings import HTTPSettings
from nexus.http.types import (
    FINISH,
    KNOWN,
    LENGTH,
    WHOLE,
    App,
    Finish,
    Message,
    Receive,
    Scope,
    Send,
    headers_of,
    path_of,
    read_lines,
)

log = logging.getLogger("nexus.http")

_TOLD: Final = frozenset({b"cache-control"})
_ID: Final = re.compile(rb"[A-Za-z0-9_-]{8,64}")
_HEAD: Final = "edge.head"
_LARGE_JSON: Final = (
    "/api/v1/vision/",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1beta/",
    "/v2/",
)

Enter = Callable[[str, bytes | None], object]
"""Told request id and `traceparent` inside the request's own context, for logs and traces."""


class _Head(NamedTuple):
    """What the edge takes from a request's head."""

    path: str
    request_id: str | None
    traceparent: bytes | None
    limit: int | None = None
    """The cap for its body, once it has been admitted."""


def build_edge(
    app: App,
    *,
    settings: HTTPSettings,
    lifecycle: Lifecycle,
    checks: Mapping[str, Check] | None = None,
    enter: Enter | None = None,
    observe: Observe | None = None,
    write: Write | None = None,
) -> Edge:
    """Stand before `app` (authentication and below).

    `checks` decide readiness; `enter`, `observe` and `write` carry ids, figures and lines to logs and metrics.
    """
    return Edge(
        app,
        settings=settings,
        lifecycle=lifecycle,
        probes=Probes(lifecycle=lifecycle, checks=checks),
        hosts=HostGate(hosts_of(settings)),
        origins=OriginGate([*settings.origins, *([settings.public_url] if settings.public_url else [])]),
        proxies=TrustedProxies(settings.trusted_proxies),
        record=AccessLog(observe=observe, write=write),
        enter=enter,
    )


class Edge:
    """The outermost ASGI app."""

    def __init__(
        self,
        app: App,
        *,
        settings: HTTPSettings,
        lifecycle: Lifecycle,
        probes: Probes,
        hosts: HostGate,
        origins: OriginGate,
        proxies: TrustedProxies,
        record: AccessLog,
        enter: Enter | None,
    ) -> None:
        """Take the rules; see `build_edge`."""
        self._app = app
        self._lifecycle = lifecycle
        self._probes = probes
        self._hosts = hosts
        self._origins = origins
        self._proxies = proxies
        self._record = record
        self._enter = enter
        self._most = settings.max_inflight
        self._upload = settings.upload_limit + 1024 * 1024
        self._large_json = settings.vision_json_limit
        self._json = settings.json_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; pass the lifespan on; close websockets, of which there are none."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1008})
            else:
                await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        lifecycle = self._lifecycle
        head: _Head = scope.get(_HEAD) or _read(scope)
        path, request_id, traceparent, limit = head
        if request_id is None:
            # Nobody has to guess it, so it need not be unpredictable, which costs a system call.
            request_id = f"req_{getrandbits(104):026x}"
        scope["request_id"] = request_id
        if self._enter is not None:
            self._enter(request_id, traceparent)
        if self._proxies.networks:
            self._proxies.apply(scope)
        exchange = Exchange(scope, receive, send)
        try:
            if path in Probes.paths:
                await self._probes.answer(scope, exchange.send, path)
                return
            scope["lifecycle"] = lifecycle
            if lifecycle.inflight >= self._most:
                await send_error(scope, exchange.send, Overloaded(retry_after=1))
                return
            lifecycle.inflight += 1
            try:
                if limit is None:
                    limit = self._admitted(scope, head)
                if LENGTH not in scope or scope[LENGTH] > limit:
                    receive, problem = exchange.measured(limit)
                    if problem is not None:
                        await refuse(scope, exchange.receive_on, exchange.send, problem)
                        return
                await self._app(scope, receive, exchange.send)
                if exchange.failure is not None:
                    await exchange.fail(exchange.failure)
            finally:
                lifecycle.inflight -= 1
        except ClientDisconnect:
            return
        except asyncio.CancelledError:
            if not lifecycle.draining.is_set():
                raise
            # The time for a graceful end is over, and this is the outermost frame of the request's own task.
            await exchange.fail(ShuttingDown(retry_after=None if exchange.status else 1))
        except NexusError as error:
            await exchange.fail(error)
        except Exception as error:  # the caller gets an answer without any of it; the log gets it all
            log.error("unexpected error", exc_info=error, extra={"request_id": request_id})
            if not exchange.status:
                await exchange.fail(NexusError())
        finally:
            self._record.report(scope, path, exchange.status, time.perf_counter() - started)

    def _admitted(self, scope: Scope, head: _Head) -> int:
        """Return the cap for the body. Raises what a request is refused for by its head alone."""
        headers = headers_of(scope)
        if (refusal := self._refusal(scope, head.path, headers)) is not None:
            raise refusal
        limit = self._limit(head.path, headers.get(b"content-type", b""))
        if KNOWN in scope:
            scope[KNOWN][_HEAD] = head._replace(limit=limit)
        return limit

    def _refusal(self, scope: Scope, path: str, headers: Mapping[bytes, bytes]) -> NexusError | None:
        host, several = headers.get(b"host"), False
        if len(headers) != len(scope["headers"]):
            names = [name for name, _ in scope["headers"]]
            host = host if names.count(b"host") == 1 else None
            several = names.count(b"origin") > 1
        refusal = self._hosts.refusal(scope, host)
        if refusal is None and (b"origin" in headers or b"sec-fetch-site" in headers):
            refusal = self._origins.refusal(scope["method"], path, headers, several=several)
        return refusal

    def _limit(self, path: str, kind: bytes) -> int:
        """Return the cap for a body: JSON is held in memory, so it may be far smaller than a file upload."""
        if _is_file(kind):
            return self._upload
        return self._large_json if path.startswith(_LARGE_JSON) else self._json


def _read(scope: Scope) -> _Head:
    headers = headers_of(scope)
    sent = headers.get(b"x-request-id")
    request_id = sent.decode() if sent and _ID.fullmatch(sent) else None
    return _Head(path_of(scope), request_id, headers.get(b"traceparent"))


@lru_cache(maxsize=64)
def _is_file(kind: bytes) -> bool:
    """Tell of a Content-Type whether the body is a file, form fields beside it or not."""
    return kind.partition(b";")[0].strip().lower() in (b"multipart/form-data", b"application/octet-stream")


class Exchange:
    """One request and its answer as the edge sees them go by."""

    __slots__ = ("_finish", "_receive", "_scope", "_send", "_taken", "failure", "limit", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Nothing has been read or sent."""
        self._scope, self._receive, self._send = scope, receive, send
        self._finish: Finish | None = scope.get(FINISH)
        if self._finish is not None:
            scope[FINISH] = self.finish
        self.status = 0
        self.failure: NexusError | None = None

    def measured(self, limit: int) -> tuple[Receive, NexusError | None]:
        """Return what reads a body of at most so many bytes, and what is wrong with the length that is announced."""
        headers = headers_of(self._scope)
        length = headers.get(b"content-length")
        problem = announced(length, limit)
        if length is not None and b"transfer-encoding" not in headers:
            return self._receive, problem  # the server's parser holds the body to it
        self._scope.pop(WHOLE, None)
        self._taken, self.limit = 0, limit
        return self.receive, problem

    async def receive(self) -> Message:
        """Pass on what arrives, as long as it is not too much. Raises `TooLarge`."""
        if self.failure is not None:
            raise self.failure
        message = await self._receive()
        self._taken += len(message.get("body", b""))
        if self._taken > self.limit:
            self.failure = too_large(self.limit)
            raise self.failure
        return message

    async def receive_on(self) -> Message:
        """Pass on what arrives, uncounted."""
        return await self._receive()

    def send(self, message: Message) -> Awaitable[None]:
        """Pass on the answer with our headers, unless a better one will be given."""
        # Not a coroutine around another: a stream comes by here for each of its pieces.
        if message["type"] == "http.response.start":
            if self.failure is not None:
                return _dropped()
            scope = self._scope
            self.status = message["status"]
            headers = message.get("headers", [])
            lines = self._lines(security_lines(headers, https=scope["scheme"] == "https"))
            if scope.get("nexus.takes_lines"):
                message["nexus.lines"] = lines
            else:
                message["headers"] = [*headers, *read_lines(lines)]
        elif not self.status:
            return _dropped()
        return self._send(message)

    def finish(self, status: int, lines: bytes, body: bytes) -> bool:
        """Pass on a whole answer, whose lines tell its type and that it is not to be stored; see `Finish`."""
        if self._finish is None or self.status or self.failure is not None:
            return False
        secure = lines_beside(_TOLD, https=self._scope["scheme"] == "https")
        if not self._finish(status, lines + self._lines(secure), body):
            return False
        self.status = status
        return True

    def _lines(self, secure: bytes) -> bytes:
        scope = self._scope
        own, more = scope["request_id"].encode(), scope.get("nexus.answer_lines")
        lines = b"%b%bx-request-id: %b\r\n" % (more(scope) if more is not None else b"", secure, own)
        if scope["path"].startswith("/v1/messages"):
            lines += b"request-id: %b\r\n" % own  # where the SDK of that dialect looks for it
        return lines

    async def fail(self, error: NexusError) -> None:
        """Answer with an error; of an answer that has begun only the log can tell.

        Returning without an end makes the server break the connection. A body that grew too large decides the
        answer, whatever became of it below.
        """
        scope = self._scope
        scope.pop("nexus.answer_lines", None)
        if error is self.failure:
            if not self.status:
                self.failure = None
                await refuse(scope, self.receive_on, self.send, error)
        elif self.status:
            log.error("an answer broke off", exc_info=error, extra={"request_id": scope["request_id"]})
        else:
            await send_error(scope, self.send, error)


async def _dropped() -> None:
    """Send nothing."""


def hosts_of(settings: HTTPSettings) -> list[str]:
    """Return the names that the server answers for, besides localhost."""
    public = urlsplit(settings.public_url or "").hostname
    own = settings.host if settings.host not in ("0.0.0.0", "::") else None  # noqa: S104  compared, not bound
    return [name for name in (*settings.hosts, public, own) if name]
