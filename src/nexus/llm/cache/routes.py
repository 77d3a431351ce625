"""The native doors of the answer cache: what is kept, how often it helps, and forgetting it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from nexus.access.guard import requires
from nexus.access.types import Principal, Scope
from nexus.http.depends import service
from nexus.ledger.service import Ledger
from nexus.llm.schemas import CacheCounts, CachePurged, CacheRouteView, CacheView
from nexus.llm.service import LLMService

router = APIRouter(tags=["language"])

Models = Annotated[LLMService, service(LLMService)]
RouteName = Annotated[str | None, Query(min_length=1, max_length=256, description="one route; all when left out")]


@router.get("/api/v1/cache", operation_id="cache.show")
async def show_cache(
    who: Annotated[Principal, requires(Scope.USAGE_READ)],
    llm: Models,
    ledger: Annotated[Ledger, service(Ledger)],
    since: Annotated[AwareDatetime | None, Query(description="begin of the hit rates; else a day ago")] = None,
    until: AwareDatetime | None = None,
) -> CacheView:
    """Show the kept answers of the project, and each route's hit rate in a period by the ledger."""
    since = since or (until or datetime.now(UTC)) - timedelta(days=1)
    counts = await ledger.kept_answers(who, since, until)
    names = {route.name for route in llm.registry.routes.values() if route.cache is not None} | counts.keys()
    entries, size = await llm.cache.measure(who.project_id)
    routes = [
        CacheRouteView.write(name, await llm.cache.measure(who.project_id, name), counts.get(name, {}))
        for name in sorted(names)
    ]
    total: Counter[str] = Counter()
    for found in counts.values():
        total.update(found)
    return CacheView(
        entries=entries, bytes=size, since=since, until=until, routes=routes, **CacheCounts.of(total).model_dump()
    )


@router.delete("/api/v1/cache", operation_id="cache.purge")
async def purge_cache(
    who: Annotated[Principal, requires(Scope.MODELS_MANAGE)], llm: Models, route: RouteName = None
) -> CachePurged:
    """Forget the kept answers of the project, or of one of its routes."""
    return CachePurged(deleted=await llm.cache.purge(who.project_id, route))
