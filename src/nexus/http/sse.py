"""Server-sent events for native routes (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    return EventStream(Event(data=row, id=row["id"]) async for row in rows)

The stream sends a comment every 15 s, also before the first event; ends with `event: error` and a problem
body when its source fails or the process shuts down; and closes its source, whose `finally` runs, as soon
as the client is gone. The heartbeat is a comment with ONE newline: `: ping` and a blank line after an `id:`
makes several clients parse an empty event (research security_api section 3).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.requests import HTTPConnection
from starlette.responses import Response

from nexus.core.errors import NexusError
from nexus.http.errors import ShuttingDown
from nexus.http.lifecycle import lifecycle_of
from nexus.http.problem import stream_error
from nexus.http.types import Receive, Scope, Send, path_of

log = logging.getLogger("nexus.http")

HEARTBEAT: Final = b": ping\n"
_EVENT_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_HEADERS: Final = {"cache-control": "no-cache", "x-accel-buffering": "no"}


@dataclass(frozen=True, slots=True)
class Event:
    """One event: `data` is JSON (bytes and str are taken as they are)."""

    data: Any
    event: str | None = None
    id: str | None = None

    def encode(self) -> bytes:
        """Return the event as it goes over the wire."""
        data = self.data if isinstance(self.data, str | bytes) else orjson.dumps(self.data, default=str)
        text = data.encode() if isinstance(data, str) else data
        lines = [b"data: " + line for line in re.split(rb"\r\n|\r|\n", text)]
        if self.event is not None:
            lines.insert(0, b"event: " + _one_line(self.event))
        if self.id is not None:
            lines.insert(0, b"id: " + _one_line(self.id))
        return b"\n".join(lines) + b"\n\n"


def _one_line(text: str) -> bytes:
    return text.replace("\r", " ").replace("\n", " ").replace("\0", "").encode()


def last_event_id(connection: HTTPConnection) -> str | None:
    """Return the id that a reconnecting client saw last, or None. Ids that we never send are ignored."""
    sent = connection.headers.get("last-event-id") or connection.query_params.get("last_event_id") or ""
    return sent if _EVENT_ID.fullmatch(sent) else None


class EventStream(Response):
    """A response that sends events for as long as its source has any."""

    media_type = "text/event-stream"
    charset = "utf-8"

    def __init__(
        self,
        events: AsyncIterable[Event | bytes],
        *,
        heartbeat: float = 15.0,
        retry: int | None = 2000,
        send_timeout: float = 60.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Stream `events` (bytes are sent as they are).

        `retry` in milliseconds tells the browser when to reconnect; `heartbeat` and `send_timeout` are in
        seconds. A client that takes nothing for `send_timeout` is disconnected.
        """
        super().__init__(headers={**_HEADERS, **(headers or {})})
        del self.headers["content-length"]
        self._events = events
        self._heartbeat = heartbeat
        self._retry = retry
        self._send_timeout = send_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; returns when it has ended or the client is gone."""
        source = aiter(self._events)
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if self._retry is not None:
                await self._write(send, b"retry: %d\n\n" % self._retry)
            await self._pump(scope, source, gone, send)
            if not gone.done():
                await self._write(send, b"", more=False)
        except TimeoutError:
            log.info("a reader of %s took nothing for %.0f s and was left", path_of(scope), self._send_timeout)
        finally:
            gone.cancel()
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()

    async def _pump(
        self, scope: Scope, source: AsyncIterator[Event | bytes], gone: asyncio.Future[None], send: Send
    ) -> None:
        lifecycle = lifecycle_of(scope)
        ending = asyncio.ensure_future(lifecycle.draining.wait()) if lifecycle else None
        others = [task for task in (gone, ending) if task is not None]
        upcoming: asyncio.Future[Event | bytes] | None = None
        try:
            while True:
                if upcoming is None:
                    upcoming = asyncio.ensure_future(anext(source))
                await asyncio.wait([upcoming, *others], timeout=self._heartbeat, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    return
                if upcoming.done():
                    ready, upcoming = upcoming, None
                    item = _result(scope, ready)
                    if item is None:
                        return
                    await self._write(send, item.encode() if isinstance(item, Event) else item)
                    if isinstance(item, _LastBytes):
                        return
                elif ending is not None and ending.done():
                    await self._write(send, stream_error(path_of(scope), ShuttingDown(), scope.get("request_id")))
                    return
                else:
                    await self._write(send, HEARTBEAT)
        finally:
            for task in (upcoming, ending):
                if task is not None:
                    task.cancel()
            if upcoming is not None:
                # The source's own `finally` blocks run here, before `aclose`.
                with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, NexusError):
                    await upcoming

    async def _write(self, send: Send, body: bytes, *, more: bool = True) -> None:
        async with asyncio.timeout(self._send_timeout):
            await send({"type": "http.response.body", "body": body, "more_body": more})


class _LastBytes(bytes):
    """Bytes after which nothing follows."""


def _result(scope: Scope, ready: asyncio.Future[Event | bytes]) -> Event | bytes | None:
    """The next item, None at the end, or the error event that the source's failure becomes."""
    try:
        return ready.result()
    except StopAsyncIteration:
        return None
    except NexusError as error:
        shown = error
    except Exception as error:  # the answer has begun: a last event is all that can be said
        log.error("a stream failed", exc_info=error, extra={"request_id": scope.get("request_id")})
        shown = NexusError()
    return _LastBytes(stream_error(path_of(scope), shown, scope.get("request_id")))


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
