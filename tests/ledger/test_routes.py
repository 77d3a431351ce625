from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from nexus.access.types import Principal, Scope
from nexus.core.services import Services
from nexus.http.handlers import install
from nexus.ledger.routes import router
from nexus.ledger.service import Ledger
from nexus.ledger.types import Invocation
from nexus.storage.db import Database

EVERYTHING = frozenset({Scope.USAGE_READ, Scope.HISTORY_READ, Scope.MODELS_MANAGE})


class Client:
    """A client as some principal."""

    def __init__(self, app: Any, principal: Principal) -> None:
        async def as_principal(scope: Any, receive: Any, send: Any) -> None:
            scope["principal"] = principal
            await app(scope, receive, send)

        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(as_principal), base_url="http://localhost")


@pytest.fixture
async def app(database: Database, tmp_path: Path) -> AsyncIterator[FastAPI]:
    app = FastAPI()
    install(app)
    app.include_router(router)
    app.state.services = Services()
    ledger = Ledger(database=database, folder=tmp_path / "ledger")
    app.state.services.put(ledger)
    for i in range(5):
        ledger.record(
            Invocation(project_id="prj_a", principal_id="key_a", kind="chat", model=f"=m{i % 2}", cost_usd=0.5)
        )
    yield app
    await ledger.stop()


@pytest.fixture
def client(app: FastAPI) -> httpx.AsyncClient:
    return Client(app, Principal("key", "key_a", "prj_a", EVERYTHING)).http


async def test_usage_is_summed(client: httpx.AsyncClient) -> None:
    body = (await client.get("/api/v1/usage?group_by=model")).json()
    assert {row["model"]: row["requests"] for row in body["data"]} == {"=m0": 3, "=m1": 2}
    assert body["total"]["cost_usd"] == 2.5


async def test_the_export_runs_nothing(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/v1/usage/export?group_by=model,kind")
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"].startswith("attachment")
    lines = response.text.splitlines()
    assert lines[0].startswith("model,kind,requests")
    assert lines[1].startswith("'=m0,chat,3")


async def test_calls_are_listed_by_page_and_shown(client: httpx.AsyncClient) -> None:
    first = (await client.get("/api/v1/invocations?limit=3")).json()
    rest = (await client.get(f"/api/v1/invocations?limit=3&cursor={first['next_cursor']}")).json()
    ids = [row["id"] for row in first["data"] + rest["data"]]
    assert len(set(ids)) == 5
    assert ids == sorted(ids, reverse=True)
    url = f"/api/v1/invocations/{ids[0]}"
    sent = {"rating": "corrected", "expected": {"label": "cat"}, "comment": "="}
    made = await client.post(f"{url}/feedback", json=sent)
    assert made.status_code == 201
    shown = (await client.get(url)).json()
    assert shown["feedback"] == [made.json()]
    assert (await client.delete(url)).status_code == 204
    only = (await client.get("/api/v1/invocations", params={"model": "=m1"})).json()
    assert len(only["data"]) == 2


@pytest.mark.parametrize(
    ("method", "url", "body", "status"),
    [
        ("GET", "/api/v1/usage?group_by=nothing", None, 422),
        ("GET", "/api/v1/usage?group_by=", None, 422),
        ("GET", "/api/v1/usage?groupby=model", None, 422),
        ("GET", "/api/v1/usage?since=yesterday", None, 422),
        ("GET", "/api/v1/usage?since=2026-01-01T00:00:00", None, 422),
        ("GET", "/api/v1/usage?since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", None, 422),
        ("GET", "/api/v1/usage?all_projects=true", None, 403),
        ("GET", "/api/v1/invocations?limit=0", None, 422),
        ("GET", "/api/v1/invocations?limit=101", None, 422),
        ("GET", "/api/v1/invocations?cursor=x", None, 422),
        ("GET", "/api/v1/invocations/x", None, 404),
        ("GET", "/api/v1/invocations/inv_01m83pxd706drbqmtxv4gyw0s2", None, 404),
        ("POST", "/api/v1/invocations/x/feedback", {"rating": "good"}, 404),
        ("POST", "/api/v1/invocations/x/feedback", {"rating": "great"}, 422),
        ("POST", "/api/v1/invocations/x/feedback", {"rating": "good", "project_id": "prj_b"}, 422),
        ("POST", "/api/v1/invocations/x/feedback", {"rating": "good", "comment": "x" * 4001}, 422),
        ("POST", "/api/v1/invocations/x/feedback", {"rating": "good", "expected": "x" * 70_000}, 422),
    ],
)
async def test_bad_requests_are_refused(
    client: httpx.AsyncClient, method: str, url: str, body: Any, status: int
) -> None:
    response = await client.request(method, url, json=body)
    assert response.status_code == status, response.text


async def test_each_route_needs_its_scope_and_its_project(app: FastAPI, client: httpx.AsyncClient) -> None:
    nobody = Client(app, Principal("key", "key_a", "prj_a", frozenset())).http
    stranger = Client(app, Principal("key", "key_b", "prj_b", EVERYTHING)).http
    one = (await client.get("/api/v1/invocations?limit=1")).json()["data"][0]["id"]
    for method, url in [
        ("GET", f"/api/v1/invocations/{one}"),
        ("DELETE", f"/api/v1/invocations/{one}"),
        ("POST", f"/api/v1/invocations/{one}/feedback"),
    ]:
        assert (await nobody.request(method, url, json={"rating": "good"})).status_code == 403
        assert (await stranger.request(method, url, json={"rating": "good"})).status_code == 404
    for url in ("/api/v1/usage", "/api/v1/usage/export", "/api/v1/invocations"):
        assert (await nobody.get(url)).status_code == 403
        assert one not in (await stranger.get(url)).text
    assert (await stranger.get("/api/v1/usage")).json()["data"] == []
