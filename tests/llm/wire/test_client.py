"""The HTTP client against servers that do what servers do, and worse."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import h11
import msgspec
import pytest
from tests.clock import soon

from nexus.core.errors import NexusError
from nexus.llm.errors import UpstreamMalformed, UpstreamTimeout, UpstreamTruncated, UpstreamUnavailable
from nexus.llm.types import Timeouts
from nexus.llm.wire.client import HttpClient, HttpRequest, render

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
USUAL = Timeouts(connect=5, first_token=30, between_tokens=30, total=60)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    def __init__(self, url: str) -> None:
        self.url = url
        self.connections = 0
        self.requests: list[bytes] = []
        self.closed = 0


@asynccontextmanager
async def server(
    answer: bytes | Callable[[Server, int], list[bytes | float]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """Answer each request with raw bytes; a list may have pauses, and ends with the connection if it ends with b""."""
    state = Server("")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state.connections += 1
        number = state.connections
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                state.requests.append(head + await reader.readexactly(length))
                pieces = [answer] if isinstance(answer, bytes) else answer(state, number)
                for piece in pieces:
                    if isinstance(piece, float):
                        await asyncio.sleep(piece)
                        continue
                    writer.write(piece)
                    await writer.drain()
                if pieces[-1] == b"":
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            state.closed += 1
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    scheme = "https" if tls else "http"
    state.url = f"{scheme}://localhost:{listener.sockets[0].getsockname()[1]}/v1"
    yield state
    listener.close()


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


def ask(state: Server, body: bytes = b"{}") -> HttpRequest:
    return HttpRequest(url=state.url + "/x", body=body, headers=(("authorization", "Bearer k"),))


async def test_connections_are_kept_and_requests_are_well_formed(client: HttpClient) -> None:
    async with server(OK) as state:
        for _ in range(5):
            answer = await client.fetch(ask(state, b"body"), USUAL)
            assert (answer.status, answer.body) == (200, b"ok")
        assert state.connections == 1
        assert client.open_connections() == 1
        reader = h11.Connection(h11.SERVER)
        reader.receive_data(state.requests[0])
        request = reader.next_event()
        assert isinstance(request, h11.Request)
        headers = dict(request.headers)
        assert request.target == b"/v1/x"
        assert headers[b"authorization"] == b"Bearer k"
        assert headers[b"accept-encoding"] == b"identity"
        assert headers[b"content-length"] == b"4"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (CHUNKED + b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n", b"abcde"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", b"ok"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: " + b"y" * 60_000 + b"\r\n\r\nok", b"ok"),
    ],
)
async def test_every_framing_is_read(client: HttpClient, answer: bytes, body: bytes) -> None:
    async with server(lambda *_: [answer, b""]) as state:
        got = await client.fetch(ask(state), USUAL)
        assert got.body == body
        assert "link" not in got.headers


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"hello\r\n\r\n", UpstreamMalformed),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok", UpstreamMalformed),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok", UpstreamMalformed),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n", UpstreamMalformed),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000, UpstreamMalformed),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nok", UpstreamMalformed),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", NexusError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nok", UpstreamTruncated),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", UpstreamTruncated),
        (b"HTTP/1.1 200 OK\r\nx", UpstreamTruncated),
    ],
)
async def test_broken_answers_are_errors_and_their_connections_are_closed(
    client: HttpClient, answer: bytes, error: type[NexusError]
) -> None:
    async with server(lambda *_: [answer, 0.05, b""]) as state:
        with pytest.raises(error):
            await client.fetch(ask(state), USUAL)
        assert client.open_connections() == 0


async def test_a_kept_connection_that_died_is_replaced_once(client: HttpClient) -> None:
    def once(state: Server, number: int) -> list[bytes | float]:
        # The first connection answers and then drops the second request unread.
        return [b""] if number == 1 and len(state.requests) > 1 else [OK]

    async with server(once) as state:
        await client.fetch(ask(state), USUAL)
        assert (await client.fetch(ask(state), USUAL)).body == b"ok"
        assert state.connections == 2
    async with server(lambda *_: [b""]) as state:
        with pytest.raises(UpstreamUnavailable):
            await client.fetch(ask(state), USUAL)
        assert state.connections == 1, "a fresh connection is not tried again"


async def test_a_connection_that_broke_after_a_byte_is_not_tried_again(client: HttpClient) -> None:
    async with server(lambda state, _: [OK] if len(state.requests) == 1 else [b"HTTP/1.1", b""]) as state:
        await client.fetch(ask(state), USUAL)
        with pytest.raises(UpstreamTruncated):
            await client.fetch(ask(state), USUAL)
        assert len(state.requests) == 2


async def test_the_total_limit_holds_for_slow_headers(client: HttpClient) -> None:
    drip: list[bytes | float] = [x for byte in b"HTTP/1.1 200 OK\r\n" for x in (bytes([byte]), 0.1)]
    async with server(lambda *_: drip) as state:
        began = time.monotonic()
        with pytest.raises(UpstreamTimeout):
            await client.fetch(ask(state), Timeouts(connect=1, total=0.5))
        assert 0.4 < time.monotonic() - began < 15
        assert client.open_connections() == 0


STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "limits", "seconds", "got"),
    [
        ([STREAM, 60.0], {"first_token": 0.3}, 0.3, 0),
        (
            [STREAM, b"1\r\na\r\n", 0.2, b"1\r\nb\r\n", 0.2, b"1\r\nc\r\n", 60.0],
            {"between_tokens": 0.3},
            0.7,
            3,
        ),
        ([STREAM, *[b"1\r\na\r\n", 0.1] * 600], {"total": 1.5}, 1.5, 10),
    ],
    ids=["first token", "between tokens", "total"],
)
async def test_each_phase_of_a_stream_has_its_limit(
    client: HttpClient, pieces: list[bytes | float], limits: dict[str, float], seconds: float, got: int
) -> None:
    async with server(lambda *_: pieces) as state:
        for _ in range(5):
            began, seen = time.monotonic(), 0
            with pytest.raises(UpstreamTimeout):  # noqa: PT012  entering and reading are one thing here
                async with client.send(ask(state), msgspec.structs.replace(USUAL, **limits), stream=True) as answer:
                    while data := await answer.next():
                        seen += len(data)
                        answer.has_begun()
            assert time.monotonic() - began < 15
            if seen >= got:
                break  # else this machine rested for longer than the limit
        assert seconds - 0.05 < time.monotonic() - began
        assert seen >= got


async def test_a_slow_reader_is_no_reason_to_give_up_and_holds_the_sender_back(client: HttpClient) -> None:
    blob = b"%x\r\n" % 65536 + b"x" * 65536 + b"\r\n"
    sent = 0

    def many(state: Server, number: int) -> list[bytes | float]:
        return [STREAM, *[blob] * 400, b"0\r\n\r\n"]

    async with server(many) as state:
        limits = Timeouts(connect=5, first_token=30, between_tokens=0.5, total=60)
        async with client.send(ask(state), limits, stream=True) as answer:
            sent += len(await answer.next())
            await asyncio.sleep(0.8)
            connection = answer._connection
            assert connection is not None
            assert connection._buffered < 2_000_000
            while data := await answer.next():
                sent += len(data)
        assert sent == 400 * 65536


async def test_pieces_are_passed_on_as_they_come_until_they_are_not_wanted(client: HttpClient) -> None:
    pieces: list[bytes | float] = [STREAM, b"1\r\na\r\n", 0.02, b"1\r\nb\r\n", 0.02, b"1\r\nc\r\n", 0.02]
    async with server(lambda *_: [*pieces, b"1\r\nd\r\n", 0.02, b"1\r\ne\r\n0\r\n\r\n"]) as state:
        seen: list[bytes] = []

        def take(data: bytes) -> bool:
            seen.append(data)
            return data != b"c"

        async with client.send(ask(state), USUAL, stream=True) as answer:
            assert await answer.next() == b"a"
            await answer.pass_on(take)
            assert seen == [b"b", b"c"]
            assert await answer.next() == b"d"
            await answer.pass_on(take)
            assert seen == [b"b", b"c", b"e"]
            assert await answer.next() == b""
        assert client.open_connections() == 1


async def test_what_breaks_while_pieces_are_passed_on_is_told(client: HttpClient) -> None:
    async with server(lambda *_: [STREAM, b"1\r\na\r\n", 0.02, b"1\r\nb\r\n", 0.02, b""]) as state:
        seen: list[bytes] = []

        def take(data: bytes) -> bool:
            seen.append(data)
            return True

        async with client.send(ask(state), USUAL, stream=True) as answer:
            assert await answer.next() == b"a"
            await answer.pass_on(take)
            assert seen == [b"b"]
            with pytest.raises(UpstreamTruncated):
                await answer.next()


async def test_more_than_may_wait_is_passed_on_too(client: HttpClient) -> None:
    blob = b"%x\r\n" % 65536 + b"x" * 65536 + b"\r\n"
    async with server(lambda *_: [STREAM, b"1\r\na\r\n", 0.02, *[blob] * 100, b"0\r\n\r\n"]) as state:
        seen: list[int] = []
        async with client.send(ask(state), USUAL, stream=True) as answer:
            assert await answer.next() == b"a"
            await answer.pass_on(lambda data: seen.append(len(data)) or True)  # type: ignore[func-returns-value]
            assert sum(seen) == 100 * 65536


async def test_cancelling_closes_the_socket_at_once(client: HttpClient) -> None:
    async with server(lambda *_: [STREAM, b"1\r\na\r\n", 0.2, *[b"1\r\na\r\n", 0.05] * 100]) as state:

        async def read() -> None:
            async with client.send(ask(state), USUAL, stream=True) as answer:
                while await answer.next():
                    pass

        task = asyncio.create_task(read())
        await soon(lambda: state.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.open_connections() == 0
        await soon(lambda: state.closed)
        assert state.closed == 1


async def test_connections_are_capped_and_waiters_have_their_turn() -> None:
    client = HttpClient(connections=3)
    async with server(lambda *_: [0.02, OK]) as state:
        answers = await asyncio.gather(*(client.fetch(ask(state), USUAL) for _ in range(20)))
        assert [answer.body for answer in answers] == [b"ok"] * 20
        assert state.connections <= 3
    async with server(lambda *_: [60.0, OK]) as state:
        busy = [asyncio.create_task(client.fetch(ask(state), USUAL)) for _ in range(3)]
        await soon(lambda: len(state.requests) == 3)
        with pytest.raises(UpstreamTimeout):
            await client.fetch(ask(state), Timeouts(connect=0.1, total=1))
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
    await client.close()
    assert client.open_connections() == 0


async def test_unused_connections_are_closed_after_a_while() -> None:
    client = HttpClient(keepalive=0.4)
    async with server(lambda *_: [0.01, OK]) as state:
        await asyncio.gather(*(client.fetch(ask(state), USUAL) for _ in range(5)))
        assert client.open_connections() == 5
        await soon(lambda: client.open_connections() == 0)
    await client.close()


async def test_a_refused_connection_and_an_unknown_host_are_unavailable(client: HttpClient) -> None:
    for url in ("http://127.0.0.1:1/v1", "http://does-not-exist.invalid/v1"):
        with pytest.raises(UpstreamUnavailable) as caught:
            await client.fetch(HttpRequest(url=url), USUAL)
        assert "127.0.0.1" not in caught.value.message


@pytest.mark.parametrize(
    "request_",
    [
        HttpRequest(url="ftp://x/y"),
        HttpRequest(url="http:///y"),
        HttpRequest(url="http://x/a b"),
        HttpRequest(url="http://x/\r\nhost: evil"),
        HttpRequest(url="http://x/ü"),
        HttpRequest(url="http://x/", headers=(("authorization", "Bearer a\r\nx: y"),)),
        HttpRequest(url="http://x/", headers=(("a", "b\n"),)),
        HttpRequest(url="http://x/", headers=(("a", "☃"),)),
    ],
)
def test_a_request_cannot_be_split(request_: HttpRequest) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  urllib and the codecs have their own words
        render(request_)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no openssl to make a certificate with")
    return folder


async def test_tls_is_spoken_and_certificates_are_checked(certificate: Path, client: HttpClient) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    async with server(OK, tls=context) as state:
        trusting = HttpClient(ca_file=str(certificate / "cert.pem"))
        assert (await trusting.fetch(ask(state), USUAL)).body == b"ok"
        wrong_name = HttpRequest(url=state.url.replace("localhost", "127.0.0.1"))
        with pytest.raises(UpstreamUnavailable):
            await trusting.fetch(wrong_name, USUAL)
        with pytest.raises(UpstreamUnavailable):
            await client.fetch(ask(state), USUAL)
        await trusting.close()
