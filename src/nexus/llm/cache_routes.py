"""The native doors of the answer cache: what is kept, how often it helps, and forgetting it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from nexus.access.guard import requires
from nexus.access.types import Principal, Scope
from nexus.http.depends import service
from nexus.llm.answer_cache import CacheFigures
from nexus.llm.schemas import CachePurged, CacheRouteView, CacheView
from nexus.llm.service import LLMService

router = APIRouter(tags=["language"])

Models = Annotated[LLMService, service(LLMService)]
RouteName = Annotated[str | None, Query(min_length=1, max_length=256, description="one route; all when left out")]


@router.get("/api/v1/cache", operation_id="cache.show")
async def show_cache(who: Annotated[Principal, requires(Scope.USAGE_READ)], llm: Models) -> CacheView:
    """Show the kept answers of the project, and the hit rate of each route."""
    figures = llm.cache.figures(who.project_id)
    names = {route.name for route in llm.registry.routes.values() if route.cache is not None} | figures.keys()
    entries, size = await llm.cache.measure(who.project_id)
    routes = [
        CacheRouteView.of(name, await llm.cache.measure(who.project_id, name), figures.get(name, CacheFigures()))
        for name in sorted(names)
    ]
    total = CacheFigures()
    for found in figures.values():
        total = total.plus(found)
    served = total.hits + total.semantic + total.stale
    return CacheView(
        entries=entries, bytes=size, hits=served, misses=total.misses, hit_rate=total.hit_rate, routes=routes
    )


@router.delete("/api/v1/cache", operation_id="cache.purge")
async def purge_cache(
    who: Annotated[Principal, requires(Scope.MODELS_MANAGE)], llm: Models, route: RouteName = None
) -> CachePurged:
    """Forget the kept answers of the project, or of one of its routes."""
    return CachePurged(deleted=await llm.cache.purge(who.project_id, route))
