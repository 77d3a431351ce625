"""What a route depends on to know who asks.

    async def detect(who: Annotated[Principal, requires(Scope.VISION_INVOKE)]) -> ...
    async def me(who: Annotated[Principal, caller()]) -> ...

The deny-by-default layer (`nexus.access.asgi`) has put the principal into the ASGI scope before
any route runs, whichever header or cookie it came from, so the verdict cannot depend on that.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from fastapi import Depends
from starlette.requests import HTTPConnection

from nexus.access.types import Principal, Scope
from nexus.core.errors import Unauthenticated


def principal_of(scope: MutableMapping[str, Any]) -> Principal:
    """Return the caller of an ASGI scope (for raw handlers). Raises `Unauthenticated` without one."""
    principal = scope.get("principal")
    if not isinstance(principal, Principal):
        raise Unauthenticated
    return principal


def requires(*scopes: Scope) -> Any:
    """Return a FastAPI dependency: the caller, who has every one of `scopes`, else `Forbidden`."""

    async def _guard(connection: HTTPConnection) -> Principal:
        principal = principal_of(connection.scope)
        for scope in scopes:
            principal.require(scope)
        return principal

    _guard.required_scopes = scopes  # type: ignore[attr-defined]  # read by the route-walking test
    return Depends(_guard)


def caller() -> Any:
    """Return a FastAPI dependency: whoever is authenticated, whatever their rights."""
    return requires()
