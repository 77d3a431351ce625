from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update
from tests.clock import soon
from tests.http.conftest import Running

from nexus.access.idempotency import Idempotency
from nexus.access.tables import IdempotencyRow
from nexus.access.types import Principal
from nexus.http.body import body_at_hand, read_body
from nexus.http.lifecycle import Lifecycle
from nexus.http.settings import HTTPSettings
from nexus.http.types import FINISH
from nexus.storage.db import Database

from .conftest import KEYRING, Browser


class Maker:
    """An ASGI app that counts what it makes, as slowly and as badly as it is told."""

    def __init__(self) -> None:
        self.made = 0
        self.status = 201
        self.pause = 0.0
        self.kind = b"application/json"
        self.size = 0
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        await asyncio.sleep(self.pause)
        self.made += 1
        if self.status == 500:
            raise RuntimeError
        headers = [
            (b"cache-control", b"no-store"),
            (b"content-type", self.kind),
            (b"location", b"/api/v1/things/1"),
            (b"set-cookie", b"secret=1"),
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        answer = b'{"n":%d}' % self.made + b" " * self.size
        await send({"type": "http.response.body", "body": answer[:4], "more_body": True})
        await send({"type": "http.response.body", "body": answer[4:]})


class Client:
    """A client of the layer, as some principal."""

    def __init__(self, app: Any, project: str = "prj_a", who: str = "key_a") -> None:
        async def as_principal(scope: Any, receive: Any, send: Any) -> None:
            scope["principal"] = Principal("key", who, project)
            await app(scope, receive, send)

        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(as_principal), base_url="http://localhost")

    async def post(self, key: str, body: bytes = b"{}", path: str = "/api/v1/things") -> httpx.Response:
        return await self.http.post(path, content=body, headers={"idempotency-key": key})


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture
def layer(any_database: Database, maker: Maker) -> Idempotency:
    return Idempotency(maker, database=any_database, keyring=KEYRING)


async def test_the_second_request_gets_the_first_answer(layer: Idempotency, maker: Maker) -> None:
    client = Client(layer)
    first, second = await client.post("k"), await client.post("k")
    assert maker.made == 1
    assert first.content == second.content == b'{"n":1}'
    assert second.status_code == 201
    assert second.headers["location"] == "/api/v1/things/1"
    assert second.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert "set-cookie" not in second.headers


async def test_a_hundred_at_once_make_one(layer: Idempotency, maker: Maker) -> None:
    maker.pause = 0.2
    client = Client(layer)
    answers = await asyncio.gather(*(client.post("k") for _ in range(100)))
    assert maker.made == 1
    statuses = {answer.status_code for answer in answers}
    assert statuses <= {201, 409}
    assert 201 in statuses
    assert all(answer.json()["code"] == "idempotency_in_flight" for answer in answers if answer.status_code == 409)


async def test_another_body_is_a_mismatch(layer: Idempotency, maker: Maker) -> None:
    client = Client(layer)
    await client.post("k", b'{"a":1}')
    response = await client.post("k", b'{"a":2}')
    assert (response.status_code, response.json()["code"], maker.made) == (422, "idempotency_mismatch", 1)


async def test_the_claim_is_bound_to_project_principal_and_path(layer: Idempotency, maker: Maker) -> None:
    await Client(layer).post("k")
    await Client(layer, project="prj_b").post("k")
    await Client(layer, who="key_b").post("k")
    await Client(layer).post("k", path="/api/v1/others")
    assert maker.made == 4


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 429, 503, 500])
async def test_a_refused_request_may_be_mended_and_sent_again(layer: Idempotency, maker: Maker, status: int) -> None:
    client = Client(layer)
    maker.status = status
    if status == 500:
        with pytest.raises(RuntimeError):
            await client.post("k")
    else:
        assert (await client.post("k", b"bad")).status_code == status
    maker.status = 201
    assert (await client.post("k", b"good")).status_code == 201
    assert maker.made == 2


@pytest.mark.parametrize(("kind", "size"), [(b"text/event-stream", 0), (b"application/json", 2**21)])
async def test_streams_and_huge_answers_are_not_kept(layer: Idempotency, maker: Maker, kind: bytes, size: int) -> None:
    maker.kind, maker.size = kind, size
    client = Client(layer)
    assert (await client.post("k")).status_code == 201
    assert (await client.post("k")).status_code == 201
    assert maker.made == 2


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 3 * 1024 * 1024])
async def test_the_body_arrives_whole(layer: Idempotency, maker: Maker, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    await Client(layer).post("k", body)
    assert maker.bodies == [body]


@pytest.mark.parametrize("key", ["a" * 256, "a b", "ü", ""])
async def test_keys_have_a_form(layer: Idempotency, maker: Maker, key: str) -> None:
    client = Client(layer).http
    response = await client.post("/api/v1/things", headers={"idempotency-key": key.encode()})
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "/idempotency-key")
    assert maker.made == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v1/auth/login", "/hooks/x"])
async def test_other_doors_are_not_looked_at(layer: Idempotency, maker: Maker, path: str) -> None:
    client = Client(layer)
    await client.post("k", path=path)
    await client.post("k", path=path)
    assert maker.made == 2


async def test_answers_are_forgotten_after_a_day_and_dead_claims_after_minutes(
    layer: Idempotency, maker: Maker, any_database: Database
) -> None:
    client = Client(layer)
    await client.post("k")
    past = datetime.now(UTC) - timedelta(seconds=1)
    await any_database.write(lambda session: session.execute(update(IdempotencyRow).values(expires_at=past)))
    await client.post("k")
    assert maker.made == 2
    dead = update(IdempotencyRow).values(status=None, locked_until=past)
    await any_database.write(lambda session: session.execute(dead))
    assert (await client.post("k")).status_code == 201
    assert maker.made == 3


async def test_a_client_that_leaves_unlocks_its_key(layer: Idempotency, maker: Maker, any_database: Database) -> None:
    maker.pause = 60
    client = Client(layer)
    leaving = asyncio.create_task(client.post("k"))
    await soon(lambda: maker.bodies)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await soon(lambda: not any_database.read_now(lambda session: list(session.scalars(select(IdempotencyRow)))))


async def test_it_stands_in_the_real_order_of_layers(root: Browser) -> None:
    headers = {"idempotency-key": "k"}
    numbers = [(await root.client.post("/api/v1/things", json={}, headers=headers)).json()["number"] for _ in range(3)]
    assert numbers == [1, 1, 1]
    assert (await root.client.post("/api/v1/things", json={})).json()["number"] == 2


async def test_kept_answers_are_unreadable_at_rest(layer: Idempotency, any_database: Database) -> None:
    await Client(layer).post("k")
    [row] = await any_database.read(lambda session: list(session.scalars(select(IdempotencyRow))))
    assert row.body is not None
    assert b'"n"' not in row.body


async def test_without_a_keyring_secrets_are_not_kept(any_database: Database, maker: Maker) -> None:
    client = Client(Idempotency(maker, database=any_database))
    await client.post("k")
    await client.post("k")
    assert maker.made == 2


@pytest.mark.parametrize("size", [10, 300_000])
async def test_a_form_that_is_sent_again_has_another_boundary(layer: Idempotency, maker: Maker, size: int) -> None:
    http = Client(layer).http
    headers = {"idempotency-key": "k"}

    async def send(content: bytes) -> httpx.Response:
        return await http.post("/api/v1/things", files={"file": ("a", content)}, headers=headers)

    assert (await send(b"x" * size)).status_code == 201
    again = await send(b"x" * size)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert (await send(b"y" * size)).status_code == 422
    assert maker.made == 1


@pytest.mark.slow
async def test_what_goes_the_short_ways_of_our_server_is_seen_too(any_database: Database) -> None:
    made: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["principal"] = Principal("key", "key_a", "prj_a")
        await layer(scope, receive, send)

    async def maker(scope: Any, receive: Any, send: Any) -> None:
        body = body_at_hand(scope)
        made.append(await read_body(receive) if body is None else body)
        answer = b"%d" % len(made)
        if FINISH not in scope or not scope[FINISH](201, b"", answer):
            headers = [(b"content-length", b"%d" % len(answer))]
            await send({"type": "http.response.start", "status": 201, "headers": headers})
            await send({"type": "http.response.body", "body": answer})

    layer = Idempotency(maker, database=any_database, keyring=KEYRING)
    running = Running(app, HTTPSettings(port=0), Lifecycle(grace=5))
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}") as client:
            asked = {"content": b"{}", "headers": {"idempotency-key": "k"}}
            first, second = [await client.post("/api/v1/things", **asked) for _ in range(2)]
            assert (await client.post("/v1/things", content=b"[]")).content == b"2"
    finally:
        running.stop()
    assert (first.content, second.content) == (b"1", b"1")
    assert second.headers["idempotent-replayed"] == "true"
    assert made == [b"{}", b"[]"]
