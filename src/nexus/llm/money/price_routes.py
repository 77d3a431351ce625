"""What every model costs, and who says so: /api/v1/prices."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from nexus.access.guard import requires
from nexus.access.types import Principal, Scope
from nexus.http.depends import service
from nexus.llm.service import LLMService
from nexus.llm.types import Deployment, Price, Route

router = APIRouter(prefix="/api/v1", tags=["language"])


@router.get("/prices", operation_id="prices.list")
async def list_prices(
    who: Annotated[Principal, requires(Scope.USAGE_READ)],
    llm: Annotated[LLMService, service(LLMService)],
    model: Annotated[str | None, Field(max_length=256, description="Only this route, or any `provider/model`.")] = None,
) -> dict[str, Any]:
    """List the price of every deployment in US dollars for a million tokens, null where none is known.

    `source` is `deployment` (the route's own), `settings` (`llm.prices`), `nexus` (shipped) or the version of
    genai-prices.
    """
    await asyncio.to_thread(llm.registry.price, model or "")
    if model is not None:
        routes = (
            [llm.registry.find(model, task=_task_of(llm, model), project=who.project_id)]
            if who.may_use_model(model)
            else []
        )
    else:
        routes = [route for route in llm.registry.routes.values() if who.may_use_model(route.name)]
    rows = [_row(llm, route, deployment) for route in routes for deployment in route.deployments]
    return {
        "data": rows,
        "unknown": sum(row["price"] is None for row in rows),
        "has_more": False,
        "next_cursor": None,
    }


def _task_of(llm: LLMService, model: str) -> str:
    route = llm.registry.routes.get(model)
    return route.task if route is not None else "chat"


def _row(llm: LLMService, route: Route, deployment: Deployment) -> dict[str, Any]:
    price = deployment.price
    own = next((account.kind for account in llm.registry.accounts() if account.name == deployment.provider), None)
    return {
        "route": route.name,
        "provider": deployment.provider,
        "kind": own,
        "model": deployment.model,
        "price": None if price is None else price_out(price),
        "source": None if price is None else price.source or "nexus",
    }


def price_out(price: Price) -> dict[str, Any]:
    """Return a price as the API shows it; what is not set costs what plain input or output costs."""
    shown: dict[str, Any] = {
        name: getattr(price, name)
        for name in (
            "input",
            "output",
            "cache_read",
            "cache_write",
            "cache_write_1h",
            "audio_input",
            "audio_output",
            "audio_cache_read",
            "image_output",
            "reasoning",
            "request",
            "web_search",
        )
    }
    shown["tiers"] = [{"above": tier.above} | price_out(tier.price) for tier in price.tiers]
    shown["service_tiers"] = {name: price_out(other) for name, other in price.variants.items()}
    return shown
