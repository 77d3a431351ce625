"""The doors that carry the load, those of every dialect: raw ASGI, no framework, no database.

`hot_routes` maps (method, path) to handlers. They find services in `scope["app_services"]` and the caller in
`scope["principal"]`; what they raise before the answer has begun is rendered in the dialect of the path.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial

from starlette.requests import ClientDisconnect

from nexus.access.guard import principal_of
from nexus.access.types import Principal
from nexus.access.types import Scope as Right
from nexus.core.errors import NexusError, NotFound, TooLarge
from nexus.core.plugins import PluginFolder
from nexus.http.body import body_at_hand, read_body
from nexus.http.heads import write_headers
from nexus.http.problem import send_error
from nexus.http.types import (
    FINISH,
    PUSH,
    Finish,
    Handler,
    Push,
    Receive,
    Scope,
    Send,
    headers_of,
    path_of,
)
from nexus.llm.departures import Departure
from nexus.llm.dialect import Dialect, Door, Operation
from nexus.llm.errors import UpstreamRejected
from nexus.llm.flow import Flow
from nexus.llm.forms.named_files import may_name_files
from nexus.llm.money.accounting import Entry
from nexus.llm.money.limit_headers import HOLD, announcing
from nexus.llm.service import LLMService
from nexus.llm.session import Session
from nexus.llm.settings import LLMSettings
from nexus.llm.types import Call

# The folder only checks with isinstance, so an abstract contract will do.
DIALECTS: PluginFolder[Dialect] = PluginFolder("nexus.llm.dialects", Dialect, noun="dialect")  # type: ignore[type-abstract]


class _StreamFailed(Exception):
    """The stream has told the client what went wrong; there is nothing left to answer."""


_OVER = (ClientDisconnect, _StreamFailed)
_JSON = (b"content-type", b"application/json")
_NO_STORE = (b"cache-control", b"no-store")
_JSON_LINES = b"content-type: application/json\r\ncache-control: no-store\r\n"


async def chat_completions(scope: Scope, receive: Receive, send: Send) -> None:
    """Chat in OpenAI's dialect, whatever the path."""
    await _chat(scope, receive, send, DIALECTS.get("openai_chat"))


async def _chat(scope: Scope, receive: Receive, send: Send, dialect: Dialect) -> None:
    """Serve one chat request in a dialect, whatever its provider speaks."""
    try:
        principal, service, body = await _enter(scope, receive)
        call = dialect.parse(body, path=_asked(scope), headers=headers_of(scope))
        form = dialect.answering(call)
        entry = service.entry(principal, call, request_id=scope.get("request_id"))
        scope[HOLD] = entry.hold
        with Departure(scope, receive, entry):
            if may_name_files(call):
                call = await _with_files(scope, principal, service, dialect, call)
                entry.characters = call.characters
            call.received = scope["headers"]
            session = service.session(call, entry)
            if session is not None:
                call = await session.prepare(principal, call)
                if session.instead is not None:
                    entry.close()
                    await _send_instead(scope, send, service, form, entry, session.instead)
                    return
            if call.stream:
                await _stream(scope, send, service, call, form, entry, session)
                return
            try:
                answer = await service.answer(call, form, entry)
            except BaseException as error:
                if session is not None:
                    session.ended(error)
                raise
            entry.first_token()
            if session is not None:
                answer = session.sent(answer)
                session.ended(None)
            entry.close()  # on record before the client can know of it
            await _send_json(scope, send, 200, answer, entry.id, entry.headers)
    except _OVER:
        return
    except NexusError as error:
        await _refuse(scope, send, dialect, error)


async def _embed(scope: Scope, receive: Receive, send: Send, dialect: Dialect) -> None:
    try:
        principal, service, body = await _enter(scope, receive)
        request = dialect.parse_embedding(body, path=_asked(scope))
        embedding = await service.embed(principal, request, scope["headers"], request_id=scope.get("request_id"))
        answer = embedding.body or dialect.embedding(embedding, request)
        await _send_json(scope, send, 200, answer, embedding.invocation_id, embedding.headers)
    except _OVER:
        return
    except NexusError as error:
        await _refuse(scope, send, dialect, error)


async def _count(scope: Scope, receive: Receive, send: Send, dialect: Dialect) -> None:
    try:
        principal, service, body = await _enter(scope, receive)
        call = dialect.parse(body, path=_asked(scope), headers=headers_of(scope))
        named = partial(_with_files, scope, principal, service, dialect) if may_name_files(call) else None
        found = await service.count(principal, call, named)
        extra = ((b"x-nexus-estimated", b"true"),) if found.estimated else ()
        await _send_json(scope, send, 200, found.body or dialect.count(found.tokens, call), more=extra)
    except _OVER:
        return
    except NexusError as error:
        await _refuse(scope, send, dialect, error)


async def _models(scope: Scope, receive: Receive, send: Send, dialect: Dialect) -> None:
    try:
        who = principal_of(scope)
        models = scope["app_services"].get(LLMService).models(who.project_id)
        cards = [card for card in models if who.may_use_model(card.name)]
        await _send_json(scope, send, 200, dialect.models(cards, _asked(scope)))
    except NexusError as error:
        # Several dialects share this path, so it does not say whose shape an error has.
        await send_error({**scope, "path": dialect.path, "nexus.path": dialect.path}, send, error)


_WORK: dict[Operation, Callable[[Scope, Receive, Send, Dialect], Awaitable[None]]] = {
    "chat": _chat,
    "embed": _embed,
    "count": _count,
    "models": _models,
}


def hot_routes() -> dict[tuple[str, str], Handler]:
    """Return a handler for every door of every dialect, by method and path (`*` at its end: all below)."""
    behind: dict[tuple[str, str], list[tuple[Dialect, Door]]] = {}
    for dialect in DIALECTS.all().values():
        for door in dialect.doors:
            behind.setdefault((door.method, door.path), []).append((dialect, door))
    return {place: _handler(sorted(found, key=lambda item: item[1].header is None)) for place, found in behind.items()}


def _handler(found: list[tuple[Dialect, Door]]) -> Handler:
    """Return the handler of one place; of several dialects behind it, the first whose header is there serves."""
    if len(found) == 1 and found[0][1].header is None and not found[0][1].path.endswith("*"):
        dialect, door = found[0]
        serve = _WORK[door.operation]
        return lambda scope, receive, send: serve(scope, receive, announcing(scope, send), dialect)

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        names = {name for name, _ in scope["headers"]}
        for dialect, door in found:
            if door.header is None or door.header in names:
                below = door.path.endswith("*")
                open_end = below and door.operation == "chat"
                operation = dialect.operation(path_of(scope)) if open_end else door.operation
                if operation is not None:
                    await _WORK[operation](scope, receive, announcing(scope, send), dialect)
                    return
        await send_error(scope, send, NotFound())

    return handle


def _asked(scope: Scope) -> str:
    """Return the path with its query, as dialects read it."""
    query = scope.get("query_string", b"")
    return f"{path_of(scope)}?{query.decode('latin-1')}" if query else path_of(scope)


async def _enter(scope: Scope, receive: Receive) -> tuple[Principal, LLMService, bytes]:
    """Return who asks, who serves, and the body. Raises `Forbidden`, `TooLarge`, `ClientDisconnect`."""
    principal = principal_of(scope)
    principal.require(Right.LLM_INVOKE)
    service = scope["app_services"].get(LLMService)
    settings = service.settings
    body = body_at_hand(scope, settings.max_body)
    if body is None:
        body = await read_body(receive, settings.max_body)
    if len(body) > settings.max_text_body and b"base64" not in body:
        raise TooLarge(f"A request without media may have {settings.max_text_body} bytes.")
    return principal, service, body


async def _with_files(scope: Scope, principal: Principal, service: LLMService, dialect: Dialect, call: Call) -> Call:
    """Return the call with the files of ours that it names, as data. Raises `FileNotFound`, `FileTooLarge`."""

    def read(body: bytes) -> Call:
        return dialect.parse(body, path=_asked(scope), headers=headers_of(scope))

    return await service.named_files.put_into(principal, call, dialect.files, read)


async def _refuse(scope: Scope, send: Send, dialect: Dialect, error: NexusError) -> None:
    """Answer with an error that came before the answer had begun."""
    if isinstance(error, UpstreamRejected) and error.body:
        # The caller speaks the provider's dialect: the provider's own words say best what is wrong.
        await _send_json(scope, send, error.upstream_status, error.body)
    else:
        await send_error(scope, send, dialect.naming(error))


async def _send_json(
    scope: Scope,
    send: Send,
    status: int,
    body: bytes,
    invocation_id: str | None = None,
    more: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    finish: Finish | None = scope.get(FINISH)
    if finish is not None:
        own = b"x-nexus-invocation: %b\r\n" % invocation_id.encode() if invocation_id is not None else b""
        lines = b"%b%b%b" % (_JSON_LINES, write_headers(more)[0] if more else b"", own)
        if finish(status, lines, body):
            return
    headers = [_JSON, _NO_STORE, (b"content-length", b"%d" % len(body)), *more]
    if invocation_id is not None:
        headers.append((b"x-nexus-invocation", invocation_id.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _stream(
    scope: Scope,
    send: Send,
    service: LLMService,
    call: Call,
    dialect: Dialect,
    entry: Entry,
    session: Session | None,
) -> None:
    """Relay a stream. A failure before its first byte is an ordinary error, one after it an event of its own."""
    outlet = _Outlet(send, dialect, entry, service.settings)
    flow = None
    ended: BaseException | None = None
    try:
        try:
            flow = await service.open(call, dialect, entry)
        finally:
            outlet.stop_heartbeat()
        entry.first_token()
        push: Push | None = scope.get(PUSH) if session is None else None

        def take(data: bytes) -> bool:
            tally = entry.tally
            if tally.done:
                entry.close()
            if push is None or not push(data, not tally.done or tally.failure is not None):
                return False
            outlet.ended = tally.done and tally.failure is None
            return True

        data: bytes | None = flow.first
        while data is not None:
            if entry.tally.done:
                entry.close()  # on record before the client can know of it
            await outlet.write(data if session is None else session.sent(data))
            if push is not None and isinstance(flow, Flow):
                await flow.pass_on(take)
            data = await flow.next()
        entry.close()
        await outlet.end()
    except NexusError as error:
        ended = error
        entry.close(error)
        if not outlet.started:
            raise
        own = error.event if isinstance(error, UpstreamRejected) else b""
        last = own + b"\n\n" if own else dialect.stream_error(error, scope.get("request_id"))
        await outlet.write(last if session is None else session.sent(last))
        await outlet.end()
        raise _StreamFailed from None
    except BaseException as error:
        ended = error
        raise
    finally:
        if session is not None:
            session.ended(ended)
        ended = None  # its traceback leads back to here
        outlet.close()
        if flow is not None:
            await flow.close()


async def _send_instead(
    scope: Scope,
    send: Send,
    service: LLMService,
    dialect: Dialect,
    entry: Entry,
    instead: bytes | AsyncGenerator[bytes],
) -> None:
    """Send what no provider is asked for now: a whole answer, or the events of one that is made elsewhere."""
    if isinstance(instead, bytes):
        await _send_json(scope, send, 200, instead, entry.id)
        return
    outlet = _Outlet(send, dialect, entry, service.settings)
    try:
        async with aclosing(instead) as events:
            async for data in events:
                outlet.stop_heartbeat()
                await outlet.write(data)
        await outlet.end()
    except NexusError as error:
        if not outlet.started:
            raise
        await outlet.write(dialect.stream_error(error, scope.get("request_id")))
        await outlet.end()
        raise _StreamFailed from None
    finally:
        outlet.close()


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
        "_seen",
        "_send",
        "_sent",
        "_settings",
        "_task",
        "_timer",
        "_waits",
        "ended",
        "started",
    )

    def __init__(self, send: Send, dialect: Dialect, entry: Entry, settings: LLMSettings) -> None:
        """Send a sign of life every `heartbeat` seconds until the first piece comes."""
        self._send = send
        self._dialect = dialect
        self._entry = entry
        self._settings = settings
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._pulse: asyncio.Task[None] | None = None
        self._sent, self._seen = 0, -1
        self._waits = False
        self._timer = self._loop.call_later(settings.heartbeat, self._beat)
        self._guard = self._loop.call_later(settings.write_timeout / 2, self._look)
        self.started = self.ended = False

    def close(self) -> None:
        """Stop every timer."""
        self._timer.cancel()
        self._guard.cancel()

    def write(self, data: bytes) -> Awaitable[None]:
        """Send bytes of the stream, after a sign of life that is still on its way."""
        if self._pulse is None or self._pulse.done():
            return self._put(data)
        return self._put_after(self._pulse, data)

    async def end(self) -> None:
        """End the stream properly, unless that has been done."""
        if not self.ended:
            await self._send({"type": "http.response.body", "body": b""})

    def stop_heartbeat(self) -> None:
        """Send no more signs of life."""
        self._timer.cancel()

    async def _put_after(self, pulse: asyncio.Task[None], data: bytes) -> None:
        await pulse
        await self._put(data)

    async def _put(self, data: bytes) -> None:
        if not self.started:
            self.started = True
            headers = [
                (b"content-type", self._dialect.content_type),
                (b"cache-control", b"no-cache, no-store"),
                (b"x-accel-buffering", b"no"),
                (b"x-nexus-invocation", self._entry.id.encode()),
                *self._entry.headers,
            ]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        self._waits = True
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._waits = False
        self._sent += 1

    def _beat(self) -> None:
        self._timer = self._loop.call_later(self._settings.heartbeat, self._beat)
        if self._pulse is None or self._pulse.done():
            self._pulse = self._loop.create_task(self._put(self._dialect.heartbeat))

    def _look(self) -> None:
        """Take a client for gone that has taken nothing since the last look."""
        if self._waits and self._sent == self._seen and self._task is not None:
            self._entry.gone = True
            self._task.cancel()
            return
        self._seen = self._sent if self._waits else -1
        self._guard = self._loop.call_later(self._settings.write_timeout / 2, self._look)
