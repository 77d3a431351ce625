"""Every route of the real app is closed without a credential, and every guarded one asks for a right."""

from __future__ import annotations

import re

import httpx2
import pytest
from fastapi.routing import APIRoute

from nexus.access.asgi import PUBLIC
from nexus.app import PLAYGROUND, ROUTERS
from nexus.cli.instance import Place
from nexus.llm.hot import hot_routes

ROUTES = sorted(
    {
        (method, route.path)
        for module in ROUTERS
        for route in module.router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    | set(hot_routes())
    | {PLAYGROUND}
)


def test_the_public_list_is_short() -> None:
    assert len(PUBLIC) <= 8


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), ROUTES, ids=[f"{method} {path}" for method, path in ROUTES])
def test_is_closed(place: Place, method: str, path: str) -> None:
    if (method, path) in PUBLIC:
        pytest.skip("on the public list")
    concrete = re.sub(r"\{[^}]+\}", "x", path)
    with httpx2.Client(base_url=place.url, trust_env=False, timeout=30) as anybody:
        # Another address than this machine's, for which alone /metrics is open.
        answer = anybody.request(method, concrete, headers={"x-api-key": "nx_nobody"})
    assert answer.status_code == 401, answer.text[:200]


def _asks(route: APIRoute) -> bool:
    waiting = list(route.dependant.dependencies)
    while waiting:
        dependency = waiting.pop()
        if hasattr(dependency.call, "required_scopes"):
            return True
        waiting += dependency.dependencies
    return False


def test_every_native_route_has_a_guard() -> None:
    open_routes = {
        (method, route.path)
        for module in ROUTERS
        for route in module.router.routes
        if isinstance(route, APIRoute) and not _asks(route)
        for method in route.methods
    }
    assert open_routes <= PUBLIC | {("GET", "/metrics")}, open_routes - PUBLIC
