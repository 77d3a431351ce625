"""Budgets over the API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.ledger.test_routes import Client

from nexus.access.errors import KeyNotFound
from nexus.access.types import KeyLimits, Principal, Scope
from nexus.core.services import Services
from nexus.http.handlers import install
from nexus.ledger.budget_book import BudgetBook
from nexus.ledger.budget_routes import router
from nexus.ledger.budget_service import BudgetService
from nexus.ledger.service import Ledger
from nexus.ledger.types import Invocation
from nexus.storage.db import Database

RIGHTS = frozenset({Scope.USAGE_READ, Scope.KEYS_MANAGE})


@pytest.fixture
async def app(database: Database, tmp_path: Path) -> AsyncIterator[FastAPI]:
    async def find_key(_who: Principal, key_id: str) -> None:
        if key_id != "key_a":
            raise KeyNotFound

    app = FastAPI()
    install(app)
    app.include_router(router)
    app.state.services = Services()
    ledger = Ledger(database=database, folder=tmp_path / "ledger")
    book = BudgetBook(database=database, ledger=ledger)
    app.state.services.put(BudgetService(database=database, book=book, find_key=find_key))
    for dollars in (0.25, 0.5):
        ledger.record(
            Invocation(project_id="prj_a", principal_id="k", key_id="key_a", kind="chat", model="m", cost_usd=dollars)
        )
    yield app
    await ledger.stop()


@pytest.fixture
def client(app: FastAPI) -> httpx.AsyncClient:
    return Client(app, Principal("session", "usr_a", "prj_a", RIGHTS)).http


async def test_a_budget_from_birth_to_end(client: httpx.AsyncClient) -> None:
    made = await client.post("/api/v1/budgets", json={"amount_usd": 2.0, "period": "day", "name": "team"})
    assert made.status_code == 201
    body = made.json()
    assert (body["scope"], body["spent_usd"], body["remaining_usd"], body["alerts"]) == (
        "project",
        0.75,
        1.25,
        [80, 100],
    )
    assert body["period_end"] > body["period_start"]
    place = f"/api/v1/budgets/{body['id']}"
    changed = await client.patch(place, json={"amount_usd": 0.5, "hard": False, "period": "total"})
    assert (changed.json()["remaining_usd"], changed.json()["hard"], changed.json()["period_end"]) == (0.0, False, None)
    assert (await client.get(place)).json()["name"] == "team"
    assert (await client.delete(place)).status_code == 204
    gone = await client.get(place)
    assert (gone.status_code, gone.json()["code"]) == (404, "budget_not_found")


async def test_pages_and_keys(client: httpx.AsyncClient) -> None:
    for key in ("key_a", None, None):
        scope = {"scope": "key", "key_id": key} if key else {}
        assert (await client.post("/api/v1/budgets", json={"amount_usd": 1.0} | scope)).status_code == 201
    first = (await client.get("/api/v1/budgets?limit=2")).json()
    assert first["has_more"]
    rest = (await client.get(f"/api/v1/budgets?limit=2&cursor={first['next_cursor']}")).json()
    assert [row["key_id"] for row in rest["data"]] == ["key_a"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"amount_usd": 0}, 422),
        ({"amount_usd": -1}, 422),
        ({"amount_usd": "5"}, 422),
        ({"amount_usd": 1.0, "period": "year"}, 422),
        ({"amount_usd": 1.0, "alerts": [0]}, 422),
        ({"amount_usd": 1.0, "alerts": [101]}, 422),
        ({"amount_usd": 1.0, "scope": "key"}, 422),
        ({"amount_usd": 1.0, "key_id": "key_a"}, 422),
        ({"amount_usd": 1.0, "scope": "key", "key_id": "key_of_others"}, 404),
        ({"amount_usd": 1.0, "owner": "me"}, 422),
        ({"amount_usd": 1.0, "name": "a\nb"}, 422),
    ],
)
async def test_bad_budgets_are_refused(client: httpx.AsyncClient, body: dict[str, Any], status: int) -> None:
    assert (await client.post("/api/v1/budgets", json=body)).status_code == status


async def test_others_neither_see_nor_lift_them(client: httpx.AsyncClient, app: FastAPI) -> None:
    place = f"/api/v1/budgets/{(await client.post('/api/v1/budgets', json={'amount_usd': 1.0})).json()['id']}"
    stranger = Client(app, Principal("session", "usr_b", "prj_b", RIGHTS)).http
    assert (await stranger.get(place)).status_code == 404
    assert (await stranger.delete(place)).status_code == 404
    reader = Client(app, Principal("session", "usr_c", "prj_a", frozenset({Scope.USAGE_READ}))).http
    assert (await reader.get(place)).status_code == 200
    assert (await reader.patch(place, json={"amount_usd": 9.0})).status_code == 403
    limited = Client(app, Principal("key", "key_a", "prj_a", RIGHTS, key_id="key_a", limits=KeyLimits(rpm=1))).http
    assert (await limited.delete(place)).status_code == 403, "it could lift its own"
