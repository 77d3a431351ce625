"""The wire forms of providers and routes over the native API."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from nexus.core.clock import rfc3339
from nexus.llm.account import Account
from nexus.llm.configuration.service import Stored
from nexus.llm.routing.standing import Standing
from nexus.llm.settings import CacheSettings, DeploymentSettings, Droppable, HealthSettings, TimeoutSettings
from nexus.llm.types import Deployment, Route

Source = Literal["settings", "api", "built_in"]

_SENSITIVE = re.compile(r"key|secret|token|password|credential|private|headers", re.IGNORECASE)
_HIDDEN = "***"


class ProviderPatch(BaseModel):
    """What of a provider is to change: what is left out stays, null removes. Further fields are its kind's own."""

    model_config = ConfigDict(extra="allow")

    kind: str | None = None
    api_key: SecretStr | None = None
    base_url: str | None = None


class RoutePatch(BaseModel):
    """What of a route is to change: what is left out stays, null goes back to the default."""

    model_config = ConfigDict(extra="forbid")

    deployments: list[DeploymentSettings] | None = Field(None, min_length=1)
    strategy: Literal["weighted", "least_busy", "lowest_latency", "lowest_cost"] | None = None
    fallbacks: list[str] | None = None
    timeouts: TimeoutSettings | None = None
    task: Literal["chat", "embedding"] | None = None
    cache: CacheSettings | None = None
    continuation: bool | None = None
    drop_unsupported: list[Droppable] | None = None
    health: HealthSettings | None = None


class ProviderView(BaseModel):
    """One provider. Of its key only the last four characters are shown, of its secret options nothing."""

    name: str
    kind: str
    base_url: str
    key_last4: str | None
    options: dict[str, Any]
    source: Source
    revision: int | None
    created_at: str | None
    updated_at: str | None

    @classmethod
    def of(cls, account: Account, stored: Stored | None, *, built_in: bool = False) -> ProviderView:
        """Write an account."""
        return cls(
            name=account.name,
            kind=account.kind,
            base_url=account.base_url,
            key_last4=account.secret.last4 if account.secret is not None else None,
            options={
                name: _HIDDEN if _SENSITIVE.search(name) or isinstance(value, dict) else value
                for name, value in account.options.items()
            },
            source="api" if stored else "built_in" if built_in else "settings",
            **_change_of(stored),
        )


class StandingView(BaseModel):
    """How a deployment is doing in this process: its breaker, calls under way, typical seconds, recent failures."""

    breaker: Literal["closed", "half_open", "open"]
    in_flight: int
    latency_seconds: float | None
    recent_failures: int
    last_error: str | None
    free_in_seconds: float

    @classmethod
    def of(cls, standing: Standing, now: float) -> StandingView:
        """Write a standing."""
        latency = standing.typical(now)
        return cls(
            breaker=standing.state(now),
            in_flight=standing.in_flight,
            latency_seconds=None if latency is None else round(latency, 4),
            recent_failures=len(standing.failures),
            last_error=standing.last_error,
            free_in_seconds=round(max(0.0, standing.free_at(now) - now), 1),
        )


class DeploymentView(BaseModel):
    """One place where a route's calls go; a null price is an unknown one."""

    provider: str
    model: str
    weight: float
    rpm: int | None
    tpm: int | None
    context_tokens: int | None
    price: dict[str, Any] | None
    standing: StandingView

    @classmethod
    def of(cls, item: Deployment, standing: Standing, now: float) -> DeploymentView:
        """Write a deployment."""
        price = item.price
        return cls(
            provider=item.provider,
            model=item.model,
            weight=item.weight,
            rpm=item.rpm,
            tpm=item.tpm,
            context_tokens=item.capabilities.context_tokens,
            price={name: getattr(price, name) for name in _PRICE} if price else None,
            standing=StandingView.of(standing, now),
        )


class RouteView(BaseModel):
    """One public model name, and how each of its places is doing."""

    name: str
    task: str
    strategy: str
    fallbacks: list[str]
    continuation: bool
    drop_unsupported: list[str]
    cached: bool
    built_in: bool
    demo: bool
    source: Source
    revision: int | None
    created_at: str | None
    updated_at: str | None
    deployments: list[DeploymentView]

    @classmethod
    def of(cls, route: Route, stored: Stored | None, deployments: list[DeploymentView]) -> RouteView:
        """Write a route."""
        return cls(
            name=route.name,
            task=route.task,
            strategy=route.strategy,
            fallbacks=list(route.fallbacks),
            continuation=route.continuation,
            drop_unsupported=list(route.drop_unsupported),
            cached=route.cache is not None,
            built_in=route.built_in,
            demo=any(item.capabilities.demo for item in route.deployments),
            source="api" if stored else "built_in" if route.built_in else "settings",
            deployments=deployments,
            **_change_of(stored),
        )


class ProviderList(BaseModel):
    """Answer of `GET /api/v1/providers`; `left_out` says which stored ones cannot be used, and why."""

    data: list[ProviderView]
    left_out: dict[str, str] = {}
    has_more: bool = False
    next_cursor: str | None = None


class RouteList(BaseModel):
    """Answer of `GET /api/v1/routes`; `left_out` says which stored ones cannot be used, and why."""

    data: list[RouteView]
    left_out: dict[str, str] = {}
    has_more: bool = False
    next_cursor: str | None = None


class ProviderTest(BaseModel):
    """Which model to ask one token of; without one, the list of the provider's models is asked for."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, min_length=1, max_length=256)


class ProviderTested(BaseModel):
    """Whether the provider answered, how long that took, and what went wrong in our words."""

    ok: bool
    latency_ms: float
    error: dict[str, str] | None


_PRICE = ("input", "output", "cache_read", "cache_write", "cache_write_1h")


def _change_of(stored: Stored | None) -> dict[str, Any]:
    if stored is None:
        return {"revision": None, "created_at": None, "updated_at": None}
    return {
        "revision": stored.revision,
        "created_at": rfc3339(stored.created_at),
        "updated_at": rfc3339(stored.updated_at),
    }
