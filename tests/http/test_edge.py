from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from tests.clock import PATIENCE, soon

from nexus.core.services import Services
from nexus.http.body import read_body
from nexus.http.dispatch import Dispatch, is_api_path
from nexus.http.edge import build_edge
from nexus.http.gates.origins import normal_origin
from nexus.http.lifecycle import Lifecycle
from nexus.http.settings import HTTPSettings
from nexus.http.types import read_lines

from .conftest import Serve, exchange

pytestmark = pytest.mark.slow


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what was understood of the request."""
    body = await read_body(receive, 1 << 40)
    seen = {"size": len(body), "client": scope["client"][0], "scheme": scope["scheme"], "method": scope["method"]}
    content = json.dumps(seen).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def head(method: str = "POST", path: str = "/api/v1/x", **headers: str) -> bytes:
    fields = {"Host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode()


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_every_answer_carries_ids_and_security_headers(serve: Serve) -> None:
    url = serve(echo).url
    answer = httpx.get(url + "/v1/messages", headers={"x-request-id": "caller_id-12345"})
    assert answer.headers["x-request-id"] == answer.headers["request-id"] == "caller_id-12345"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert "strict-transport-security" not in answer.headers
    assert "server" not in answer.headers
    for bad in ("short", "a" * 65, "with space 1", "semi;colon;1", "ü" * 8):
        made = httpx.get(url + "/x", headers=[(b"x-request-id", bad.encode())]).headers["x-request-id"]
        assert made.startswith("req_")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8000", 200),
        ("nexus.example", 200),
        ("other.example:8443", 200),
        ("evil.com", 421),
        ("localhost.evil.com", 421),
        ("169.254.169.254", 421),
        ("10.0.0.7", 421),
        ("", 421),
        ("localhost@evil.com", 421),
    ],
)
async def test_only_own_hosts_are_answered(serve: Serve, host: str, status: int) -> None:
    running = serve(echo, public_url="https://nexus.example/", hosts="other.example")
    for method in ("GET", "POST", "DELETE"):
        answer = await exchange(running.port, head(method, Host=host, Content_Length="0", Connection="close"))
        assert status_of(answer) == status
        assert (b"host_not_allowed" in answer) == (status == 421)


async def test_two_or_no_hosts_are_refused(serve: Serve) -> None:
    port = serve(echo).port
    for request in (
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.com\r\nConnection: close\r\n\r\n",
    ):
        assert status_of(await exchange(port, request)) in (400, 421)


ORIGINS = [
    (None, None, 200),
    ("http://localhost", None, 200),
    ("https://nexus.example", None, 200),
    ("https://NEXUS.example:443", None, 200),
    ("http://nexus.example", None, 403),
    ("http://localhost:3000", None, 403),
    ("http://evil.com", None, 403),
    ("null", None, 403),
    ("http://localhost.evil.com", None, 403),
    ("http://localhost@evil.com", None, 403),
    ("file://", None, 403),
    ("", None, 403),
    (None, "cross-site", 403),
    (None, "same-site", 403),
    (None, "same-origin", 200),
    (None, "none", 200),
]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_pages_of_other_origins_change_nothing(serve: Serve, method: str) -> None:
    url = serve(echo, public_url="https://nexus.example").url
    for origin, site, status in ORIGINS:
        headers = {"host": "localhost"}
        headers |= {"origin": origin} if origin is not None else {}
        headers |= {"sec-fetch-site": site} if site else {}
        answer = httpx.request(method, url + "/api/v1/x", headers=headers)
        assert answer.status_code == status, (origin, site)
        assert not any(name.startswith("access-control") for name in answer.headers)
    assert httpx.get(url + "/api/v1/x", headers={"host": "localhost", "origin": "http://evil.com"}).is_success
    assert httpx.get(url + "/mcp", headers={"host": "localhost", "origin": "http://evil.com"}).status_code == 403


def test_bodies_beyond_the_cap_are_413(serve: Serve) -> None:
    url = serve(echo, json_limit=1000, vision_json_limit=5000, upload_limit=100_000).url

    def chunks(total: int) -> Any:
        for _ in range(total // 500):
            yield b"x" * 500

    def post(path: str, content: Any, kind: str = "application/json") -> int:
        answer = httpx.post(url + path, content=content, headers={"content-type": kind})
        if answer.status_code == 413:
            assert "larger" in answer.text
        return answer.status_code

    assert post("/api/v1/x", b"x" * 1000) == 200
    assert post("/api/v1/x", b"x" * 1001) == 413
    assert post("/api/v1/x", chunks(1000)) == 200
    assert post("/api/v1/x", chunks(1500)) == 413
    assert post("/api/v1/vision/ocr", b"x" * 5000) == 200
    assert post("/api/v1/vision/ocr", b"x" * 5001) == 413
    assert post("/v1/files", b"x" * 100_000, "multipart/form-data; boundary=x") == 200
    assert post("/v1/files", b"x" * 3_000_000, "multipart/form-data; boundary=x") == 413
    assert post("/v1/files", chunks(3_000_000), "multipart/form-data; boundary=x") == 413


async def test_a_flood_without_a_length_stays_small(serve: Serve) -> None:
    """The server stops reading: 200 MB offered, and the connection ends."""
    running = serve(echo, json_limit=100_000)
    _, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(head(Transfer_Encoding="chunked", Content_Type="application/json"))
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    sent = 0
    try:
        while sent < 200 * 1024 * 1024:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
    except ConnectionError:
        pass
    assert sent < 100 * 1024 * 1024
    writer.transport.abort()


@pytest.mark.parametrize(
    "request_bytes",
    [
        head(Content_Length="5", Transfer_Encoding="chunked") + b"0\r\n\r\n",
        head(Content_Length="-5"),
        head(Content_Length="abc"),
        head(Content_Length="99999999999999999999999999"),
        head(Content_Length="5") + b"12345GARBAGE NOT HTTP\r\n\r\n",
        head(Transfer_Encoding="chunked") + b"ZZ\r\nxx\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
async def test_lies_about_the_length_do_no_harm(serve: Serve, request_bytes: bytes) -> None:
    running = serve(echo)
    answer = await exchange(running.port, request_bytes)
    statuses = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses, "no answer at all"
    assert statuses[-1] in (400, 413)
    assert b"Traceback" not in answer
    assert httpx.get(running.url + "/x").is_success


async def test_slow_headers_end_in_408(serve: Serve) -> None:
    running = serve(echo, header_timeout=0.5)
    began = time.monotonic()
    answer = await exchange(running.port, b"GET /v1/models HTTP/1.1\r\nHost: loc")
    assert status_of(answer) == 408
    assert b'{"error":{' in answer
    assert time.monotonic() - began < 8, "and not after the usual ten seconds"
    # The clock starts anew with each request of a connection that is kept.
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    for _ in range(3):
        writer.write(head("GET", "/x"))
        assert (await reader.readuntil(b"}"))[9:12] == b"200"
        await asyncio.sleep(0.3)
    writer.write(b"GET /x HTTP/1.1\r\nX-Slow: ")
    async with asyncio.timeout(8):
        assert (await reader.read(65536))[9:12] == b"408"
    writer.transport.abort()


async def test_slow_bodies_end_in_408(serve: Serve) -> None:
    running = serve(echo, body_timeout=0.4, body_rate=10_000)
    stalled = head(Content_Length="100") + b"only a part"
    assert status_of(await exchange(running.port, stalled)) == 408
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(head(Content_Length="100000"))
    answer = b""
    began = time.monotonic()
    while not answer and time.monotonic() - began < PATIENCE:
        # Never silent for long, and yet far too slow.
        writer.write(b"x")
        try:
            async with asyncio.timeout(0.1):
                answer = await reader.read(4096)
        except TimeoutError:
            continue
    assert status_of(answer) == 408
    writer.transport.abort()


@pytest.mark.parametrize("dripped", [False, True])
async def test_huge_headers_end_in_431(serve: Serve, dripped: bool) -> None:
    running = serve(echo, header_limit=8192)
    request = b"GET /v2/models HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: " + b"a" * 20_000
    if dripped:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        answer = b""
        for start in range(0, len(request), 1000):
            writer.write(request[start : start + 1000])
            try:
                async with asyncio.timeout(0.02):
                    answer = await reader.read(4096)
                break
            except TimeoutError:
                continue
        answer = answer or await asyncio.wait_for(reader.read(4096), PATIENCE)
        writer.transport.abort()
    else:
        answer = await exchange(running.port, request)
    assert status_of(answer) == 431


async def test_trailers_change_no_header(serve: Serve) -> None:
    running = serve(echo)
    request = head(Transfer_Encoding="chunked", Connection="close") + b"1\r\nx\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
    assert b'"size": 1' in await exchange(running.port, request)


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (None, "127.0.0.1"),
        ("9.9.9.9", "9.9.9.9"),
        ("6.6.6.6, 9.9.9.9", "9.9.9.9"),
        ("6.6.6.6, 9.9.9.9, 10.0.0.5", "9.9.9.9"),
        ("10.0.0.9, 10.0.0.5", "10.0.0.9"),
        ("6.6.6.6, rubbish", "127.0.0.1"),
        ("6.6.6.6, rubbish, 10.0.0.5", "10.0.0.5"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("9.9.9.9:1234", "9.9.9.9"),
    ],
)
def test_the_client_is_the_rightmost_untrusted_hop(serve: Serve, forwarded: str | None, client: str) -> None:
    headers = {"x-forwarded-for": forwarded, "x-forwarded-proto": "https"} if forwarded else {}
    trusting = serve(echo, trusted_proxies="127.0.0.1,10.0.0.0/8")
    answer = httpx.get(trusting.url + "/x", headers=headers)
    assert answer.json()["client"] == client
    assert answer.json()["scheme"] == ("https" if forwarded else "http")
    assert ("strict-transport-security" in answer.headers) == bool(forwarded)
    assert httpx.get(serve(echo).url + "/x", headers=headers).json()["client"] == "127.0.0.1"


@pytest.mark.parametrize("value", ["*", "0.0.0.0/0", "::/0", "10.0.0.0/8, *", "proxy.local"])
def test_trusting_everybody_is_refused(value: str) -> None:
    with pytest.raises(ValidationError):
        HTTPSettings(trusted_proxies=value)


def test_probes_answer_any_host(serve: Serve) -> None:
    state = {"database": True}

    async def database() -> bool:
        if state["database"] is None:
            raise RuntimeError("secret reason")
        return state["database"]

    running = serve(echo, checks={"database": database})
    odd = {"host": "10.1.2.3"}
    assert httpx.get(running.url + "/livez", headers=odd).json() == {"status": "ok"}
    assert httpx.get(running.url + "/readyz", headers=odd).status_code == 200
    for value in (False, None):
        state["database"] = value
        answer = httpx.get(running.url + "/readyz", headers=odd)
        assert answer.status_code == 503
        assert answer.json()["checks"]["database"] is False
        assert "secret" not in answer.text
    state["database"] = True
    assert httpx.post(running.url + "/readyz").status_code == 405
    running.lifecycle.draining.set()
    assert httpx.get(running.url + "/readyz").json()["checks"]["not_draining"] is False
    assert httpx.get(running.url + "/livez").status_code == 200


async def test_too_many_at_once_are_told_to_come_again(serve: Serve) -> None:
    go_on = threading.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await soon(go_on.is_set)
        await echo(scope, receive, send)

    running = serve(slow, max_inflight=3)
    async with httpx.AsyncClient(base_url=running.url) as client:
        asked = [asyncio.create_task(client.get("/v1/models")) for _ in range(8)]
        await soon(lambda: sum(task.done() for task in asked) >= 5)
        go_on.set()
        answers = await asyncio.gather(*asked)
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(refused) == 5
    assert all(answer.headers["retry-after"] == "1" for answer in refused)
    assert refused[0].json()["error"]["code"] == "overloaded"
    assert running.lifecycle.inflight == 0


def test_dispatch_by_path(serve: Serve) -> None:
    def named(name: str) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            body = f"{name} {scope['app_services'] is services}".encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})

        return app

    services = Services()
    seen: list[tuple[str, str, int]] = []
    hot = {("POST", "/v1/chat/completions"): named("hot"), ("GET", "/v1/cards/*"): named("cards")}
    app = Dispatch(named("api"), services=services, hot=hot, pages=named("pages"))
    observe = lambda route, method, status, seconds: seen.append((route, method, status))  # noqa: E731
    url = serve(app, observe=observe).url
    assert httpx.post(url + "/v1/chat/completions").text == "hot True"
    refused = httpx.get(url + "/v1/chat/completions")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert httpx.get(url + "/v1/cards/x").text == "cards True"
    looked = httpx.head(url + "/v1/cards/x")
    assert (looked.status_code, looked.content) == (200, b"")
    assert httpx.get(url + "/v1/models").text == "api True"
    assert httpx.get(url + "/models/x").text == "pages True"
    assert seen[0] == ("/v1/chat/completions", "POST", 200)
    assert seen[-1] == ("dashboard", "GET", 200)


@pytest.mark.parametrize(
    ("path", "is_api"),
    [("/v1", True), ("/v1/x", True), ("/v1x", False), ("/api/x", True), ("/apis", False), ("/", False)],
)
def test_what_belongs_to_the_api(path: str, is_api: bool) -> None:
    assert is_api_path(path) is is_api


async def test_lifespan_and_websockets_pass_or_close() -> None:
    seen: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    app: Any = build_edge(inner, settings=HTTPSettings(), lifecycle=Lifecycle())
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "lifespan"}, receive, send)
    await app({"type": "websocket", "headers": [], "path": "/"}, receive, send)
    assert seen == ["lifespan"]
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("https://a.b:443", "https://a.b"),
        ("HTTP://A.B:80", "http://a.b"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("null", None),
        ("http://a.b/path", None),
        ("http://a.b:x", None),
        ("chrome-extension://abc", None),
    ],
)
def test_origins_have_one_form(text: str, normal: str | None) -> None:
    assert normal_origin(text) == normal


async def test_other_servers_get_our_headers_one_by_one() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["nexus.answer_lines"] = lambda scope: b"x-left: 1: 2\r\n"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=1")]})
        await send({"type": "http.response.body", "body": b""})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/x",
        "query_string": b"",
        "scheme": "https",
        "headers": [(b"host", b"localhost")],
        "client": None,
    }
    edge = build_edge(app, settings=HTTPSettings(), lifecycle=Lifecycle())
    await edge(dict(scope), None, send)  # type: ignore[arg-type]
    names = [name for name, _ in sent[0]["headers"]]
    assert len(set(names)) == len(names)
    headers = dict(sent[0]["headers"])
    assert headers[b"cache-control"] == b"max-age=1"
    assert headers[b"x-left"] == b"1: 2"
    assert headers[b"x-frame-options"] == b"DENY"
    assert headers[b"strict-transport-security"] == b"max-age=31536000"
    await edge(scope | {"nexus.takes_lines": True}, None, send)  # type: ignore[arg-type]
    assert sent[2]["headers"] == [(b"cache-control", b"max-age=1")]
    assert set(dict(read_lines(sent[2]["nexus.lines"]))) == set(headers) - {b"cache-control"}
