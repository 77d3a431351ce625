"""The wire forms of the native routes: text tasks, providers, routes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from nexus.llm.account import Account
from nexus.llm.answer_cache import CacheFigures
from nexus.llm.task import TextTask
from nexus.llm.text import TaskDone
from nexus.llm.types import Route


def request_of(name: str, task: TextTask[Any]) -> type[BaseModel]:
    """Return the body of `POST /api/v1/text/{name}`: the task's parameters, and which model is to do it."""
    which = Field(None, min_length=1, max_length=256, description="A route or provider/model.")
    made: type[BaseModel] = create_model(
        f"{name.capitalize()}Request",
        __base__=task.parameters,
        __doc__=task.summary,
        model=(str | None, which),
    )
    return made


class TextUsage(BaseModel):
    """Tokens of all calls that a task made."""

    input_tokens: int
    output_tokens: int
    estimated: bool


class TextAnswer(BaseModel):
    """Answer of every text task; `id` names the last call's row in the ledger."""

    model_config = ConfigDict(extra="allow")

    id: str
    task: str
    model: str
    text: str
    usage: TextUsage
    calls: int
    cost_usd: float | None

    @classmethod
    def of(cls, done: TaskDone) -> TextAnswer:
        """Write a finished task."""
        usage = TextUsage(
            input_tokens=done.usage.input_tokens,
            output_tokens=done.usage.output_tokens,
            estimated=done.usage.estimated,
        )
        return cls(
            id=done.id,
            task=done.task,
            model=done.model,
            text=done.result.text,
            usage=usage,
            calls=done.calls,
            cost_usd=done.cost_usd,
            **done.result.fields,
        )


class ProviderView(BaseModel):
    """One configured provider; of its key only the last four characters are shown."""

    name: str
    kind: str
    base_url: str
    key_last4: str | None

    @classmethod
    def of(cls, account: Account) -> ProviderView:
        """Write an account."""
        last4 = account.secret.last4 if account.secret is not None else None
        return cls(name=account.name, kind=account.kind, base_url=account.base_url, key_last4=last4)


class DeploymentView(BaseModel):
    """One place where a route's calls go; a null price is an unknown one."""

    provider: str
    model: str
    weight: float
    price: dict[str, float | None] | None


class RouteView(BaseModel):
    """One public model name."""

    name: str
    task: str
    strategy: str
    fallbacks: list[str]
    built_in: bool
    demo: bool
    deployments: list[DeploymentView]

    @classmethod
    def of(cls, route: Route) -> RouteView:
        """Write a route."""
        deployments: list[dict[str, Any]] = [
            {
                "provider": item.provider,
                "model": item.model,
                "weight": item.weight,
                "price": {name: getattr(item.price, name) for name in item.price.__struct_fields__}
                if item.price
                else None,
            }
            for item in route.deployments
        ]
        return cls(
            name=route.name,
            task=route.task,
            strategy=route.strategy,
            fallbacks=list(route.fallbacks),
            built_in=route.built_in,
            demo=any(item.capabilities.demo for item in route.deployments),
            deployments=[DeploymentView(**item) for item in deployments],
        )


class ProviderList(BaseModel):
    """Answer of `GET /api/v1/providers`."""

    data: list[ProviderView]
    has_more: bool = False
    next_cursor: str | None = None


class RouteList(BaseModel):
    """Answer of `GET /api/v1/routes`."""

    data: list[RouteView]
    has_more: bool = False
    next_cursor: str | None = None


class CacheRouteView(BaseModel):
    """How the cache of one route does: what is kept now, and how often it could answer since this process started."""

    route: str
    entries: int
    bytes: int
    hits: int
    semantic: int
    stale: int
    misses: int
    hit_rate: float | None

    @classmethod
    def of(cls, route: str, kept: tuple[int, int], figures: CacheFigures) -> CacheRouteView:
        """Write the figures of a route."""
        return cls(
            route=route,
            entries=kept[0],
            bytes=kept[1],
            hits=figures.hits,
            semantic=figures.semantic,
            stale=figures.stale,
            misses=figures.misses,
            hit_rate=figures.hit_rate,
        )


class CacheView(BaseModel):
    """Answer of `GET /api/v1/cache`: all answers that the project has kept, and each route that keeps some."""

    entries: int
    bytes: int
    hits: int
    misses: int
    hit_rate: float | None
    routes: list[CacheRouteView]


class CachePurged(BaseModel):
    """Answer of `DELETE /api/v1/cache`."""

    deleted: int
