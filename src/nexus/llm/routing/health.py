"""Looking whether deployments answer before a caller finds out: for routes that ask for it, and on request.

A check is cheap: the provider's list of models, or one token. What it finds feeds the breaker. Checks are
spread in time and few at once, so that a thousand deployments never make a wave of requests. A token costs money, so
each that was asked for is on record as a call of kind `health`, of nobody's project where nobody asked for the check.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import NamedTuple

from nexus.access.types import Principal
from nexus.core.errors import NexusError
from nexus.llm.errors import UpstreamCredentials, UpstreamModelMissing, UpstreamRateLimited, UpstreamUnavailable
from nexus.llm.money.accounting import Entry, Record
from nexus.llm.registry import RESERVED, Registry
from nexus.llm.routing.delivery import Delivery, Target
from nexus.llm.routing.router import Router
from nexus.llm.types import Call, ChatRequest, Deployment, HealthPolicy, Message, Route, Tally, Text, Timeouts
from nexus.llm.wire.client import HttpClient, HttpRequest

log = logging.getLogger(__name__)

_TICK = 1.0
_JITTER = 0.2
_AT_ONCE = 4
_PATIENCE = Timeouts(connect=3, first_token=10, between_tokens=10, total=10)
_HELLO = "hi"
_NOBODY = Principal("system", "health", "")
_ALIVE = (UpstreamRateLimited, UpstreamModelMissing, UpstreamCredentials)


class Found(NamedTuple):
    """What a check found: how long it took, and what went wrong."""

    seconds: float
    error: NexusError | None


class Health:
    """Checks deployments, now and then or once."""

    def __init__(
        self,
        *,
        registry: Registry,
        router: Router,
        client: HttpClient,
        delivery: Delivery,
        record: Record,
        pick: Callable[[], float] = random.random,
    ) -> None:
        """Check nothing before `start`."""
        self._registry = registry
        self._router = router
        self._client = client
        self._delivery = delivery
        self._record = record
        self._pick = pick
        self._due: dict[str, float] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._under_way: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to check the routes that ask for it."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Check no longer."""
        tasks = [*self._under_way, *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def try_out(self, who: Principal, provider: str, model: str | None = None) -> Found:
        """Ask a provider for its models, or one of them for a token, which goes on the account of `who`."""
        if model is None:
            return await self._ask(_NOBODY, Deployment(provider=provider, model="models"), by_call=False)
        priced = await self._registry.priced(f"{provider}/{model}")
        return await self._ask(who, priced.deployments[0], by_call=True)

    def due(self, now: float) -> list[tuple[Deployment, HealthPolicy]]:
        """Return what is to be checked now, and note when it is next. The first check comes at a random moment."""
        found = []
        seen: set[str] = set()
        for route in self._registry.routes.values():
            policy = route.health
            for item in route.deployments if policy is not None else ():
                if policy is None or item.key in seen or item.provider in RESERVED:
                    continue
                seen.add(item.key)
                when = self._due.setdefault(item.key, now + policy.interval * self._pick())
                if now >= when:
                    self._due[item.key] = now + policy.interval * (1 + _JITTER * (2 * self._pick() - 1))
                    found.append((item, policy))
        for key in self._due.keys() - seen:
            del self._due[key]
        return found

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            for deployment, policy in self.due(clock()):
                task = asyncio.get_running_loop().create_task(self._check(deployment, policy))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            await asyncio.sleep(_TICK)

    async def _check(self, deployment: Deployment, policy: HealthPolicy) -> None:
        async with self._slots:
            found = await self._ask(_NOBODY, deployment, by_call=policy.by_call)
        now = asyncio.get_running_loop().time()
        standing = self._router.standing(deployment)
        if found.error is None or isinstance(found.error, _ALIVE):
            # A list of models says less than an answer: it ends a rest no earlier than that is over.
            if policy.by_call or standing.state(now) != "open":
                standing.answered()
        else:
            standing.failed(now, found.error.code)
            log.warning("%s does not answer its health check: %s", deployment.key, found.error.code)

    async def _ask(self, who: Principal, deployment: Deployment, *, by_call: bool) -> Found:
        began = time.perf_counter()  # the loop knows milliseconds only
        error: NexusError | None = None
        try:
            async with asyncio.timeout(_PATIENCE.total + 5):
                await self._call(who, deployment) if by_call else await self._look(deployment)
        except NexusError as problem:
            error = problem
        except TimeoutError:
            error = UpstreamUnavailable()
        return Found(time.perf_counter() - began, error)

    async def _call(self, who: Principal, deployment: Deployment) -> None:
        """Ask for one token. Raises what the answer means."""
        with Entry(self._record, who, kind="health", model=deployment.key, characters=len(_HELLO)) as entry:
            target, request = await self._prepared(deployment)
            entry.goes_to(target.route, deployment)
            entry.sent = True
            answer = await self._client.fetch(request, _PATIENCE)
            if answer.status >= 300:
                raise target.provider.error(answer)
            entry.tally = Tally.of(target.provider.completion(answer))

    async def _look(self, deployment: Deployment) -> None:
        """Ask for the list of models, where the provider has one. Raises what the answer means."""
        target, request = await self._prepared(deployment)
        if target.provider.lists_models:
            request = HttpRequest(url=_models_of(target), method="GET", headers=_without_content(request))
        answer = await self._client.fetch(request, _PATIENCE)
        if answer.status >= 300 and answer.status not in (400, 404, 405):
            raise target.provider.error(answer)

    async def _prepared(self, deployment: Deployment) -> tuple[Target, HttpRequest]:
        """Return where a check goes, and the request for one token."""
        hello = Message(role="user", parts=(Text(text=_HELLO),))
        call = Call.of(ChatRequest(model=deployment.model, messages=(hello,), max_tokens=1))
        route = Route(name=deployment.key, deployments=(deployment,))
        target = await self._delivery.target(route, deployment, call, _PATIENCE)
        return target, target.provider.chat(target.endpoint, deployment.model, call)


def _models_of(target: Target) -> str:
    return f"{target.endpoint.base_url}/models"


def _without_content(request: HttpRequest) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in request.headers if name.lower() != "content-type")
