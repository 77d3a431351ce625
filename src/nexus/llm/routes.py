"""The native doors: text tasks, what is configured, and what is kept. The doors under load stand in `hot`."""

from __future__ import annotations

from fastapi import APIRouter

from nexus.llm import text_routes
from nexus.llm.cache import routes as cache_routes
from nexus.llm.configuration import routes as configuration_routes
from nexus.llm.responses import routes as responses_routes

router = APIRouter(tags=["language"])
for part in (cache_routes, configuration_routes, responses_routes, text_routes):
    router.include_router(part.router)
