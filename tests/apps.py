"""Apps with routes of ours, for tests that need no whole instance."""

from __future__ import annotations

from copy import copy

from fastapi import APIRouter, FastAPI
from starlette.datastructures import State

from nexus.core.services import Services
from nexus.http import handlers

_UNDERSTOOD: list[tuple[tuple[APIRouter, ...], FastAPI]] = []


def app_with(services: Services, *routers: APIRouter) -> FastAPI:
    """Return an app with these routes, which are understood once; each has a state of its own."""
    # Routers have no hash; there are few.
    found = next((app for known, app in _UNDERSTOOD if [*map(id, known)] == [*map(id, routers)]), None)
    if found is None:
        found = FastAPI()
        handlers.install(found)
        for one in routers:
            found.include_router(one)
        _UNDERSTOOD.append((routers, found))
    app = copy(found)
    app.state = State({"services": services})
    return app
