"""How a call reaches a provider: deployments in order, a retry, a fallback, until the first words of an answer.

After those nothing is tried again here, since the caller has seen them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from nexus.core.errors import NexusError, RateLimited
from nexus.core.services import Services
from nexus.llm.account import Account, Endpoint
from nexus.llm.errors import (
    AnswerFailed,
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
from nexus.llm.flow import Flow, Heard, Sink
from nexus.llm.money.accounting import Entry
from nexus.llm.provider import Provider
from nexus.llm.registry import Registry
from nexus.llm.routing.dropping import telling, with_less
from nexus.llm.routing.router import Plan, Router, Step
from nexus.llm.types import Call, Chunk, Deployment, Route, Tally, Timeouts
from nexus.llm.wire.client import Answer, HttpAnswer, HttpClient, HttpRequest

R = TypeVar("R")
S = TypeVar("S", bytes, list[Chunk], list[Heard])

MOVES_ON = (UpstreamUnavailable, UpstreamTimeout, UpstreamError, UpstreamRateLimited, UpstreamModelMissing)
_TRY_AGAIN = (UpstreamUnavailable, UpstreamMalformed, UpstreamTruncated, AnswerFailed)
_HEALTHY = (UpstreamRateLimited, UpstreamModelMissing, UpstreamCredentials, AnswerFailed)
# Of the time that is left, what one plain attempt may take while there is somewhere else to go.
_SHARE = 0.6
_PAUSE = 0.25
# A stream's first events name it and open its parts; by this many something has been said.
_OPENING_EVENTS = 8


class Target(msgspec.Struct, frozen=True):
    """One attempt: where it goes, by which codec, and how long it may take."""

    route: Route
    deployment: Deployment
    account: Account
    provider: Provider
    endpoint: Endpoint
    timeouts: Timeouts


def request_for(target: Target, call: Call, entry: Entry) -> HttpRequest:
    """Write the request of an attempt. Raises as `written` does."""
    return written(target, call, entry, target.provider.chat)


def written(target: Target, call: Call, entry: Entry, write: Callable[[Endpoint, str, Call], R]) -> R:
    """Let a request be written without what the route lets be left out for a model that cannot take it.

    The caller is told in a header. Raises `Unsupported` for what else the model cannot take.
    """
    place, model, droppable = target.endpoint, target.deployment.model, target.route.drop_unsupported
    if entry.headers:
        entry.headers = telling(entry.headers, b"")
    if not droppable:
        return write(place, model, call)
    request, dropped = with_less(lambda asked: write(place, model, asked), call, droppable)
    if dropped:
        entry.headers = telling(entry.headers, ", ".join(dropped).encode())
    return request


class Delivery:
    """Sends calls along their routes."""

    def __init__(self, *, registry: Registry, router: Router, client: HttpClient, shelf: Services) -> None:
        """`shelf` holds what provider kinds need to find their endpoints."""
        self._registry = registry
        self.router = router
        self._client = client
        self._shelf = shelf
        self._endpoints: dict[str, Endpoint] = {}

    async def along(
        self,
        route: Route,
        entry: Entry,
        attempt: Callable[[Target], Awaitable[R]],
        call: Call | None = None,
        *,
        avoid: Deployment | None = None,
    ) -> R:
        """Try deployments in order until one answers; raise the last failure, or the first refusal.

        All attempts together have the `total` time of `route`. One move to another deployment is free;
        further tries come out of the retry budget.
        """
        clock = asyncio.get_running_loop().time
        began = now = clock()
        router = self.router
        step = router.only(route, now, call) if avoid is None else None
        plan = None if step is not None else router.plan(route, now, call, avoid=avoid)
        plain = call is None or not call.stream
        problem: NexusError | None = None
        first: Deployment | None = None
        while plan is None or (step := plan.next(now)) is not None:
            assert step is not None
            deployment, standing = step.deployment, step.standing
            if step.again and plan is not None:
                await asyncio.sleep(_pause(plan.tries) + max(0.0, step.not_before - now))
                now = clock()
                if not standing.admits(now):
                    continue
            left = began + route.timeouts.total - now
            if left <= 0:
                break
            more = plan.more if plan is not None else bool(route.fallbacks)
            timeouts = _within(step.route.timeouts, left, plain, more)
            entry.goes_to(step.route, deployment)
            first = first or deployment
            started = time.perf_counter()  # the loop knows milliseconds only
            probe = standing.enter()
            try:
                target = self._at_hand(step.route, deployment, call, timeouts)
                result = await attempt(target or await self.target(step.route, deployment, call, timeouts))
            except NexusError as error:
                now, problem, plan = clock(), error, plan or router.after(step, call)
                if not self._goes_on(error, step, plan, entry, now, probe=probe):
                    raise
            else:
                now = clock()
                standing.succeeded(time.perf_counter() - started, now, whole=plain)
                if deployment is not first:
                    router.meter.fell_back(route.name)
                return result
            finally:
                standing.leave(probe=probe)
        raise problem or (plan.refused if plan is not None else None) or router.refusal(route, now)

    def _goes_on(self, error: NexusError, step: Step, plan: Plan, entry: Entry, now: float, *, probe: bool) -> bool:
        """Note a failed attempt for those that come after it; False where there is nothing more to try."""
        deployment, standing = step.deployment, step.standing
        if isinstance(error, MOVES_ON):
            if self._note(deployment, error, now, probe=probe):
                plan.again(deployment, standing.waits_until)
        else:
            if entry.sent:
                standing.answered()
            if not isinstance(error, ContextTooLong | Unsupported):
                return False
            if isinstance(error, ContextTooLong):
                plan.too_small = deployment
        entry.failed(error)
        return True

    def forget(self) -> None:
        """Find every endpoint anew: accounts have changed."""
        self._endpoints.clear()

    async def fetch(self, target: Target, request: HttpRequest, dialect: str, entry: Entry) -> HttpAnswer:
        """Send and read a whole answer. Raises what its status means."""
        entry.sent = True
        try:
            answer = await self._client.fetch(request, target.timeouts)
        except UpstreamUnavailable:
            self._forget(target)
            raise
        if answer.status != 200:
            raise _refusal(answer, target, dialect)
        return answer

    async def begin(self, target: Target, call: Call, entry: Entry, sink: Sink[S]) -> Flow[S]:
        """Send a stream's request and wait for its first words: what breaks before them, nobody has seen."""
        request = request_for(target, call, entry)
        entry.sent = True
        end = asyncio.get_running_loop().time() + target.timeouts.first_token
        answer = self._client.send(request, target.timeouts, stream=True)
        try:
            await answer.__aenter__()
        except UpstreamUnavailable:
            self._forget(target)
            raise
        try:
            if answer.status != 200:
                raise _refusal(await answer.whole(), target, call.dialect)
            await _expect_stream(answer, target)
            tally = entry.tally = sink.tally
            data = await answer.next()
            first = sink.feed(data) if data else sink.end()
            while data and not _has_begun(tally):
                # A stream that only shows signs of life, or opens and falls silent, is late too.
                try:
                    async with asyncio.timeout_at(end):
                        data = await answer.next()
                except TimeoutError:
                    raise UpstreamTimeout from None
                first += sink.feed(data) if data else sink.end()
            if (failure := tally.failure) is not None and (not tally.characters or isinstance(failure, MOVES_ON)):
                # Nothing has reached the caller yet, so another deployment may still answer.
                raise failure.without(_private(target)) if isinstance(failure, UpstreamRejected) else failure
            if tally.done and not tally.finished and not tally.characters:
                raise UpstreamMalformed("The provider ended its stream without an answer.")
            answer.has_begun()
        except BaseException:
            answer.close()
            raise
        standing = self.router.standing(target.deployment)
        return Flow(
            answer, sink, first, ended=not data, private=_private(target), standing=standing, router=self.router
        )

    async def target(self, route: Route, deployment: Deployment, call: Call | None, timeouts: Timeouts) -> Target:
        """Return where an attempt goes: the codec for this call, and the endpoint as it is now."""
        account, provider = self._codec(deployment, call)
        endpoint = await self.endpoint(account, provider)
        return Target(route, deployment, account, provider, endpoint, timeouts)

    async def endpoint(self, account: Account, provider: Provider) -> Endpoint:
        """Return where the account's calls go now."""
        endpoint = self._known(account)
        if endpoint is None:
            endpoint = self._endpoints[account.name] = await provider.endpoint(account, self._shelf)
        return endpoint

    def _at_hand(self, route: Route, deployment: Deployment, call: Call | None, timeouts: Timeouts) -> Target | None:
        """Return what `target` does where nothing has to be found out."""
        account, provider = self._codec(deployment, call)
        endpoint = self._known(account)
        return None if endpoint is None else Target(route, deployment, account, provider, endpoint, timeouts)

    def _codec(self, deployment: Deployment, call: Call | None) -> tuple[Account, Provider]:
        account, provider = self._registry.account(deployment.provider, deployment.model)
        return account, provider if call is None else provider.serving(account, deployment.model, call)

    def _known(self, account: Account) -> Endpoint | None:
        """Return the account's endpoint if it is known and good."""
        endpoint = self._endpoints.get(account.name)
        if endpoint is None or endpoint.expires_at is None:
            return endpoint
        return endpoint if endpoint.expires_at > asyncio.get_running_loop().time() else None

    def _note(self, deployment: Deployment, error: NexusError, now: float, *, probe: bool) -> bool:
        """Note a failed attempt; True where the same deployment is worth another one."""
        standing = self.router.standing(deployment)
        self.router.meter.failed(deployment.provider, error.code)
        if isinstance(error, UpstreamCredentials):
            self._endpoints.pop(deployment.provider, None)  # perhaps there are newer ones
        if isinstance(error, _HEALTHY):
            standing.answered()
        else:
            standing.failed(now, error.code, probe=probe)
        if (wait := error.retry_after) is not None:
            standing.asked_to_wait(wait, now, limited=isinstance(error, RateLimited))
            return wait <= self.router.longest_wait
        return isinstance(error, _TRY_AGAIN)

    def _forget(self, target: Target) -> None:
        """Look the endpoint up again next time: a restarted child has a new port."""
        self._endpoints.pop(target.account.name, None)


def _pause(tries: int) -> float:
    """Return how long to wait before the same deployment is tried again: full jitter, doubling."""
    return random.uniform(0.0, _PAUSE * 2.0 ** (tries - 1))  # noqa: S311  no secret


def _within(limits: Timeouts, left: float, plain: bool, more: bool) -> Timeouts:
    """Return the time for one attempt out of what is left for all of them.

    Of a plain call nothing is seen before its end, so it leaves some for those that come after it.
    """
    total = min(limits.total, left)
    if plain and limits.attempt is not None:
        total = min(total, limits.attempt)
    elif plain and more:
        total = min(total, left * _SHARE)
    return limits if total == limits.total else msgspec.structs.replace(limits, total=total)


def _has_begun(tally: Tally) -> bool:
    """Tell whether a stream has said something, or has come to its end."""
    return (
        tally.characters > 0
        or (tally.finished > 0 and tally.failed is None)
        or tally.done
        or tally.failure is not None
        or tally.events >= _OPENING_EVENTS
    )


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
        error.body = error.body if same else b""
        return error.without(private)
    if any(word in error.message for word in private):
        return type(error)(field=error.field, retry_after=error.retry_after)
    return error


def _private(target: Target) -> tuple[str, ...]:
    """Return the words that no caller may read: our credential and where the upstream is."""
    secret, host = target.endpoint.secret, target.endpoint.base_url.partition("://")[2].partition("/")[0]
    return (host, secret.reveal()) if secret is not None else (host,)
