"""The services of one process, built from the settings: what the API and the engine share.

This is the only place where slices are introduced to each other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from nexus.access.service import AccessService
from nexus.access.types import Principal
from nexus.analytics.dataset_service import DatasetService
from nexus.analytics.service import AnalyticsService
from nexus.automation.alert_measuring import Measures
from nexus.automation.alert_rule_service import AlertRuleService
from nexus.automation.alert_watch import AlertWatch
from nexus.automation.alerts import AlertService
from nexus.automation.approval_links import ApprovalLinks
from nexus.automation.approvals import ApprovalService
from nexus.automation.channel_service import ChannelService
from nexus.automation.drafting import DraftService
from nexus.automation.metric_sampler import MetricSampler
from nexus.automation.schedules import ScheduleService
from nexus.automation.secrets import SecretService
from nexus.automation.service import AutomationService
from nexus.automation.trigger_firing import TriggerFiring
from nexus.automation.trigger_service import TriggerService
from nexus.automation.watching import FolderWatch
from nexus.catalog.pool import ModelPool
from nexus.catalog.runner import PullStarter
from nexus.catalog.service import CatalogService
from nexus.compute.pool import ComputePool
from nexus.core.clock import Clock, SystemClock
from nexus.core.secrets import Keyring
from nexus.core.services import Services
from nexus.files.service import FileService
from nexus.http import fetch
from nexus.ledger.budget_book import BudgetBook
from nexus.ledger.budget_service import BudgetService
from nexus.ledger.limiter import Limiter
from nexus.ledger.service import Ledger
from nexus.ledger.sharing import Sharing
from nexus.llm.configuration.service import Configuration
from nexus.llm.local.children import LocalChildren
from nexus.llm.local.embedder import Embedder
from nexus.llm.local.models import LocalModels
from nexus.llm.local.runtime import LocalRuntime
from nexus.llm.money.price_book import PriceBook
from nexus.llm.responses.service import ResponsesService, responses_form
from nexus.llm.service import LLMService
from nexus.llm.text import TextTasks
from nexus.metering import CallMeter, count_call, count_lost, time_vision
from nexus.runs.scheduler import Scheduler
from nexus.runs.schemas import run_out
from nexus.runs.service import RunService
from nexus.runs.sweeps import EventSweep
from nexus.runs.types import RetryPolicy, RunSpec, StepSpec
from nexus.settings import Settings
from nexus.storage.blob_store import BlobStore
from nexus.storage.blobs.local import LocalBlobs
from nexus.storage.cache import Cache
from nexus.storage.caches.layered import LayeredCache
from nexus.storage.caches.memory import MemoryCache
from nexus.storage.caches.redis import RedisCache
from nexus.storage.caches.sql import SqlCache
from nexus.storage.db import Database
from nexus.storage.events import Events
from nexus.telemetry.redact import redactor
from nexus.vision.service import VisionService

Stop = Callable[[], Awaitable[Any]]


@dataclass
class Parts:
    """What one process is made of. `start` and `stop` keep the order: last started, first stopped."""

    settings: Settings
    services: Services
    database: Database
    keyring: Keyring
    clock: Clock
    starts: list[Stop] = field(default_factory=list)
    stops: list[Stop] = field(default_factory=list)

    async def start(self) -> None:
        """Begin the background work of every service."""
        for start in self.starts:
            await start()

    async def stop(self) -> None:
        """End every service, the ledger after all that may still record, the database last.

        One that fails to end does not keep the others from ending; its error is raised when all have.
        """
        async with contextlib.AsyncExitStack() as ending:
            ending.callback(self.database.close)
            for stop in self.stops:
                ending.push_async_callback(stop)


def build(settings: Settings, *, children: int) -> Parts:
    """Build the services of one process. Nothing runs and nothing is connected before `Parts.start`."""
    clock = SystemClock()
    # A thread of the engine may hold a connection of its own while a step ends.
    database = Database(settings.database, threads=max(settings.storage.threads, settings.runs.concurrency))
    keyring = keyring_of(settings)
    services = Services()
    parts = Parts(settings, services, database, keyring, clock)
    fetch.configure(settings.fetch_allow)
    cache, shared = _caches(settings, database)
    parts.stops += [cache.close, shared.close]
    access = AccessService(
        database=database,
        keyring=keyring,
        cache=shared,
        settings=settings.access,
        clock=clock,
        public_url=settings.public_url,
    )
    ledger = Ledger(
        database=database,
        folder=settings.data_dir / "ledger",
        settings=settings.ledger,
        observe=count_lost,
    )
    blobs = LocalBlobs(settings.data_dir / "blobs")
    # A folder of its own: the files service removes content that no file refers to any more.
    uploads = LocalBlobs(settings.data_dir / "files")
    files = FileService(database=database, blobs=uploads, settings=settings.files, clock=clock)
    ledger.on_record(count_call)
    redactor.register(*(p.api_key.get_secret_value() for p in settings.llm.providers if p.api_key))
    runs = RunService(database=database, settings=settings.runs, clock=clock)
    compute = ComputePool(settings.compute, children=children)
    # Started by engines and schedulers only; services add what should happen by itself.
    scheduler = Scheduler(database=database, settings=settings.runs, clock=clock)
    events = Events(database, clock)
    for service in (database, keyring, access, ledger, files, runs, compute, scheduler, events):
        services.put(service)
    services.put(clock, as_type=Clock)
    services.put(cache, as_type=Cache)
    # Before those that still record while they stop: what starts first stops last.
    parts.starts += [access.start, ledger.start, files.start]
    parts.stops += [access.stop, ledger.stop, runs.stop, files.stop, compute.stop]
    _add_limits(parts, access, shared)
    _add_models(parts, cache, shared, blobs)
    automation = AutomationService(database=database, runs=runs, files=files, clock=clock)
    secrets = SecretService(database=database, keyring=keyring, clock=clock)
    services.put(automation)
    services.put(secrets)
    _add_approvals(parts)
    schedules = ScheduleService(database=database, automation=automation, runs=runs, clock=clock)
    services.put(schedules)
    scheduler.add(schedules)
    scheduler.add(EventSweep(events=events, keep_days=settings.runs.event_days, clock=clock))
    _add_triggers(parts, automation)
    services.put(DraftService(automation=automation, llm=services.get(LLMService)))
    _add_alerts(parts)
    return parts


def _add_approvals(parts: Parts) -> None:
    """What steps ask people, and the links by which they may answer."""
    database, clock, services = parts.database, parts.clock, parts.services
    approvals = ApprovalService(database=database, runs=services.get(RunService), clock=clock)
    services.put(approvals)
    links = ApprovalLinks(
        approvals=approvals,
        database=database,
        keyring=parts.keyring,
        clock=clock,
        public_url=parts.settings.public_url,
    )
    services.put(links)


def _add_triggers(parts: Parts, automation: AutomationService) -> None:
    """Add what starts workflows by what happens."""
    database, clock, services, settings = parts.database, parts.clock, parts.services, parts.settings.automation
    firing = TriggerFiring(
        database=database,
        automation=automation,
        runs=services.get(RunService),
        events=services.get(Events),
        clock=clock,
        keep_days=settings.delivery_days,
    )
    triggers = TriggerService(
        database=database, automation=automation, firing=firing, keyring=parts.keyring, clock=clock, settings=settings
    )
    for service in (settings, firing, triggers):
        services.put(service)
    scheduler = services.get(Scheduler)
    scheduler.add(firing)
    scheduler.add(FolderWatch(database=database, files=services.get(FileService), settings=settings, clock=clock))


def _add_alerts(parts: Parts) -> None:
    """Add what looks out for trouble, and the ways to tell people of it."""
    services, database, clock = parts.services, parts.database, parts.clock
    runs, secrets = services.get(RunService), services.get(SecretService)
    channels = ChannelService(
        database=database, runs=runs, secrets=secrets, clock=clock, public_url=parts.settings.public_url
    )
    alerts = AlertService(database=database, runs=runs, channels=channels, clock=clock)
    measures = Measures(database=database, clock=clock, book=services.get(BudgetBook))
    rules = AlertRuleService(database=database, alerts=alerts, measures=measures, runs=runs, clock=clock)
    for service in (channels, alerts, rules):
        services.put(service)
    watch = AlertWatch(
        database=database, events=services.get(Events), alerts=alerts, measures=measures, runs=runs, clock=clock
    )
    services.get(Scheduler).add(watch)
    sampler = MetricSampler(database=database, clock=clock)
    parts.starts.append(sampler.start)
    parts.stops.append(sampler.stop)


def _add_limits(parts: Parts, access: AccessService, shared: Cache) -> None:
    """Add what bounds the calls of keys and projects, in requests, tokens and dollars."""
    database, clock, ledger = parts.database, parts.clock, parts.services.get(Ledger)
    sharing = Sharing(shared)
    pause = parts.settings.ledger.budget_seconds
    book = BudgetBook(database=database, ledger=ledger, clock=clock, refresh_seconds=pause, claim=sharing.claim)
    limiter = Limiter(access.limits, book, sharing=sharing)
    budgets = BudgetService(database=database, book=book, clock=clock, find_key=access.keys.get)
    for service in (book, limiter, budgets):
        parts.services.put(service)
    parts.starts += [book.start, lambda: sharing.start(limiter.counted)]
    parts.stops += [book.stop, sharing.stop]


def _add_models(parts: Parts, cache: Cache, shared: Cache, blobs: BlobStore) -> None:
    """Add the catalogue and the three slices that run models."""
    settings, services = parts.settings, parts.services
    ledger, runs = services.get(Ledger), services.get(RunService)
    files, compute = services.get(FileService), services.get(ComputePool)
    pool = ModelPool(budget=settings.catalog.memory_budget, minimum_idle=settings.catalog.minimum_idle)
    catalog = CatalogService(
        settings=settings.catalog,
        database=parts.database,
        keyring=parts.keyring,
        clock=parts.clock,
        pool=pool,
        start_pull=_pull_starter(runs),
    )
    local = LocalRuntime(data_dir=settings.data_dir, settings=settings.llm.local, catalog=catalog)
    children = LocalChildren(data_dir=settings.data_dir, settings=settings.llm.local, runtime=local)
    embedder = Embedder(catalog=catalog, pool=pool, settings=settings.llm.embeddings)
    vision = VisionService(
        settings=settings.vision,
        catalog=catalog,
        pool=pool,
        ledger=ledger,
        cache=cache,
        files=files,
        device=settings.device,
        observe=time_vision,
    )
    datasets = DatasetService(
        settings=settings.analytics, database=parts.database, blobs=blobs, pool=compute, clock=parts.clock
    )
    analytics = AnalyticsService(
        settings=settings.analytics, pool=compute, ledger=ledger, catalog=catalog, runs=runs, datasets=datasets
    )
    catalog.runners |= {"vision": vision, "embedding": embedder, "llm": children}
    for service in (pool, catalog, local, children, embedder, vision, datasets, analytics):
        services.put(service)
    parts.stops += [lambda: asyncio.to_thread(pool.close), children.stop, local.stop, vision.stop]
    _add_language(parts, shared, local, embedder)


def _add_language(parts: Parts, shared: Cache, local: LocalRuntime, embedder: Embedder) -> None:
    """Add the language models: kept answers, stored providers and routes, responses with a memory, text tasks."""
    settings, services = parts.settings, parts.services
    answers = LayeredCache(MemoryCache(settings.storage.cache_bytes), shared)
    prices = PriceBook(settings.data_dir / "prices.json")
    llm = LLMService(
        settings=settings.llm,
        record=services.get(Ledger).record,
        local=local,
        children=services.get(LocalChildren),
        embedder=embedder,
        published=prices,
        cache=answers,
        limiter=services.get(Limiter),
        files=services.get(FileService),
    )
    CallMeter().watch(llm.router)
    configuration = Configuration(
        database=parts.database,
        keyring=parts.keyring,
        clock=parts.clock,
        audit=services.get(AccessService).audit,
        llm=llm,
        refresh=settings.llm.refresh_seconds,
        learn_secret=redactor.register,
    )
    responses = ResponsesService(
        database=parts.database,
        llm=llm,
        runs=services.get(RunService),
        form=responses_form(),
        clock=parts.clock,
        days=settings.llm.responses_days,
    )
    llm.remember(responses)
    for service in (llm, configuration, responses, TextTasks(llm=llm)):
        services.put(service)
    here = LocalModels(
        catalog=services.get(CatalogService), llm=llm, every=settings.llm.refresh_seconds, local=settings.llm.local
    )
    services.put(here)
    parts.starts += [configuration.start, llm.start, responses.start, here.start]
    parts.stops += [here.stop]
    parts.stops += [
        answers.close,
        llm.stop,
        configuration.stop,
        responses.stop,
        lambda: asyncio.to_thread(prices.close),
    ]


def _caches(settings: Settings, database: Database) -> tuple[Cache, Cache]:
    """Return the cache for answers, and the one whose counts all processes must agree on."""
    if settings.redis_url:
        redis = RedisCache(settings.redis_url)
        return redis, redis
    return MemoryCache(settings.storage.cache_bytes), SqlCache(database)


def keyring_of(settings: Settings) -> Keyring:
    """Return the keyring; its file is made only where everything runs on one machine. Raises `WeakSecretKey`."""
    path = settings.secret_key_file or settings.data_dir / "secret.key"
    return Keyring.from_file(path, create=settings.secret_key_file is None and settings.embedded)


def _pull_starter(runs: RunService) -> PullStarter:
    async def start(principal: Principal, model: str, version: int) -> dict[str, Any]:
        given = {"model": model, "version": version}
        step = StepSpec("pull", "catalog.pull", given, retries=RetryPolicy(max=3), queue="cpu")
        return run_out(await runs.start(principal, RunSpec(kind="model_pull", name=model, steps=[step])))

    return start
