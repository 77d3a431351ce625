from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.testclient import TestClient
from tests.clock import PATIENCE, soon

from nexus.core.errors import NotFound
from nexus.http.sse import Event, EventStream, last_event_id

from .conftest import Serve


@pytest.mark.parametrize(
    ("event", "wire"),
    [
        (Event({"a": 1}), b'data: {"a":1}\n\n'),
        (Event("x", event="tick", id="7"), b"id: 7\nevent: tick\ndata: x\n\n"),
        (Event("two\nlines\r\nor\rmore"), b"data: two\ndata: lines\ndata: or\ndata: more\n\n"),
        (Event("", id="1\ndata: forged", event="a\rb"), b"id: 1 data: forged\nevent: a b\ndata: \n\n"),
    ],
)
def test_events_on_the_wire(event: Event, wire: bytes) -> None:
    assert event.encode() == wire


def app_of(source: Any, **options: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await EventStream(source(), **options)(scope, receive, send)

    return app


async def three() -> AsyncIterator[Event]:
    for number in range(3):
        yield Event({"n": number}, id=str(number))


def test_a_stream_and_its_headers() -> None:
    answer = TestClient(app_of(three)).get("/api/v1/events")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["cache-control"] == "no-cache"
    expected = "".join(f'id: {n}\ndata: {{"n":{n}}}\n\n' for n in range(3))
    assert answer.text == "retry: 2000\n\n" + expected


@pytest.mark.parametrize("error", [NotFound("The run is gone."), RuntimeError("password=hunter2")])
def test_a_failing_source_ends_with_an_error_event(error: Exception) -> None:
    async def source() -> AsyncIterator[Event]:
        yield Event(1)
        raise error

    text = TestClient(app_of(source, retry=None)).get("/api/v1/events").text
    head, _, data = text.partition("event: error\ndata: ")
    assert head == "data: 1\n\n"
    assert json.loads(data)["code"] == ("not_found" if isinstance(error, NotFound) else "internal_error")
    assert "hunter2" not in text


def test_a_silent_source_is_kept_alive() -> None:
    pings = 0

    async def source() -> AsyncIterator[Event]:
        await soon(lambda: pings >= 3)
        yield Event("late")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def count(message: Any) -> None:
            nonlocal pings
            pings += message.get("body") == b": ping\n"
            await send(message)

        await EventStream(source(), retry=None, heartbeat=0.1)(scope, receive, count)

    text = TestClient(app).get("/api/v1/events").text
    assert re.fullmatch(r"(: ping\n){3,}data: late\n\n", text)


@pytest.mark.slow
async def test_a_gone_client_closes_the_source_at_once(serve: Serve) -> None:
    closed: list[float] = []

    async def source() -> AsyncIterator[Event]:
        try:
            yield Event("first")
            await asyncio.sleep(60)
            yield Event("never")
        finally:
            # A source may still have something to do when it is closed.
            await asyncio.sleep(0.01)
            closed.append(time.monotonic())

    running = serve(app_of(source))
    async with httpx.AsyncClient() as client, client.stream("GET", running.url + "/api/v1/events") as answer:
        async for line in answer.aiter_lines():
            if line == "data: first":
                break
    left = time.monotonic()
    await soon(lambda: closed)
    assert closed[0] - left < 10, "not only when a sign of life is due"
    await soon(lambda: running.lifecycle.inflight == 0)


@pytest.mark.slow
async def test_a_reader_who_takes_nothing_is_left(serve: Serve) -> None:
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def source() -> AsyncIterator[Event]:
        try:
            while True:
                yield Event("x" * 65536)
        finally:
            loop.call_soon_threadsafe(closed.set)

    running = serve(app_of(source, send_timeout=0.5))
    _, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1024)
    writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        await closed.wait()
    writer.transport.abort()


def test_the_last_event_id_is_taken_only_if_it_could_be_ours() -> None:
    def request(value: bytes) -> Request:
        return Request({"type": "http", "headers": [(b"last-event-id", value)], "query_string": b""})

    assert last_event_id(request(b"evt_42")) == "evt_42"
    for bad in (b"", b"a b", b"\xff", b"x" * 129):
        assert last_event_id(request(bad)) is None
