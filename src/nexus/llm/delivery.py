"""How a call reaches a provider: deployments in order, a retry, a fallback, until the first piece of an answer.

After that piece nothing is tried again, since the caller has seen it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from nexus.core.errors import NexusError
from nexus.core.services import Services
from nexus.llm.account import Account, Endpoint
from nexus.llm.accounting import Entry
from nexus.llm.client import Answer, HttpAnswer, HttpClient, HttpRequest
from nexus.llm.errors import (
    ContextTooLong,
    Unsupported,
    UpstreamCredentials,
    UpstreamError,
    UpstreamMalformed,
    UpstreamModelMissing,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnavailable,
)
from nexus.llm.flow import Flow, Sink
from nexus.llm.provider import Provider
from nexus.llm.registry import Registry
from nexus.llm.routing import Router, Standing
from nexus.llm.types import Call, Deployment, Need, Route

R = TypeVar("R")
S = TypeVar("S")

_MOVES_ON = (UpstreamUnavailable, UpstreamTimeout, UpstreamError, UpstreamRateLimited, UpstreamModelMissing)
_TRY_AGAIN = (UpstreamUnavailable, UpstreamMalformed, UpstreamTruncated)
_HEALTHY = (UpstreamRateLimited, UpstreamModelMissing, UpstreamCredentials)
# No tokenizer makes longer tokens on average: what is longer than this cannot fit, and is not sent to be counted.
_MOST_CHARACTERS_PER_TOKEN = 16
_NOUNS: dict[Need, str] = {
    "tools": "tools",
    "images": "images",
    "audio": "audio",
    "documents": "documents",
    "json_schema": "structured output",
    "reasoning": "reasoning settings",
    "choices": "more than one choice",
    "logprobs": "log probabilities",
}


class Target(NamedTuple):
    """One attempt: where it goes and by which codec."""

    route: Route
    deployment: Deployment
    account: Account
    provider: Provider
    endpoint: Endpoint


class Delivery:
    """Sends calls along their routes."""

    def __init__(
        self, *, registry: Registry, router: Router, client: HttpClient, shelf: Services, retries: int
    ) -> None:
        """`shelf` holds what provider kinds need to find their endpoints."""
        self._registry = registry
        self._router = router
        self._client = client
        self._shelf = shelf
        self._retries = retries
        self._endpoints: dict[str, Endpoint] = {}

    async def chat(self, call: Call, entry: Entry, attempt: Callable[[Target], Awaitable[R]]) -> R:
        """Deliver a chat call by `attempt`."""
        route = self._registry.find(call.model)
        return await self.along(route, entry, attempt, lambda deployment: unfit(call, deployment), call=call)

    async def along(
        self,
        route: Route,
        entry: Entry,
        attempt: Callable[[Target], Awaitable[R]],
        refusal: Callable[[Deployment], NexusError | None] = lambda _: None,
        *,
        call: Call | None = None,
    ) -> R:
        """Try deployments in order until one answers; raise the last failure, or the first refusal."""
        clock = asyncio.get_running_loop().time
        problem: NexusError | None = None
        for current, deployment in self._router.plan(route, clock()):
            if (refused := refusal(deployment)) is not None:
                problem = problem or refused
                continue
            standing = self._router.standing(deployment)
            for again in range(self._retries + 1):
                if again:
                    await asyncio.sleep(random.uniform(0.05, 0.25 * again))  # noqa: S311  jitter
                entry.goes_to(current, deployment)
                began = clock()
                standing.in_flight += 1
                try:
                    result = await attempt(await self._target(current, deployment, call))
                except _MOVES_ON as error:
                    problem = error
                    if not isinstance(error, _HEALTHY):
                        standing.failed(clock())
                    if not isinstance(error, _TRY_AGAIN) or error.retry_after or standing.rests(clock()):
                        break
                else:
                    standing.succeeded(clock() - began)
                    return result
                finally:
                    standing.in_flight -= 1
        if problem is None:
            wait = self._router.rest_seconds(route, clock())
            raise UpstreamUnavailable("The provider has failed repeatedly and is left alone for now.", retry_after=wait)
        raise problem

    async def fetch(self, target: Target, request: HttpRequest, dialect: str, entry: Entry) -> HttpAnswer:
        """Send and read a whole answer. Raises what its status means."""
        entry.sent = True
        try:
            answer = await self._client.fetch(request, target.route.timeouts)
        except UpstreamUnavailable:
            self._forget(target)
            raise
        if answer.status != 200:
            raise _refusal(answer, target, dialect)
        return answer

    async def begin(self, target: Target, call: Call, entry: Entry, sink: Sink[S]) -> Flow[S]:
        """Send a stream's request and wait for its first piece."""
        request = target.provider.chat(target.endpoint, target.deployment.model, call)
        entry.sent = True
        answer = self._client.send(request, target.route.timeouts, stream=True)
        try:
            await answer.__aenter__()
        except UpstreamUnavailable:
            self._forget(target)
            raise
        try:
            if answer.status != 200:
                raise _refusal(await answer.whole(), target, call.dialect)
            await _expect_stream(answer, target)
            entry.tally = sink.tally
            data = await answer.next()
            first = sink.feed(data) if data else sink.end()
            while data and not first and not sink.tally.done and sink.tally.failure is None:
                data = await answer.next()
                first = sink.feed(data) if data else sink.end()
            if (failure := sink.tally.failure) is not None and (not first or isinstance(failure, _MOVES_ON)):
                # Nothing has reached the caller yet, so another deployment may still answer.
                raise failure.without(_private(target)) if isinstance(failure, UpstreamRejected) else failure
        except BaseException:
            answer.close()
            raise
        standing = self._router.standing(target.deployment)
        standing.in_flight += 1
        return Flow(answer, sink, first, ended=not data, private=_private(target), on_close=lambda: _leave(standing))

    async def _target(self, route: Route, deployment: Deployment, call: Call | None) -> Target:
        account, provider = self._registry.account(deployment.provider)
        if call is not None:
            provider = provider.serving(account, deployment.model, call)
        endpoint = self._endpoints.get(account.name)
        now = asyncio.get_running_loop().time()
        if endpoint is None or (endpoint.expires_at is not None and endpoint.expires_at <= now):
            endpoint = self._endpoints[account.name] = await provider.endpoint(account, self._shelf)
        return Target(route, deployment, account, provider, endpoint)

    def _forget(self, target: Target) -> None:
        """Look the endpoint up again next time: a restarted child has a new port."""
        self._endpoints.pop(target.account.name, None)


def unfit(call: Call, deployment: Deployment) -> NexusError | None:
    """Return why this model cannot take the request, or None."""
    able = deployment.capabilities
    for need in call.needs:
        if able.lacks(need):
            field = call.fields.get(need, need)
            return Unsupported(f"The model {call.model} does not support {_NOUNS[need]} ({field}).", field=field)
    limit = able.context_tokens
    if limit is not None and call.characters > limit * _MOST_CHARACTERS_PER_TOKEN:
        return ContextTooLong(f"The model {call.model} reads at most {limit} tokens.", field="messages")
    return None


async def _expect_stream(answer: Answer, target: Target) -> None:
    """Refuse a page or a plain JSON answer in the place of a stream, saying what it said if it was an error."""
    kind = answer.headers.get("content-type", "")
    if target.provider.json_streams and kind.startswith("application/json"):
        return
    if kind.startswith(("application/json", "text/html")):
        whole = await answer.whole()
        if kind.startswith("application/json"):
            target.provider.completion(whole)
        raise UpstreamMalformed("The provider did not answer with a stream.")


def _refusal(answer: HttpAnswer, target: Target, dialect: str) -> NexusError:
    """Return the error of an error answer, without a word that names our credential or the upstream's address."""
    error = target.provider.error(answer)
    private = _private(target)
    if isinstance(error, UpstreamRejected):
        same = target.provider.dialect == dialect and answer.body.lstrip().startswith((b"{", b"["))
        error.body = answer.body if same else b""
        return error.without(private)
    if any(word in error.message for word in private):
        return type(error)(field=error.field, retry_after=error.retry_after)
    return error


def _private(target: Target) -> tuple[str, ...]:
    """Return the words that no caller may read: our credential and where the upstream is."""
    secret, host = target.endpoint.secret, target.endpoint.base_url.partition("://")[2].partition("/")[0]
    return (host, secret.reveal()) if secret is not None else (host,)


def _leave(standing: Standing) -> None:
    standing.in_flight -= 1
