"""The doors of `/v1` that carry the load: raw ASGI, no framework, no database.

`HOT_ROUTES` maps (method, path) to handlers. They find services in `scope["app_services"]` and the caller in
`scope["principal"]`; what they raise before the answer has begun is rendered in the dialect of the path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect

from nexus.access.guard import principal_of
from nexus.access.types import Scope as Right
from nexus.core.errors import NexusError, TooLarge
from nexus.http.body import read_body
from nexus.http.problem import send_error
from nexus.http.types import Handler, Receive, Scope, Send
from nexus.llm import embeddings_json
from nexus.llm.accounting import Entry
from nexus.llm.dialect import Dialect
from nexus.llm.dialects.openai_chat import plug as chat_dialect
from nexus.llm.errors import UpstreamRejected
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings
from nexus.llm.types import Call, ModelCard

_WATCH_AFTER = 0.005
_JSON = (b"content-type", b"application/json")
_NO_STORE = (b"cache-control", b"no-store")


async def chat_completions(scope: Scope, receive: Receive, send: Send) -> None:
    """`POST /v1/chat/completions`, plain and streamed."""
    await serve(scope, receive, send, chat_dialect)


async def embeddings(scope: Scope, receive: Receive, send: Send) -> None:
    """`POST /v1/embeddings`."""

    async def work(service: LLMService, body: bytes) -> None:
        request, as_base64 = embeddings_json.read_request(body)
        principal, request_id = principal_of(scope), scope.get("request_id")
        embedding = await service.embed(principal, request, request_id=request_id)
        answer = embedding.body or embeddings_json.write_answer(embedding, as_base64=as_base64)
        await _send_json(send, 200, answer, embedding.invocation_id)

    await _guarded(scope, receive, send, work)


async def models(scope: Scope, receive: Receive, send: Send) -> None:
    """`GET /v1/models`."""
    try:
        who = principal_of(scope)
        cards = scope["app_services"].get(LLMService).models()
        data = [model_object(card) for card in cards if who.may_use_model(card.name)]
        await _send_json(send, 200, msgspec.json.encode({"object": "list", "data": data}))
    except NexusError as error:
        await send_error(scope, send, error)


def model_object(card: ModelCard) -> dict[str, Any]:
    """Return the wire form of one model; NEXUS knows no date of making, so it is the epoch."""
    more = {"task": card.task} | ({"demo": True} if card.demo else {})
    return {"id": card.name, "object": "model", "created": 0, "owned_by": card.owner, **more}


HOT_ROUTES: dict[tuple[str, str], Handler] = {
    ("POST", "/v1/chat/completions"): chat_completions,
    ("POST", "/v1/embeddings"): embeddings,
    ("GET", "/v1/models"): models,
}


async def serve(scope: Scope, receive: Receive, send: Send, dialect: Dialect) -> None:
    """Serve one chat request in a dialect, whatever its provider speaks."""

    async def work(service: LLMService, body: bytes) -> None:
        call = dialect.parse(body, headers=dict(scope["headers"]))
        entry = service.entry(principal_of(scope), call, request_id=scope.get("request_id"))
        with _Departure(receive, entry), entry:
            if call.stream:
                await _stream(scope, send, service, call, dialect, entry)
            else:
                answer = await service.answer(call, dialect, entry)
                entry.first_token()
                entry.close()  # on record before the client can know of it
                await _send_json(send, 200, answer, entry.id)

    await _guarded(scope, receive, send, work)


async def _guarded(
    scope: Scope, receive: Receive, send: Send, work: Callable[[LLMService, bytes], Awaitable[None]]
) -> None:
    """Read the body and do the work; answer errors that come before the answer has begun."""
    try:
        principal_of(scope).require(Right.LLM_INVOKE)
        service = scope["app_services"].get(LLMService)
        body = await _body(receive, service.settings)
        await work(service, body)
    except ClientDisconnect:
        return
    except _StreamFailed:
        return
    except UpstreamRejected as error:
        if error.body:
            # The caller speaks the provider's dialect: the provider's own words say best what is wrong.
            await _send_json(send, error.upstream_status, error.body)
        else:
            await send_error(scope, send, error)
    except NexusError as error:
        await send_error(scope, send, error)


async def _body(receive: Receive, settings: LLMSettings) -> bytes:
    body = await read_body(receive, settings.max_body)
    if len(body) > settings.max_text_body and b"base64" not in body:
        raise TooLarge(f"A request without media may have {settings.max_text_body} bytes.")
    return body


async def _send_json(send: Send, status: int, body: bytes, invocation_id: str | None = None) -> None:
    headers = [_JSON, _NO_STORE, (b"content-length", b"%d" % len(body))]
    if invocation_id is not None:
        headers.append((b"x-nexus-invocation", invocation_id.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _StreamFailed(Exception):
    """The stream has told the client what went wrong; there is nothing left to answer."""


async def _stream(scope: Scope, send: Send, service: LLMService, call: Call, dialect: Dialect, entry: Entry) -> None:
    """Relay a stream. A failure before its first byte is an ordinary error, one after it an event of its own."""
    outlet = _Outlet(send, dialect, entry, service.settings)
    flow = None
    try:
        try:
            flow = await service.open(call, dialect, entry)
        finally:
            outlet.stop_heartbeat()
        entry.first_token()
        data: bytes | None = flow.first
        while data is not None:
            if entry.tally.done:
                entry.close()  # on record before the client can know of it
            await outlet.write(data)
            data = await flow.next()
        entry.close()
        await outlet.end()
    except NexusError as error:
        entry.close(error)
        if not outlet.started:
            raise
        own = error.event if isinstance(error, UpstreamRejected) else b""
        await outlet.write(own + b"\n\n" if own else dialect.stream_error(error, scope.get("request_id")))
        await outlet.end()
        raise _StreamFailed from None
    finally:
        outlet.close()
        if flow is not None:
            await flow.close()


class _Outlet:
    """The client's end of a stream: the head goes out with the first bytes, signs of life until then.

    A client that takes nothing for `write_timeout` seconds is taken for gone, since what waits for it
    holds an upstream connection open.
    """

    __slots__ = (
        "_dialect",
        "_entry",
        "_guard",
        "_loop",
        "_pulse",
        "_send",
        "_settings",
        "_since",
        "_task",
        "_timer",
        "started",
    )

    def __init__(self, send: Send, dialect: Dialect, entry: Entry, settings: LLMSettings) -> None:
        """Send a comment every `heartbeat` seconds until the first piece comes."""
        self._send = send
        self._dialect = dialect
        self._entry = entry
        self._settings = settings
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._pulse: asyncio.Task[None] | None = None
        self._since = 0.0
        self._timer = self._loop.call_later(settings.heartbeat, self._beat)
        self._guard = self._loop.call_later(settings.write_timeout, self._look)
        self.started = False

    def close(self) -> None:
        """Stop every timer."""
        self._timer.cancel()
        self._guard.cancel()

    async def write(self, data: bytes) -> None:
        """Send bytes of the stream, after a sign of life that is still on its way."""
        if self._pulse is not None and not self._pulse.done():
            await self._pulse
        await self._put(data)

    async def end(self) -> None:
        """End the stream properly."""
        await self._send({"type": "http.response.body", "body": b""})

    def stop_heartbeat(self) -> None:
        """Send no more signs of life."""
        self._timer.cancel()

    async def _put(self, data: bytes) -> None:
        if not self.started:
            self.started = True
            headers = [
                (b"content-type", self._dialect.content_type),
                (b"cache-control", b"no-cache, no-store"),
                (b"x-accel-buffering", b"no"),
                (b"x-nexus-invocation", self._entry.id.encode()),
            ]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        self._since = self._loop.time()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._since = 0.0

    def _beat(self) -> None:
        self._timer = self._loop.call_later(self._settings.heartbeat, self._beat)
        if self._pulse is None or self._pulse.done():
            # One line end only: an empty event would reach some clients as one.
            self._pulse = self._loop.create_task(self._put(b": ping\n"))

    def _look(self) -> None:
        limit = self._settings.write_timeout
        if self._since and self._task is not None and self._loop.time() - self._since >= limit:
            self._entry.gone = True
            self._task.cancel()
        else:
            self._guard = self._loop.call_later(limit / 2, self._look)


class _Departure:
    """Watches for the client leaving, and cancels the work of this task when it does.

    It begins to watch a moment later: most calls that are over by then are answered without the cost.
    """

    __slots__ = ("_entry", "_over", "_receive", "_task", "_timer", "_watch")

    def __init__(self, receive: Receive, entry: Entry) -> None:
        """Watch `receive`, whose body has been read."""
        self._receive = receive
        self._entry = entry
        self._over = False
        self._watch: asyncio.Task[None] | None = None

    def __enter__(self) -> _Departure:
        """Begin."""
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER, self._begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Stop watching; the cancellation that the watch itself caused ends here."""
        self._over = True
        self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        if self._entry.gone and isinstance(error, asyncio.CancelledError) and self._task is not None:
            return self._task.uncancel() == 0
        return False

    def _begin(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._over and self._task is not None:
            self._entry.gone = True
            self._task.cancel()
