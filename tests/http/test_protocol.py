"""Requests as odd clients write them, byte for byte."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.clock import PATIENCE
from tests.http.conftest import Serve, exchange

from nexus.http.body import read_body

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_a_crowd")]

ONE_SHOT = b"POST /api/v1/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody"


async def heard(scope: Any, receive: Any, send: Any) -> None:
    """Answer in two pieces, of unknown length, with the body and the headers that came."""
    body = await read_body(receive, 1 << 20)
    names = sorted(name.decode() for name, _ in scope["headers"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body + b"|", "more_body": True})
    await asyncio.sleep(0.01)
    await send({"type": "http.response.body", "body": json.dumps(names).encode()})


async def test_a_client_of_http_1_0_gets_no_chunks(serve: Serve) -> None:
    asked = ONE_SHOT.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Connection: close\r\n", b"")
    head, _, body = (await exchange(serve(heard).port, asked)).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    assert body == b'body|["content-length", "host"]'


WISHES = [
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
    b"Connection: keep-alive, upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
]


@pytest.mark.parametrize("wish", WISHES, ids=["h2c", "websocket"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_wish_for_another_protocol_is_passed_over(serve: Serve, wish: bytes, *, chunked: bool) -> None:
    framing, body = b"Content-Length: 4\r\n", b"wish"
    if chunked:
        framing, body = b"Transfer-Encoding: chunked\r\n", b"2\r\nwi\r\n2\r\nsh\r\n0\r\n\r\n"
    asked = b"POST /api/v1/x HTTP/1.1\r\nHost: localhost\r\nX-Empty:\r\n" + wish + framing + b"\r\n" + body
    port = serve(heard).port
    answer = await exchange(port, asked + ONE_SHOT)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert b"wish|" in answer
    assert b"body|" in answer
    names = answer.partition(b"wish|")[2].partition(b"]")[0]
    assert b"x-empty" in names
    assert b"upgrade" not in names
    assert b"http2-settings" not in names
    # The same in single bytes.
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for place in range(len(asked)):
        writer.write(asked[place : place + 1])
        await writer.drain()
        await asyncio.sleep(0)
    assert b"wish|" in await asyncio.wait_for(reader.readuntil(b"]"), PATIENCE)
    writer.close()


async def test_a_wish_for_a_tunnel_is_answered_once(serve: Serve) -> None:
    answer = await exchange(serve(heard).port, b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", still=1)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 ")
