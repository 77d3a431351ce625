"""The native doors: text tasks, and what is configured. The doors under load stand in `hot`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter

from nexus.access.guard import requires
from nexus.access.types import Principal, Scope
from nexus.http.depends import service
from nexus.llm import responses_routes, text_routes
from nexus.llm.schemas import ProviderList, ProviderView, RouteList, RouteView
from nexus.llm.service import LLMService

router = APIRouter(tags=["language"])
router.include_router(responses_routes.router)
router.include_router(text_routes.router)

Asking = Annotated[Principal, requires(Scope.LLM_INVOKE)]
Models = Annotated[LLMService, service(LLMService)]


@router.get("/api/v1/providers", operation_id="providers.list")
async def list_providers(who: Annotated[Principal, requires(Scope.ADMIN)], llm: Models) -> ProviderList:
    """List the configured providers. Keys are never shown."""
    return ProviderList(data=[ProviderView.of(account) for account in llm.registry.accounts()])


@router.get("/api/v1/routes", operation_id="routes.list")
async def list_routes(who: Asking, llm: Models) -> RouteList:
    """List the public model names and where their calls go."""
    return RouteList(data=[RouteView.of(route) for route in llm.registry.routes.values()])
