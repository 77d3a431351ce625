"""Requests whose head a connection knows are what they would be to the parser, however they are cut."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.clock import PATIENCE
from tests.http.conftest import Serve
from uvicorn.config import Config
from uvicorn.server import ServerState

from nexus.http.known import KnowingProtocol, learn
from nexus.http.protocol import BoundedProtocol, Limits
from nexus.http.types import KNOWN, LENGTH


class Wire(asyncio.Transport):
    """The client's end, which keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 5555), "sockname": ("127.0.0.1", 80)}.get(name, default)

    def is_closing(self) -> bool:
        return self.closed

    def write(self, data: Any) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


Seen = tuple[Any, ...]


def tell(kind: type[BoundedProtocol], pieces: list[bytes]) -> tuple[list[Seen], bytes, int, bool]:
    """Return what the app saw of the requests in `pieces`, what it answered, how many heads it knew, and the end."""
    seen: list[Seen] = []
    known = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal known
        known += KNOWN in scope
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        told = (scope["method"], scope["path"], scope["query_string"], scope["http_version"], list(scope["headers"]))
        seen.append(
            (*told, body, dict(scope.get("nexus.headers", scope["headers"])), sorted(scope.keys() - {KNOWN, LENGTH}))
        )
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def run() -> tuple[list[Seen], bytes, int, bool]:
        config = Config(app, log_config=None)
        config.load()
        state, wire = ServerState(), Wire()
        protocol = kind(Limits(), config, state, {}, asyncio.get_running_loop())
        protocol.connection_made(wire)
        for piece in pieces:
            if wire.closed:
                break
            protocol.data_received(piece)
            for _ in range(12):
                await asyncio.sleep(0)
        protocol.connection_lost(None)
        for task in state.tasks:
            task.cancel()
        return seen, wire.sent, known, wire.closed

    found, sent, heads, closed = asyncio.run(run())
    told = [(*entry[:-1], [name for name in entry[-1] if name != "nexus.headers"]) for entry in found]
    return told, re.sub(rb"req_\w+", b"req", sent), heads, closed  # no two ids are the same


def asked(body: bytes, *, more: bytes = b"", length: bytes | None = None, path: bytes = b"/v1/x?a=1") -> bytes:
    named = b"%d" % len(body) if length is None else length
    return b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %b\r\nX-More:  b\r\n%b\r\n%b" % (path, named, more, body)


KINDS = [
    asked(b""),
    asked(b"12345"),
    asked(b"0123456789ab"),
    asked(b"12345", length=b"05"),
    asked(b"12345", length=b"5 "),
    asked(b"12345", length=b"+5"),
    asked(b"12345", length=b"5, 5"),
    asked(b"12345", length=b"0000000000000005"),
    asked(b"12345", more=b"content-length: 5\r\n"),
    asked(b"12345", more=b"connection: close\r\n"),
    asked(b"12345", more=b"Connection: Keep-Alive\r\n"),
    asked(b"12345", more=b"expect: 100-continue\r\n"),
    asked(b"12345", path=b"/other"),
    asked(b"12345", more=b"y: z  \r\n"),
    asked(b"12345", more=b"Connection: upgrade\r\nUpgrade: h2c\r\n"),
    b"POST /v1/x?a=1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n",
    b"GET /v1/x HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\n" + asked(b"12345"),
    b"POST /v1/x?a=1 HTTP/1.0\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
    b"no request at all\r\n\r\n",
]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % len(data) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.sampled_from([*KINDS[:3] * 6, *KINDS]), min_size=1, max_size=8),
    st.lists(st.integers(0, 2000), max_size=6),
    st.booleans(),
)
@example([KINDS[1]] * 3 + [asked(b"0123456789ab" * 3) + KINDS[1]], [], False)
def test_what_is_known_is_what_would_be_parsed(requests: list[bytes], places: list[int], together: bool) -> None:
    """Together: in one stream cut anywhere. Else each request is cut by itself, as clients send them."""
    pieces = cut(b"".join(requests), places) if together else [part for one in requests for part in cut(one, places)]
    plain, knowing = tell(BoundedProtocol, pieces), tell(KnowingProtocol, pieces)
    assert knowing[0] == plain[0]
    assert knowing[1] == plain[1]
    assert knowing[3] == plain[3]


@pytest.mark.parametrize("request_", KINDS)
def test_after_a_known_head_every_other_is_parsed(request_: bytes) -> None:
    pieces = [KINDS[1], KINDS[1], KINDS[1], request_, KINDS[1]]
    plain, knowing = tell(BoundedProtocol, pieces), tell(KnowingProtocol, pieces)
    assert (knowing[0], knowing[1], knowing[3]) == (plain[0], plain[1], plain[3])
    assert knowing[2] >= 1
    assert plain[2] == 0


def test_the_head_of_the_third_request_is_known_with_its_own_length() -> None:
    head, _, body = asked(b"0123456789ab").partition(b"\r\n\r\n")
    seen, sent, known, _ = tell(KnowingProtocol, [KINDS[1], KINDS[1], head + b"\r\n\r\n", body[:3], body[3:], KINDS[0]])
    assert known == 2
    assert [entry[5] for entry in seen] == [b"12345", b"12345", b"0123456789ab", b""]
    assert [dict(entry[4])[b"content-length"] for entry in seen] == [b"5", b"5", b"12", b"0"]
    assert sent.count(b"200 OK") == 4


def test_only_a_few_heads_are_learnt_where_each_is_another() -> None:
    pieces = [asked(b"1", path=b"/%d" % (n // 2)) for n in range(24)]
    _, sent, known, _ = tell(KnowingProtocol, pieces)
    assert sent.count(b"200 OK") == 24
    assert 0 < known < 8


@pytest.mark.parametrize(
    "head",
    [
        b"POST /x HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntrailer: x\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\nconnection: close\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 1",
        b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\nx-long: " + b"x" * 9000 + b"\r\n\r\n",
    ],
)
def test_what_is_not_plain_is_not_learnt(head: bytes) -> None:
    lines = head.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    headers = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    scope = {"method": "POST", "http_version": "1.1", "headers": headers}
    assert learn(head, b"/x", scope) is None


@pytest.mark.slow
async def test_limits_and_gates_hold_for_known_heads(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    port = serve(app, json_limit=100).port
    for host, last, statuses in (
        (b"localhost", 10, [b"200"] * 4),
        (b"localhost", 101, [*[b"200"] * 3, b"413"]),
        (b"evil.example", 10, [b"421"] * 4),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        found = []
        for size in (10, 20, 10, last):
            writer.write(
                b"POST /api/v1/x HTTP/1.1\r\nhost: %b\r\ncontent-length: %d\r\n\r\n" % (host, size) + b"x" * size
            )
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
            found.append(head.split(b" ")[1])
            length = re.search(rb"content-length: (\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
        writer.close()
        assert found == statuses, host


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"caller_id-12345", None])
async def test_requests_of_one_head_have_the_id_that_it_gives_them_or_each_its_own(
    serve: Serve, sent: bytes | None
) -> None:
    known: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        known.append(KNOWN in scope)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    head = b"POST /x HTTP/1.1\r\nhost: localhost\r\n" + (b"x-request-id: %b\r\n" % sent if sent else b"")
    reader, writer = await asyncio.open_connection("127.0.0.1", serve(app).port)
    ids = []
    for number in range(5):
        writer.write(head + b"content-length: %d\r\n\r\n%b" % (number, b"x" * number))
        answer = await reader.readuntil(b"\r\n\r\n")
        ids.append(answer.partition(b"x-request-id: ")[2].partition(b"\r\n")[0])
    writer.close()
    assert known == [False, False, True, True, True]
    assert ids == [sent] * 5 if sent else len(set(ids)) == 5
