"""The native doors: text tasks, what is configured, and what is kept. The doors under load stand in `hot`."""

from __future__ import annotations

from fastapi import APIRouter

from nexus.llm import cache_routes, configuration_routes, responses_routes, text_routes

router = APIRouter(tags=["language"])
for part in (cache_routes, configuration_routes, responses_routes, text_routes):
    router.include_router(part.router)
