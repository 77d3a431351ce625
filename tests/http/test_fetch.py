from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from nexus.core.errors import InvalidInput, NexusError, TooLarge
from nexus.http import fetch
from nexus.http.errors import FetchFailed, FetchTimeout, UrlNotAllowed
from nexus.http.fetch import safe_fetch
from nexus.testing.unreachable import server_context
from nexus.testing.upstream import FakeUpstream

from .test_urls import MALFORMED

LOCAL = ["127.0.0.0/8"]
Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Listener:
    """A server that counts connections, keeps what it was sent, and answers as it is told."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.answer: bytes | Answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.startswith(b"content-length")), 0)
            self.requests.append(head + await reader.readexactly(length))
            if isinstance(self.answer, bytes):
                writer.write(self.answer)
                await writer.drain()
            else:
                await self.answer(self.requests[-1], writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    server = Listener()
    await server.start()
    yield server
    server.server.close()


def hosts(**names: list[str]) -> Any:
    """A resolver that knows only these names (underscores read as dots)."""
    known = {name.replace("_", "."): answers for name, answers in names.items()}

    async def resolver(host: str, port: int) -> list[str]:
        return known.get(host, [host])

    return resolver


async def test_what_is_sent_and_what_comes_back(listener: Listener) -> None:
    listener.answer = b"HTTP/1.1 201 Created\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello"
    fetched = await safe_fetch(
        f"http://hook.example:{listener.port}/a?b=c",
        method="POST",
        headers={"Authorization": "Bearer x", "Content-Type": "application/json"},
        body=b"{}",
        allow=LOCAL,
        resolver=hosts(hook_example=["127.0.0.1"]),
    )
    assert (fetched.status, fetched.ok, fetched.body, fetched.headers["x-a"]) == (201, True, b"hello", "b")
    sent = listener.requests[0].decode()
    assert sent.startswith("POST /a?b=c HTTP/1.1\r\n")
    assert f"host: hook.example:{listener.port}\r\n" in sent
    assert "accept-encoding: identity\r\n" in sent
    assert sent.endswith("\r\n\r\n{}")


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", b"old"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", b"x"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone", b"none"),
    ],
)
async def test_all_framings_are_read(listener: Listener, answer: bytes, body: bytes) -> None:
    listener.answer = answer
    assert (await safe_fetch(listener.url, allow=LOCAL)).body == body


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 200_000,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ],
)
async def test_broken_answers_are_fetch_failures(listener: Listener, answer: bytes) -> None:
    listener.answer = answer
    with pytest.raises(FetchFailed) as caught:
        await safe_fetch(listener.url, allow=LOCAL)
    assert caught.value.field == "url"


async def test_by_default_nothing_private_is_reached(listener: Listener) -> None:
    """The canary: the listener is there, and none of these URLs brings anybody to it."""
    port = listener.port
    spellings = [f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", f"[::ffff:127.0.0.1]:{port}"]
    spellings += [f"{host}:{port}" for host in ("2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "0.0.0.0")]
    spellings += [f"127.0.0.1:{port}\\@1.1.1.1", f"1.1.1.1@127.0.0.1:{port}", f"[64:ff9b::7f00:1]:{port}"]
    urls = [f"http://{spelling}/" for spelling in spellings] + MALFORMED
    assert len(urls) > 50
    for url in urls:
        with pytest.raises(UrlNotAllowed) as caught:
            await safe_fetch(url, timeout=30)
        assert (caught.value.code, caught.value.status) == ("url_not_allowed", 400)
    names = ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:7f00:1", "2002:7f00:1::", "224.0.0.1"]
    for address in names:
        for answers in ([address], ["8.8.8.8", address], [address, "8.8.8.8"]):
            with pytest.raises(UrlNotAllowed):
                await safe_fetch(f"http://evil.example:{port}/", resolver=hosts(evil_example=answers), timeout=30)
    assert listener.connections == 0


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1:{other}/",
        "//[::1]:{other}/",
        "http://rebound.example:{other}/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:{other}/",
        "http://127.0.0.1:{other}\\@1.1.1.1/",
        "http://2130706433:{other}/",
    ],
)
async def test_redirects_lead_nowhere_inside(listener: Listener, location: str) -> None:
    """Only 127.0.0.1 is allowed here; the canary listens on 127.0.0.2."""
    canary = Listener()
    canary.server = await asyncio.start_server(canary._serve, "127.0.0.2", 0)
    other = canary.server.sockets[0].getsockname()[1]
    listener.answer = f"HTTP/1.1 302 Found\r\nLocation: {location.format(other=other)}\r\n\r\n".encode()
    resolver = hosts(rebound_example=["127.0.0.2"])
    with pytest.raises(UrlNotAllowed):
        await safe_fetch(listener.url, allow=["127.0.0.1/32"], resolver=resolver, timeout=30)
    assert (listener.connections, canary.connections) == (1, 0)
    canary.server.close()


async def test_a_name_that_changes_its_mind_is_resolved_once(listener: Listener) -> None:
    asked = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    fetched = await safe_fetch(f"http://a.example:{listener.port}/", allow=LOCAL, resolver=rebinding)
    assert fetched.body == b"ok"
    assert asked == ["a.example"]


async def test_redirects_are_followed_three_times(listener: Listener) -> None:
    async def count_down(request: bytes, writer: asyncio.StreamWriter) -> None:
        left = int(request.split(b" ")[1][1:])
        if left:
            writer.write(b"HTTP/1.1 307 Moved\r\nLocation: /%d\r\nContent-Length: 0\r\n\r\n" % (left - 1))
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere")

    listener.answer = count_down
    fetched = await safe_fetch(listener.url + "/3", allow=LOCAL)
    assert (fetched.body, fetched.url) == (b"here", listener.url + "/0")
    with pytest.raises(UrlNotAllowed):
        await safe_fetch(listener.url + "/4", allow=LOCAL)
    posted = await safe_fetch(listener.url + "/1", method="POST", body=b"x", allow=LOCAL)
    assert (posted.status, posted.ok) == (307, False)


async def test_credentials_stay_with_their_origin(listener: Listener) -> None:
    second = Listener()
    await second.start()
    listener.answer = f"HTTP/1.1 302 Found\r\nLocation: {second.url}/x\r\n\r\n".encode()
    await safe_fetch(listener.url, headers={"Authorization": "Bearer s3cret", "X-Other": "kept"}, allow=LOCAL)
    assert b"s3cret" in listener.requests[0]
    assert b"s3cret" not in second.requests[0]
    assert b"x-other: kept" in second.requests[0]
    second.server.close()


async def test_endless_bodies_are_cut_at_the_cap(listener: Listener) -> None:
    sent = 0

    async def endless(request: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()
            sent += 65536

    listener.answer = endless
    with pytest.raises(TooLarge):
        await safe_fetch(listener.url, limit=1_000_000, allow=LOCAL)
    await asyncio.sleep(0.05)
    assert sent < 10_000_000
    listener.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\nx"
    with pytest.raises(TooLarge):
        await safe_fetch(listener.url, limit=1_000_000, allow=LOCAL)
    assert (await safe_fetch(listener.url, method="HEAD", limit=10, allow=LOCAL)).body == b""


@pytest.mark.parametrize("stall", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"])
async def test_stalls_end_in_time(listener: Listener, stall: bytes) -> None:
    async def slow(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(stall)
        await asyncio.sleep(60)

    listener.answer = slow
    began = time.monotonic()
    with pytest.raises(FetchTimeout):
        await safe_fetch(listener.url, timeout=0.3, allow=LOCAL)
    assert time.monotonic() - began < 9, "and not after the usual ten seconds"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "b\r\nHost: evil"},
        {"X A": "b"},
        {"": "b"},
        {"Host": "evil"},
        {"Content-Length": "5"},
        {"Transfer-Encoding": "chunked"},
        {"X-A": "\u2028"},
    ],
)
async def test_headers_cannot_break_the_framing(listener: Listener, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        await safe_fetch(listener.url, headers=headers, allow=LOCAL)
    assert listener.connections == 0


async def test_unreachable_and_unknown_hosts(listener: Listener) -> None:
    listener.server.close()
    await listener.server.wait_closed()
    with pytest.raises(FetchFailed):
        await safe_fetch(listener.url, allow=LOCAL)
    with pytest.raises(FetchFailed):
        await safe_fetch("http://does-not-exist.invalid/", timeout=30)
    with pytest.raises(NexusError):
        await safe_fetch(listener.url.replace("http:", "https:"), allow=LOCAL)


async def test_tls_certificates_are_checked() -> None:
    with FakeUpstream(tls=server_context()) as upstream:
        with pytest.raises(FetchFailed) as caught:
            await safe_fetch(upstream.url, allow=LOCAL)
        assert type(caught.value) is FetchFailed, "and it is not for having waited"
        assert upstream.seen == []


async def test_the_process_wide_allowance(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UrlNotAllowed):
        await safe_fetch(listener.url)
    before = fetch._defaults.allow
    fetch.configure(LOCAL)
    try:
        # Proxies of the environment would see, and could answer, what was checked here.
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        assert (await safe_fetch(listener.url)).body == b"ok"
        with pytest.raises(UrlNotAllowed):
            await safe_fetch(listener.url, allow=[])
    finally:
        fetch.configure(before)
