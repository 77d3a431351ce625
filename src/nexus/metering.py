"""From the ledger to the metrics: what every recorded call counts towards on `/metrics`."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from operator import attrgetter

from nexus.automation import counting
from nexus.automation.counting import Done, Mark
from nexus.core.clock import Clock
from nexus.core.errors import NexusError
from nexus.ledger.limiter import Limiter
from nexus.ledger.types import Invocation
from nexus.llm.routing.router import Router
from nexus.llm.routing.standing import Breaker, RoutingMeter
from nexus.runs.service import RunService
from nexus.storage.db import Database
from nexus.telemetry import metrics
from nexus.vision.types import Timing

log = logging.getLogger(__name__)

_EVERY = 5.0
_REFUSALS = ("rate_limit_exceeded", "budget_exceeded")
_LANGUAGE = ("chat", "embedding", "text.", "health")
_TOKENS = {name: attrgetter(f"{name}_tokens") for name in ("input", "output", "cache_read", "cache_write", "reasoning")}
_COST = attrgetter("cost_usd")
_FIRST = attrgetter("first_token_ms")
_Kind = tuple[str, str, str | None, str, str, str | None]

_AT_ONCE = 1000
_waiting: deque[Invocation] = deque()


def count_call(call: Invocation) -> None:
    """Count one recorded call, together with others: now and then, and before every scrape."""
    _waiting.append(call)
    if len(_waiting) >= _AT_ONCE:
        count_waiting()


def count_waiting() -> None:
    """Count what was recorded since the last time."""
    alike: defaultdict[_Kind, list[Invocation]] = defaultdict(list)
    for _ in range(len(_waiting)):
        try:
            call = _waiting.popleft()
        except IndexError:
            break  # another thread counts too
        alike[call.kind, call.project_id, call.provider, call.model, call.status, call.error_code].append(call)
    for kind, calls in alike.items():
        _count_alike(*kind, calls)


def _count_alike(
    kind: str,
    project: str,
    provider: str | None,
    model: str,
    status: str,
    error_code: str | None,
    calls: list[Invocation],
) -> None:
    if kind in ("predict", "forecast", "anomalies") or kind.startswith("vision."):
        metrics.PREDICTIONS.labels(kind, model, status).inc(len(calls))
    if not kind.startswith(_LANGUAGE):
        return
    if error_code in _REFUSALS:
        metrics.RATELIMIT_REJECTIONS.labels(error_code).inc(len(calls))
    provider = provider or "none"
    metrics.LLM_REQUESTS.labels(provider, model, status).inc(len(calls))
    for name, read in _TOKENS.items():
        if count := sum(filter(None, map(read, calls))):
            metrics.LLM_TOKENS.labels(provider, model, name).inc(count)
    if dollars := sum(filter(None, map(_COST, calls))):
        metrics.LLM_COST.labels(project, model).inc(dollars)
    waits = [wait / 1000 for wait in map(_FIRST, calls) if wait is not None]
    if waits:
        metrics.LLM_FIRST_TOKEN.labels(provider, model).observe(*waits)


metrics.before_render(count_waiting)


def count_lost(what: str, amount: float) -> None:
    """Count calls that no database took."""
    if what in ("lost", "rejected"):
        metrics.USAGE_UNRECORDED.inc(amount)


def time_vision(task: str, model: str, timing: Timing) -> None:
    """Observe the stages of one vision call, given in milliseconds."""
    for stage in Timing.__struct_fields__:
        metrics.VISION_SECONDS.labels(task, model, stage).observe(getattr(timing, stage) / 1000)


class CallMeter(RoutingMeter):
    """Counts what happens on the way of calls to language models."""

    def breaker(self, deployment: str, state: Breaker) -> None:
        """Show a deployment's breaker."""
        metrics.LLM_BREAKER.labels(deployment).set({"closed": 0, "half_open": 1, "open": 2}[state])

    def failed(self, provider: str, code: str) -> None:
        """Count a failed attempt."""
        metrics.LLM_UPSTREAM_ERRORS.labels(provider, code).inc()

    def fell_back(self, route: str) -> None:
        """Count a call that another deployment than the first answered."""
        metrics.LLM_FALLBACKS.labels(route).inc()

    def watch(self, router: Router) -> None:
        """Be told by `router`, and show how many streams it has open."""
        router.meter = self
        metrics.LLM_STREAMS.set_function(lambda: router.streams)


async def watch_budgets(limiter: Limiter) -> None:
    """Keep the gauge of what is left of each project's tightest budget true, until cancelled."""
    while True:
        left: dict[str, float] = {}
        for budget in limiter.budgets():
            rest = max(budget.amount - budget.total, 0.0)
            left[budget.project_id] = min(rest, left.get(budget.project_id, rest))
        for project, dollars in left.items():
            metrics.BUDGET_REMAINING.labels(project).set(dollars)
        await asyncio.sleep(_EVERY)


async def watch_runs(database: Database, clock: Clock) -> None:
    """Count what engines do, whichever they are, until cancelled."""
    mark: Mark | None = None
    while True:
        try:
            if mark is None:
                mark = await database.read(counting.begin, clock.now())
            done, mark = await database.read(counting.done_since, mark, clock.now())
        except NexusError as error:
            log.warning("the runs could not be counted: %s", error.code)
        else:
            count_runs(done)
        await asyncio.sleep(_EVERY)


def count_runs(done: Done) -> None:
    """Count what has happened since the last time."""
    for labels, number in done.runs.items():
        metrics.RUNS.labels(*labels).inc(number)
    for name, seconds in done.durations:
        metrics.RUN_SECONDS.labels(name).observe(seconds)
    for uses, number in done.retries.items():
        metrics.STEP_RETRIES.labels(uses).inc(number)
    for uses, number in done.dead.items():
        metrics.DEAD_LETTERS.labels(uses).inc(number)
    for outcome, number in done.deliveries.items():
        metrics.WEBHOOK_DELIVERIES.labels(outcome).inc(number)
    metrics.SCHEDULER_LAG.set(done.lag)


async def watch_queues(runs: RunService) -> None:
    """Keep the gauges of waiting work true, until cancelled."""
    known: set[str] = set()
    while True:
        try:
            counts = await runs.counts()
        except NexusError as error:
            log.warning("the queues could not be counted: %s", error.code)
        else:
            known |= counts.ready.keys()
            for queue in known:
                metrics.QUEUE_DEPTH.labels(queue).set(counts.ready.get(queue, 0))
            metrics.QUEUE_AGE.labels("all").set(counts.oldest_ready_age)
        await asyncio.sleep(_EVERY)
