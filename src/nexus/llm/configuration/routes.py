"""The native doors of providers and routes: those of the settings file to see, those of the API to change."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Header, Path, Request, Response
from pydantic import BaseModel

from nexus.access.credentials import origin_of
from nexus.access.guard import requires
from nexus.access.types import Principal, Scope
from nexus.core.errors import NotFound
from nexus.http.depends import service
from nexus.llm.configuration.schemas import (
    DeploymentView,
    ProviderList,
    ProviderPatch,
    ProviderTest,
    ProviderTested,
    ProviderView,
    RouteList,
    RoutePatch,
    RouteView,
)
from nexus.llm.configuration.service import Configuration
from nexus.llm.registry import RESERVED
from nexus.llm.service import LLMService
from nexus.llm.settings import ProviderSettings, RouteSettings
from nexus.llm.types import Route

V = TypeVar("V", ProviderView, RouteView)

router = APIRouter(prefix="/api/v1", tags=["language"])

Administrator = Annotated[Principal, requires(Scope.ADMIN)]
Asking = Annotated[Principal, requires(Scope.LLM_INVOKE)]
Models = Annotated[LLMService, service(LLMService)]
Kept = Annotated[Configuration, service(Configuration)]
IfMatch = Annotated[str | None, Header(max_length=64)]
ProviderName = Annotated[str, Path(max_length=63)]
RouteName = Annotated[str, Path(max_length=256)]


@router.get("/providers", operation_id="providers.list")
async def list_providers(who: Administrator, llm: Models, kept: Kept) -> ProviderList:
    """List the providers of the settings and of the API. Keys are never shown."""
    found = [_provider(llm, kept, account.name) for account in llm.registry.accounts()]
    return ProviderList(data=found, left_out=llm.registry.left_out)


@router.post("/providers", status_code=201, operation_id="providers.create")
async def create_provider(
    body: ProviderSettings, who: Administrator, request: Request, response: Response, llm: Models, kept: Kept
) -> ProviderView:
    """Add a provider. Its key, and all options of its kind, are stored encrypted and never shown again."""
    name = await kept.put_provider(who, _given(body), origin=origin_of(request.scope))
    response.headers["location"] = f"/api/v1/providers/{name}"
    return _tagged(response, _provider(llm, kept, name))


@router.get("/providers/{name}", operation_id="providers.get")
async def get_provider(
    name: ProviderName, who: Administrator, response: Response, llm: Models, kept: Kept
) -> ProviderView:
    """Show one provider."""
    return _tagged(response, _provider(llm, kept, name))


@router.patch("/providers/{name}", operation_id="providers.update")
async def change_provider(
    name: ProviderName,
    body: ProviderPatch,
    who: Administrator,
    request: Request,
    response: Response,
    llm: Models,
    kept: Kept,
    if_match: IfMatch = None,
) -> ProviderView:
    """Change a provider: what is left out stays, null removes."""
    origin = origin_of(request.scope)
    await kept.put_provider(who, _given(body), name=name, revision=_revision(if_match), origin=origin)
    return _tagged(response, _provider(llm, kept, name))


@router.delete("/providers/{name}", status_code=204, operation_id="providers.delete")
async def delete_provider(
    name: ProviderName, who: Administrator, request: Request, kept: Kept, if_match: IfMatch = None
) -> None:
    """Delete a provider to which no route leads."""
    await kept.delete_provider(who, name, revision=_revision(if_match), origin=origin_of(request.scope))


@router.post("/providers/{name}/test", operation_id="providers.test")
async def try_provider(name: ProviderName, body: ProviderTest, who: Administrator, llm: Models) -> ProviderTested:
    """Ask a provider for its models, or one of them for one token, and tell whether that worked."""
    if name not in {account.name for account in llm.registry.accounts()}:
        raise NotFound
    found = await llm.health.try_out(who, name, body.model)
    error = {"code": found.error.code, "message": found.error.message} if found.error is not None else None
    return ProviderTested(ok=error is None, latency_ms=round(found.seconds * 1000, 1), error=error)


@router.get("/routes", operation_id="routes.list")
async def list_routes(who: Asking, llm: Models, kept: Kept) -> RouteList:
    """List the public model names, where their calls go, and how each of those places is doing."""
    found = [_route(llm, kept, route) for route in llm.registry.routes.values()]
    return RouteList(data=found, left_out=llm.registry.left_out)


@router.post("/routes", status_code=201, operation_id="routes.create")
async def create_route(
    body: RouteSettings, who: Administrator, request: Request, response: Response, llm: Models, kept: Kept
) -> RouteView:
    """Add a route, as the settings file would describe it."""
    name = await kept.put_route(who, _given(body), origin=origin_of(request.scope))
    response.headers["location"] = f"/api/v1/routes/{name}"
    return _tagged(response, _route(llm, kept, _found(llm, name)))


@router.get("/routes/{name:path}", operation_id="routes.get")
async def get_route(name: RouteName, who: Asking, response: Response, llm: Models, kept: Kept) -> RouteView:
    """Show one route."""
    return _tagged(response, _route(llm, kept, _found(llm, name)))


@router.patch("/routes/{name:path}", operation_id="routes.update")
async def change_route(
    name: RouteName,
    body: RoutePatch,
    who: Administrator,
    request: Request,
    response: Response,
    llm: Models,
    kept: Kept,
    if_match: IfMatch = None,
) -> RouteView:
    """Change a route: what is left out stays, null goes back to the default."""
    origin = origin_of(request.scope)
    await kept.put_route(who, _given(body), name=name, revision=_revision(if_match), origin=origin)
    return _tagged(response, _route(llm, kept, _found(llm, name)))


@router.delete("/routes/{name:path}", status_code=204, operation_id="routes.delete")
async def delete_route(
    name: RouteName, who: Administrator, request: Request, kept: Kept, if_match: IfMatch = None
) -> None:
    """Delete a route to which no other one falls back."""
    await kept.delete_route(who, name, revision=_revision(if_match), origin=origin_of(request.scope))


def _provider(llm: LLMService, kept: Configuration, name: str) -> ProviderView:
    account = next((item for item in llm.registry.accounts() if item.name == name), None)
    if account is None:
        raise NotFound
    return ProviderView.of(account, kept.stored("provider", name), built_in=name in RESERVED)


def _found(llm: LLMService, name: str) -> Route:
    route = llm.registry.routes.get(name)
    if route is None:
        raise NotFound
    return route


def _route(llm: LLMService, kept: Configuration, route: Route) -> RouteView:
    now = asyncio.get_running_loop().time()
    places = [DeploymentView.of(item, llm.router.standing(item), now) for item in route.deployments]
    return RouteView.of(route, kept.stored("route", route.name), places)


def _tagged(response: Response, view: V) -> V:
    if view.revision is not None:
        response.headers["etag"] = f'"{view.revision}"'
    return view


def _given(body: BaseModel) -> dict[str, Any]:
    """Return what the caller wrote, with the key in the clear."""
    given = body.model_dump(mode="json", exclude_unset=True, exclude={"api_key"})
    if "api_key" in body.model_fields_set:
        key = getattr(body, "api_key", None)
        given["api_key"] = key.get_secret_value() if key is not None else None
    return given


def _revision(etag: str | None) -> int | None:
    """Return the revision that an ETag such as `"3"` stands for; None for no condition."""
    if etag is None or etag.strip() == "*":
        return None
    bare = etag.strip().removeprefix("W/").strip('"')
    return int(bare) if bare.isdecimal() and len(bare) < 10 else -1
