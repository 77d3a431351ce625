"""Which price every deployment has, and from where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from nexus.access.types import Principal, Scope
from nexus.core.services import Services
from nexus.http.handlers import install
from nexus.llm.money.price_routes import router
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings

PROVIDERS = [
    {"name": "work", "kind": "openai", "base_url": "http://127.0.0.1:9/v1"},
    {"name": "gpu", "kind": "vllm"},
]
ROUTES = [
    {
        "name": "smart",
        "deployments": [
            {"provider": "work", "model": "gpt-4o"},
            {"provider": "gpu", "model": "my-model"},
            {"provider": "gpu", "model": "own", "price": {"input": 1, "tiers": [{"above": 1000, "input": 2}]}},
            {"provider": "work", "model": "gpt-4o-mini"},
        ],
    }
]


@pytest.fixture
def prices() -> Callable[..., Any]:
    settings = LLMSettings(
        providers=PROVIDERS,  # type: ignore[arg-type]
        routes=ROUTES,  # type: ignore[arg-type]
        prices=[{"provider": "work", "model": "gpt-4o-*", "input": 7, "output": 8}],  # type: ignore[list-item]
    )
    llm = LLMService(settings=settings, record=lambda _: None)
    app = FastAPI()
    install(app)
    app.include_router(router)
    app.state.services = Services()
    app.state.services.put(llm)

    async def get(query: str = "", **who: Any) -> Any:
        principal = Principal("key", "key_1", "prj_1", frozenset({Scope.USAGE_READ}), **who)

        async def asked(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "principal": principal}, receive, send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(asked), base_url="http://localhost") as client:
            return (await client.get(f"/api/v1/prices{query}")).json()

    return get


async def test_every_deployment_has_its_price_or_null(prices: Callable[..., Any]) -> None:
    body = await prices()
    rows = {row["model"]: row for row in body["data"]}
    assert rows["gpt-4o"]["price"]["input"] == 2.5
    assert rows["gpt-4o"]["source"].startswith("genai-prices ")
    assert rows["gpt-4o"]["price"]["service_tiers"]["priority"]["input"] == 4.25
    assert (rows["my-model"]["price"], rows["my-model"]["source"]) == (None, None)
    assert rows["own"]["source"] == "deployment"
    assert rows["own"]["price"]["tiers"][0]["above"] == 1000
    assert (rows["gpt-4o-mini"]["price"]["input"], rows["gpt-4o-mini"]["source"]) == (7, "settings")
    assert (rows["nexus-local"]["price"]["output"], rows["nexus-local"]["kind"]) == (0, "local")
    assert body["unknown"] == 1


async def test_any_model_can_be_asked_for(prices: Callable[..., Any]) -> None:
    body = await prices("?model=work/o3-mini")
    assert [row["price"]["input"] for row in body["data"]] == [1.1]
    assert (await prices("?model=work/nothing-known"))["unknown"] == 1
    assert (await prices("?model=nobody/x"))["code"] == "model_not_found"
    assert (await prices(models=("nexus-local",)))["data"][0]["route"] == "nexus-local"
    assert (await prices("?model=smart", models=("nexus-local",)))["data"] == []
