"""The configured providers and routes, resolved once: kinds to plugs, prices, capabilities, built-in routes."""

from __future__ import annotations

import asyncio
import re
import threading
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from nexus.core.errors import NexusError
from nexus.core.plugins import PluginFolder
from nexus.llm.account import Account
from nexus.llm.errors import UnknownModel, UpstreamModelMissing
from nexus.llm.local.own_routes import LOCAL_ACCOUNT, SLOW, Accounts, LocalRoutes
from nexus.llm.money.pricing import Priced, PriceTable, Published, Row
from nexus.llm.money.published_prices import PublishedPrices
from nexus.llm.provider import Provider
from nexus.llm.routing.abilities import able_as
from nexus.llm.settings import (
    CacheSettings,
    CapabilitySettings,
    DeploymentSettings,
    LLMSettings,
    ProviderSettings,
    RouteSettings,
)
from nexus.llm.types import (
    CachePolicy,
    Capabilities,
    Deployment,
    HealthPolicy,
    ModelCard,
    Price,
    Route,
    SemanticPolicy,
    Timeouts,
)

LOCAL = "nexus-local"
IN_PROCESS = "built-in"
RESERVED = (LOCAL_ACCOUNT, IN_PROCESS)


class ConfigurationInvalid(NexusError):
    """The configuration of language models is not valid."""

    code = "llm_configuration_invalid"


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    plug: str
    base_url: str
    environment: str | None = None
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    capabilities: Capabilities | None = None


@cache
def compatible_rows() -> Mapping[str, _Row]:
    """Return the provider kinds that are data only, by name."""
    text = files("nexus.llm").joinpath("compatible.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, _Row])


class Registry:
    """What a model name means: routes by name, accounts by name, and their plugs."""

    def __init__(self, settings: LLMSettings, published: Published | None = None) -> None:
        """Resolve everything but prices now. Raises `ConfigurationInvalid` for what cannot work.

        `published` looks prices up; without it they are read in this process.
        """
        # The folder only checks with isinstance, so an abstract contract will do.
        self._kinds = PluginFolder("nexus.llm.providers", Provider, noun="provider kind")  # type: ignore[type-abstract]
        self._rows = compatible_rows()
        self.prices = PriceTable.shipped(published or PublishedPrices(), _rows(settings))
        self._price_at, self._pricing = 0.0, threading.Lock()
        self._timeouts = Timeouts(**settings.timeouts.model_dump())
        if settings.timeout is not None:
            self._timeouts = msgspec.structs.replace(self._timeouts, total=settings.timeout)
        self._settings = settings
        self._accounts: Accounts = {}
        self._local = LocalRoutes()
        self.routes: dict[str, Route] = {}
        self.left_out: dict[str, str] = {}
        for provider in settings.providers:
            if provider.name in RESERVED:
                raise ConfigurationInvalid(f"The provider name {provider.name} is taken by NEXUS itself.")
            self._accounts[provider.name] = self._account(provider)
        self._add_built_in(settings)
        for route in settings.routes:
            self.routes[route.name] = self._route(route, self._accounts)
        self._own = (self._accounts, self.routes)
        if missing := _without_fallback(self.routes):
            name, fallback = missing
            why = f"{LOCAL} is a demo model and no fallback" if fallback == LOCAL else f"there is no route {fallback}"
            raise ConfigurationInvalid(f"Route {name}: {why} to fall back to.")

    def extend(self, providers: Sequence[ProviderSettings], routes: Sequence[RouteSettings]) -> None:
        """Know these too, in the place of those that an earlier call added; what the settings name comes first.

        What cannot work is left out, and `left_out` says why by its name. Safe to call from any thread.
        """
        accounts, known = dict(self._own[0]), dict(self._own[1])
        left_out: dict[str, str] = {}
        for provider in providers:
            if provider.name in accounts or provider.name in RESERVED:
                left_out[provider.name] = "The settings have a provider of this name."
            elif not self.knows_kind(provider.kind):
                left_out[provider.name] = f"There is no provider kind {provider.kind}."
            else:
                # The keys of this machine's environment are for those who set it up, not for any address.
                accounts[provider.name] = self._account(provider, environment=provider.base_url is None)
        for route in routes:
            missing = [item.provider for item in route.deployments if item.provider not in accounts]
            if route.name in known:
                left_out[route.name] = "The settings have a route of this name."
            elif missing:
                left_out[route.name] = f"There is no provider {missing[0]}."
            else:
                known[route.name] = self._route(route, accounts)
        while broken := _without_fallback(known):
            left_out[broken[0]] = f"There is no route {broken[1]} to fall back to."
            del known[broken[0]]
        with self._pricing:
            priced = self._price_at > 0
            if priced:
                self.prices.look_up(_wanted(known.values(), accounts))
            self._accounts = accounts
            self.routes = {name: self._with_prices(route) if priced else route for name, route in known.items()}
            self.left_out = left_out
            if priced:
                self._price_at = self.prices.changes_at

    def has_own_provider(self, name: str) -> bool:
        """Tell whether a provider of this name comes from the settings."""
        return name in self._own[0] and name not in RESERVED

    def has_own_route(self, name: str) -> bool:
        """Tell whether a route of this name comes from the settings, or is built in."""
        return name in self._own[1]

    def knows_kind(self, kind: str) -> bool:
        """Tell whether there is a provider kind of this name."""
        return (kind in self._kinds or kind in self._rows) and kind != LOCAL_ACCOUNT

    def accounts(self) -> list[Account]:
        """Return every configured account."""
        return [account for account, _ in self._accounts.values()]

    def account(self, name: str, model: str = LOCAL) -> tuple[Account, Provider]:
        """Return an account and its kind. Raises `UnknownModel` for one that has just been taken away.

        `local` has an account for each `model`: `UpstreamModelMissing` for one that is not on this machine now.
        """
        if name == LOCAL_ACCOUNT and model != LOCAL:
            route = self._local.find(model, "")
            if route is None:
                raise UpstreamModelMissing(f"The model {model} is not on this machine.")
            name = route.deployments[0].provider
        found = self._accounts.get(name) or self._local.accounts.get(name)
        if found is None:
            raise UnknownModel("The provider of this model is not there any more.", field="model")
        return found

    def price(self, name: str = "") -> None:
        """Look up the price of every deployment and of `name`; may take a second, so call it in a thread."""
        with self._pricing:
            now = time.time()
            if now >= self._price_at:
                if self._price_at:
                    self.prices.renew(now)
                self.prices.look_up(_wanted(self.routes.values(), self._accounts))
                for known, route in list(self.routes.items()):
                    self.routes[known] = self._with_prices(route)
            if (direct := self._direct(name)) is not None:
                self.prices.look_up(_wanted([direct], self._accounts))
            self._price_at = self.prices.changes_at

    def serve(self, local: LocalRoutes) -> None:
        """Know these models of this machine, in the place of those of an earlier call."""
        self._local = local

    def at_hand(self, name: str) -> Route | None:
        """Return the chat route of this name if there is one of ours and its prices are known."""
        route = self.routes.get(name)
        return route if route is not None and route.task == "chat" and time.time() < self._price_at else None

    async def priced(self, name: str, *, task: str = "chat", project: str = "") -> Route:
        """Return what `find` does, once its prices are known: no call goes without its price.

        Only the first call after a start or a change, and the first to a `provider/model`, has to wait for them.
        """
        if time.time() >= self._price_at or not self._is_priced(name):
            await asyncio.to_thread(self.price, name)
        return self.find(name, task=task, project=project)

    def find(self, name: str, *, task: str = "chat", project: str = "") -> Route:
        """Return the route of this name, or one made for `provider/model`, with its prices as far as they are known.

        Models of this machine have their own name, and `local/` before it. Raises `UnknownModel`.
        """
        route = self.routes.get(name) or self._local.find(name.removeprefix(f"{LOCAL_ACCOUNT}/"), project)
        if route is None and name == f"{LOCAL_ACCOUNT}/{LOCAL}":
            route = self.routes.get(LOCAL)
        if route is None:
            direct = self._direct(name)
            if direct is None:
                if name.removeprefix(f"{LOCAL_ACCOUNT}/") in self._local.not_here:
                    raise UnknownModel(
                        "This model is known but not on this machine; it has to be pulled.", field="model"
                    )
                raise UnknownModel("There is no model of this name here, or it is not yours to use.", field="model")
            return self._with_prices(direct)
        if route.task != task:
            noun = "chat" if route.task == "chat" else "embeddings"
            raise UnknownModel(f"The model {name} is for {noun}.", field="model")
        return route

    def cards(self, project: str = "") -> list[ModelCard]:
        """Return a line for every model that a project can ask for by a name of ours."""
        local = [route for route in self._local.of(project) if route.name not in self.routes]
        return [_card(route) for route in (*self.routes.values(), *local)]

    def _plug(self, kind: str) -> Provider:
        if kind not in self._kinds:
            known = ", ".join(sorted({*self._kinds.names(), *self._rows} - {LOCAL_ACCOUNT}))
            raise ConfigurationInvalid(f"There is no provider kind {kind}; known are {known}.")
        return self._kinds.get(kind)

    def _add_built_in(self, settings: LLMSettings) -> None:
        if settings.local.enabled:
            plug = self._plug(LOCAL_ACCOUNT)
            self._accounts[LOCAL_ACCOUNT] = (Account(name=LOCAL_ACCOUNT, kind="local", base_url=plug.base_url), plug)
            able = msgspec.structs.replace(plug.capabilities, context_tokens=settings.local.context)
            local = Deployment(provider=LOCAL_ACCOUNT, model=LOCAL, capabilities=able, price=Price(input=0, output=0))
            self.routes[LOCAL] = Route(name=LOCAL, deployments=(local,), timeouts=SLOW, built_in=True)
        if settings.embeddings.enabled:
            name = settings.embeddings.model
            inside = Deployment(provider=IN_PROCESS, model=name, price=Price(input=0, output=0))
            self.routes[name] = Route(name=name, deployments=(inside,), task="embedding", built_in=True)

    def _account(self, given: ProviderSettings, *, environment: bool = True) -> tuple[Account, Provider]:
        row = self._rows.get(given.kind)
        plug = self._plug(row.plug if row else given.kind)
        variable = row.environment if row else plug.environment
        account = Account(
            name=given.name,
            kind=given.kind,
            base_url=given.base_url or (row.base_url if row else plug.base_url),
            secret=given.secret(variable if environment else None),
            options=(row.options if row else {}) | given.options(),
        )
        return account, plug

    def _route(self, given: RouteSettings, accounts: Accounts) -> Route:
        usual = SLOW if all(item.provider == LOCAL_ACCOUNT for item in given.deployments) else self._timeouts
        return Route(
            name=given.name,
            deployments=tuple(
                self._deployment(item.provider, item.model, accounts, item) for item in given.deployments
            ),
            strategy=given.strategy,
            fallbacks=tuple(given.fallbacks),
            timeouts=Timeouts(**given.timeouts.model_dump()) if given.timeouts else usual,
            task=given.task,
            cache=_cache_policy(given.cache),
            continuation=given.continuation,
            drop_unsupported=tuple(given.drop_unsupported),
            health=HealthPolicy(**given.health.model_dump()) if given.health else None,
        )

    def _deployment(
        self, provider: str, model: str, accounts: Accounts, given: DeploymentSettings | None = None
    ) -> Deployment:
        account, plug = accounts[provider]
        own = given.price if given else None
        price = msgspec.structs.replace(own.price(), source="deployment") if own else None
        row = self._rows.get(account.kind)
        able = able_as(model, (row.capabilities if row else None) or plug.capabilities)
        if provider == LOCAL_ACCOUNT and model != LOCAL:
            # Its file, which may not be here yet, says what it can; until a call gets there the settings do.
            able = msgspec.structs.replace(able, demo=False)
        if provider == LOCAL_ACCOUNT:
            price = price or Price(input=0, output=0, source="deployment")
        changed = (given.capabilities if given else None) or CapabilitySettings()
        able = msgspec.structs.replace(able, **changed.model_dump(exclude_none=True))
        limits: dict[str, Any] = {"weight": given.weight, "rpm": given.rpm, "tpm": given.tpm} if given else {}
        return Deployment(provider=provider, model=model, capabilities=able, price=price, **limits)

    def _direct(self, name: str) -> Route | None:
        """Return the route that `provider/model` stands for, without prices."""
        provider, slash, model = name.partition("/")
        if not slash or not model or provider not in self._accounts or provider == LOCAL_ACCOUNT or len(name) > 256:
            return None
        return Route(
            name=name, deployments=(self._deployment(provider, model, self._accounts),), timeouts=self._timeouts
        )

    def _is_priced(self, name: str) -> bool:
        """Tell whether nothing has to be looked up for this name, be it a model's or not."""
        if name in self.routes or (direct := self._direct(name)) is None:
            return True
        return all(map(self.prices.knows, _wanted([direct], self._accounts)))

    def _with_prices(self, route: Route) -> Route:
        return msgspec.structs.replace(route, deployments=tuple(map(self._with_price, route.deployments)))

    def _with_price(self, deployment: Deployment) -> Deployment:
        wanted = _price_of(deployment, self._accounts)
        return deployment if wanted is None else msgspec.structs.replace(deployment, price=self.prices.known(wanted))


class PricesBeside:
    """What models cost that nobody asked for: those that a provider lets take part in a call to another one."""

    def __init__(self, registry: Registry) -> None:
        """Go by what `registry` knows."""
        self._registry = registry

    async def look_up(self, route: Route, models: Sequence[str]) -> None:
        """Look up the prices of `models` at the providers of a route; returns at once where they are known."""
        known, prices = self._registry.routes, self._registry.prices
        routes = (route, *(known[name] for name in route.fallbacks if name in known))
        wanted = [self._wanted(place, model) for one in routes for place in one.deployments for model in models]
        missing = [one for one in wanted if one is not None and not prices.knows(one)]
        if missing:
            await asyncio.to_thread(prices.look_up, missing)

    def price_of(self, deployment: Deployment, model: str) -> Price | None:
        """Return what another model of a deployment's provider costs, as far as that is known."""
        for route in self._registry.routes.values():
            for place in route.deployments:
                if place.provider == deployment.provider and place.model == model and place.price is not None:
                    return place.price
        wanted = self._wanted(deployment, model)
        return None if wanted is None else self._registry.prices.known(wanted)

    def _wanted(self, deployment: Deployment, model: str) -> Priced | None:
        account = next((one for one in self._registry.accounts() if one.name == deployment.provider), None)
        return None if account is None else Priced(account.kind, model, account.base_url, account.name)


def _card(route: Route) -> ModelCard:
    owner = "nexus" if route.built_in else route.deployments[0].provider
    return ModelCard(name=route.name, owner=owner, task=route.task, demo=route.name == LOCAL)


def _wanted(routes: Iterable[Route], accounts: Accounts) -> list[Priced]:
    """Return the prices that the deployments of these routes go by."""
    found = (_price_of(deployment, accounts) for route in routes for deployment in route.deployments)
    return [wanted for wanted in found if wanted is not None]


def _price_of(deployment: Deployment, accounts: Accounts) -> Priced | None:
    """Return which price a deployment goes by, None for one that has its own or is in this process."""
    own = deployment.price is not None and deployment.price.source == "deployment"
    if own or deployment.provider not in accounts:
        return None
    account = accounts[deployment.provider][0]
    return Priced(account.kind, deployment.model, account.base_url, account.name)


def _without_fallback(routes: Mapping[str, Route]) -> tuple[str, str] | None:
    """Return a route and what it cannot fall back to; None where all can."""
    for route in routes.values():
        for name in route.fallbacks:
            if name not in routes or name == LOCAL:
                return route.name, name
    return None


def _cache_policy(given: CacheSettings) -> CachePolicy | None:
    if not given.exact and not given.semantic.enabled:
        return None
    semantic = SemanticPolicy(**given.semantic.model_dump())
    return CachePolicy(semantic=semantic, **given.model_dump(exclude={"exact", "semantic"}))


def _rows(settings: LLMSettings) -> list[Row]:
    """Return the operator's prices; `*` in a model's name stands for anything."""
    return [
        Row(kind=item.provider, models=".*".join(map(re.escape, item.model.split("*"))), price=item.price())
        for item in settings.prices
    ]
