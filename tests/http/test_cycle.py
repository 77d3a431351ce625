"""What requests and answers on one connection do to each other."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest
from tests.clock import PATIENCE, soon
from tests.http.conftest import Running, exchange

from nexus.http.lifecycle import Lifecycle
from nexus.http.settings import HTTPSettings
from nexus.http.types import FINISH, LEAVING, PUSH, WHOLE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_a_crowd")]


@contextlib.contextmanager
def bare(app: Any, **settings: Any) -> Any:
    """A server without the edge before the app."""
    running = Running(app, HTTPSettings(port=0, **{"shutdown_grace": 5, **settings}), Lifecycle(grace=5))
    try:
        yield running
    finally:
        running.stop()


def asked(path: str, *, body: bytes = b"", extra: str = "", method: str = "POST") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n{extra}\r\n".encode() + body


async def answer(send: Any, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    framed = [(b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": 200, "headers": framed})
    await send({"type": "http.response.body", "body": body})


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    at_once, most = 0, 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        body = (await receive())["body"]
        await asyncio.sleep(0.05 if scope["path"] == "/0" else 0)
        at_once -= 1
        await answer(send, b"<%s %s>" % (scope["path"].encode(), body))

    with bare(app) as running:
        sent = b"".join(asked(f"/{n}", body=b"b%d" % n) for n in range(20)) + asked(
            "/last", extra="connection: close\r\n"
        )
        got = await exchange(running.port, sent)
    assert [part.split(b">")[0] for part in got.split(b"<")[1:]] == [
        *(b"/%d b%d" % (n, n) for n in range(20)),
        b"/last ",
    ]
    assert most == 1
    assert got.count(b"connection: close") == 1


async def test_pieces_are_pushed_once_the_answer_has_begun_until_it_is_over() -> None:
    said: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        push = scope[PUSH]
        said.append(push(b"early", True))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        said.extend((push(b"one", True), push(b"two", False), push(b"late", True)))

    with bare(app) as running:
        got = await exchange(running.port, asked("/", extra="connection: close\r\n"))
    assert said == [False, True, True, False]
    assert got.partition(b"\r\n\r\n")[2] == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


async def test_who_is_gone_is_gone_for_pipelined_requests_too() -> None:
    heard: list[str] = []
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        loop.call_soon_threadsafe(begun.set)
        heard.append(scope["path"] + (await receive())["type"])
        await answer(send, b"late")

    with bare(app) as running:
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(asked("/1") + asked("/2"))
        await asyncio.wait_for(begun.wait(), PATIENCE)
        writer.transport.abort()
        await soon(lambda: heard)
    assert heard == ["/1http.disconnect"]


async def test_rubbish_behind_a_running_answer_does_not_get_into_it() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        await receive()

    with bare(app) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(asked("/1"))
        got = await asyncio.wait_for(reader.readuntil(b"part\r\n"), PATIENCE)
        writer.write(asked("/2") + b"NOT HTTP\r\n\r\n")
        rest = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
    assert b"transfer-encoding: chunked" in got
    assert b"HTTP/1.1" not in rest


async def test_a_client_that_waits_is_told_to_go_on_when_its_body_is_wanted() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, (await receive())["body"] if scope["path"] == "/read" else b"no")

    with bare(app) as running:
        for path, told in (("/read", True), ("/unread", False)):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            head, body = asked(path, body=b"body", extra="Expect: 100-Continue\r\n").split(b"\r\n\r\n")
            writer.write(head + b"\r\n\r\n")
            got = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
            assert got.startswith(b"HTTP/1.1 100 Continue") == told
            if told:
                writer.write(body)
                assert (await asyncio.wait_for(reader.readuntil(b"body"), PATIENCE)).startswith(b"HTTP/1.1 200")
            writer.close()


@pytest.mark.parametrize(
    ("path", "logged", "got"),
    [
        ("/raise", "Exception in ASGI application", b"HTTP/1.1 500"),
        ("/nothing", "without starting", b"HTTP/1.1 500"),
        ("/half", "without completing", b"HTTP/1.1 200"),
        ("/long", "Exception in ASGI application", b""),
        ("/short", "Exception in ASGI application", b""),
        ("/value", "Exception in ASGI application", b""),
        ("/order", "Exception in ASGI application", b"HTTP/1.1 500"),
        ("/twice", "Exception in ASGI application", b"HTTP/1.1 200"),
    ],
)
async def test_what_breaks_http_ends_the_connection(
    path: str, logged: str, got: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if path == "/raise":
            raise SystemExit(3)
        if path == "/half":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        elif path == "/order":
            await send({"type": "http.response.body", "body": b"x"})
        elif path == "/value":
            await answer(send, b"x", (b"x-a", b"1\r\nx-b: 2"))
        elif path in ("/long", "/short"):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"x" if path == "/short" else b"xxx"})
        elif path == "/twice":
            await answer(send, b"x")
            await answer(send, b"x")

    with caplog.at_level(logging.ERROR, "uvicorn.error"), bare(app) as running:
        answered = await exchange(running.port, asked(path), still=1 if path == "/twice" else None)
    assert answered.startswith(got)
    assert got or not answered
    assert answered.count(b"HTTP/1.1") == (1 if got else 0)
    assert any(logged in record.getMessage() for record in caplog.records)


async def test_a_reader_that_takes_nothing_holds_up_the_writer() -> None:
    written = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal written
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
            written += 1
        await send({"type": "http.response.body"})

    with bare(app) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1024)
        writer.write(asked("/"))
        await asyncio.sleep(0.5)
        held = written
        assert held < 1000
        size = 0
        while not (piece := await reader.read(1 << 20)).endswith(b"\r\n0\r\n\r\n"):
            size += len(piece)
        assert size > 60_000_000
        assert written == 1000
        writer.close()


async def test_a_body_nobody_reads_waits_at_the_client() -> None:

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(1.5)
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        await answer(send, b"%d" % size)

    with bare(app, body_timeout=1.0) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        body = bytes(50_000_000)
        writer.write(asked("/", body=body))
        await asyncio.sleep(0.3)
        assert writer.transport.get_write_buffer_size() > 0
        assert await asyncio.wait_for(reader.readuntil(b"50000000"), PATIENCE)
        writer.close()


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(2.5 if scope["path"] == "/slow" else 0)
        await answer(send, b"done")

    with bare(app, keep_alive=1) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        for path in ("/quick", "/slow"):
            writer.write(asked(path))
            assert await asyncio.wait_for(reader.readuntil(b"done"), PATIENCE)
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        writer.close()


async def test_a_connection_too_many_is_told_so() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"done")

    with bare(app, max_connections=2) as running:
        kept = [await asyncio.open_connection("127.0.0.1", running.port) for _ in range(2)]
        for reader, writer in kept:
            writer.write(asked("/"))
            await asyncio.wait_for(reader.readuntil(b"done"), PATIENCE)
        refused = await exchange(running.port, asked("/"))
        assert refused.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in refused
        for _, writer in kept:
            writer.close()


async def test_targets_are_understood() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, repr([scope["path"], scope["raw_path"], scope["query_string"]]).encode())

    with bare(app, root_path="/root") as running:
        for target, path, query in (
            ("/a%20b?c=%20#d", "/a b", b"c=%20"),
            ("http://other/a?b", "/a", b"b"),
            ("http://other", "/", b""),
        ):
            got = await exchange(running.port, asked(target, method="GET", extra="connection: close\r\n"))
            raw = path.replace(" ", "%20").encode()
            assert got.endswith(repr([f"/root{path}", b"/root" + raw, query]).encode()), got
        head = await exchange(running.port, asked("/", method="HEAD", extra="connection: close\r\n"))
        assert head.endswith(b"\r\n\r\n")
        assert b"content-length: " in head


async def test_a_whole_answer_goes_out_at_once_unless_something_is_special_about_it() -> None:
    said: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        finish = scope[FINISH]
        said.append(finish(200, b"x-own: 1\r\n", b"whole"))
        said.append(finish(200, b"", b"twice"))
        if not said[-2]:
            await answer(send, b"by hand")

    with bare(app) as running:
        plain = await exchange(running.port, asked("/", extra="connection: close\r\n"))
        of_head = await exchange(running.port, asked("/", extra="connection: close\r\n", method="HEAD"))
    assert said == [True, False, False, False]
    head, _, body = plain.partition(b"\r\n\r\n")
    assert body == b"whole"
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert {b"x-own: 1", b"content-length: 5", b"connection: close"} <= set(lines)
    assert any(line.startswith(b"date: ") for line in lines)
    assert of_head.endswith(b"\r\n\r\n")
    assert b"content-length: 7" in of_head


async def test_connections_live_on_after_a_whole_answer() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope[FINISH](201, b"", scope["path"].encode())

    with bare(app) as running:
        got = await exchange(running.port, asked("/one") + asked("/two", extra="connection: close\r\n"))
    assert got.index(b"/one") < got.index(b"/two")
    assert got.count(b"HTTP/1.1 201 Created") == 2


@pytest.mark.parametrize("extra", ["", "expect: 100-continue\r\n"])
async def test_a_body_that_has_come_is_taken_whole_and_another_is_read(extra: str) -> None:
    whole: list[bytes | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        whole.append(scope[WHOLE]())
        body = whole[-1]
        if body is None:
            message = await receive()
            body = message["body"]
            while message["more_body"]:
                message = await receive()
                body += message["body"]
        await answer(send, body)

    with bare(app) as running:
        got = await exchange(running.port, asked("/", body=b"at once", extra=extra + "connection: close\r\n"))
        assert got.endswith(b"at once")
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        sent = asked("/", body=b"in pieces", extra="connection: close\r\n")
        writer.write(sent[:-3])
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(sent[-3:])
        assert (await reader.read()).endswith(b"in pieces")
        writer.close()
    assert whole == [None if extra else b"at once", None]


async def test_who_leaves_before_the_end_of_an_answer_is_told_of_once() -> None:
    told: list[str] = []
    asleep, over = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        scope[LEAVING](lambda: told.append(path))
        if path == "/unheard":
            scope[LEAVING](None)
        if path == "/answered":
            await answer(send, b"")
            return
        loop.call_soon_threadsafe(asleep.set)
        await soon(lambda: not running.server.server_state.connections)
        if path == "/late":
            scope[LEAVING](lambda: told.append("after it"))
            await asyncio.sleep(0)
        await answer(send, b"")
        loop.call_soon_threadsafe(over.set)

    with bare(app) as running:
        await exchange(running.port, asked("/answered", extra="connection: close\r\n"))
        for path in ("/gone", "/unheard", "/late"):
            asleep.clear()
            over.clear()
            _, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(asked(path))
            await asyncio.wait_for(asleep.wait(), PATIENCE)
            writer.transport.abort()
            await asyncio.wait_for(over.wait(), PATIENCE)
    assert told == ["/gone", "/late", "after it"]
