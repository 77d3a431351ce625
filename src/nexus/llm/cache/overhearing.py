"""Answers for more than the one who asked: for a cache, for those who ask the same, or for another to carry on.

Both ways of asking give our own form beside the provider's bytes.
"""

from __future__ import annotations

import asyncio

import msgspec

from nexus.llm.cache.kept import Kept
from nexus.llm.dialect import Dialect
from nexus.llm.flow import Flow, Heard, Hearing, Overheard
from nexus.llm.money.accounting import Entry
from nexus.llm.routing.continuation import ContinuedFlow, may_continue
from nexus.llm.routing.delivery import Delivery, Target, request_for
from nexus.llm.routing.dropping import dropped_in
from nexus.llm.types import Call, Deployment, Route


async def ask(delivery: Delivery, route: Route, call: Call, dialect: Dialect | None, entry: Entry) -> Kept:
    """Ask for a whole answer, in our own form and in the provider's bytes where they are the caller's."""
    name = dialect.name if dialect is not None else ""

    async def attempt(target: Target) -> Kept:
        asked = request_for(target, call, entry)
        answer = await delivery.fetch(target, asked, name, entry)
        same = target.provider.dialect == name
        tally = dialect.inspect(answer.body) if same and dialect is not None else None
        completion = target.provider.completion(answer)
        if tally is not None:
            entry.tally = tally
        else:
            entry.takes(completion)
        body, dropped = answer.body if same else b"", dropped_in(entry.headers)
        return Kept.of(completion, dialect=name, form=call.form, body=body, dropped=dropped)

    return await delivery.along(route, entry, attempt, call)


async def overhear(delivery: Delivery, route: Route, call: Call, dialect: Dialect, entry: Entry) -> Hearing:
    """Open a stream of bytes for callers of `dialect` and of chunks for all others.

    Where the route says so, another deployment carries on what breaks.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + route.timeouts.total
    last: Deployment | None = None

    async def attempt(target: Target, asked: Call = call) -> Flow[list[Heard]]:
        nonlocal last
        last = target.deployment
        relay = dialect.relay(call) if asked is call and target.provider.dialect == dialect.name else None
        return await delivery.begin(target, asked, entry, Overheard(target.provider.decoder(asked), relay))

    async def resume(asked: Call) -> Hearing:
        left = msgspec.structs.replace(route.timeouts, total=max(0.0, end - clock()))
        rest = msgspec.structs.replace(route, timeouts=left)
        flow = await delivery.along(rest, entry, lambda to: attempt(to, asked), asked, avoid=last)
        delivery.router.meter.fell_back(route.name)
        return flow

    flow = await delivery.along(route, entry, attempt, call)
    return ContinuedFlow(flow, call, entry, resume) if route.continuation and may_continue(call) else flow
