"""The API process: every slice's routes behind one edge.

A request passes, from outside in: the edge (`nexus.http.edge`: request id, probes, host, origin,
body cap ...), authentication, idempotency, and then one of three: the hot `/v1` handlers, the
FastAPI routes, the dashboard's files.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import files as resources
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI

from nexus import __version__
from nexus.access import routes as access_routes
from nexus.access.asgi import Authentication
from nexus.access.idempotency import Idempotency
from nexus.access.service import AccessService
from nexus.analytics import routes as analytics_routes
from nexus.automation import routes as automation_routes
from nexus.automation.approval_door import APPROVAL_DOOR
from nexus.automation.hooks import HOOKS
from nexus.catalog import routes as catalog_routes
from nexus.catalog.pool import ModelPool
from nexus.composition import Parts, build
from nexus.compute.pool import ComputePool
from nexus.core.errors import NexusError
from nexus.files import routes as files_routes
from nexus.http import handlers
from nexus.http.dispatch import Dispatch
from nexus.http.edge import build_edge
from nexus.http.lifecycle import Lifecycle
from nexus.http.static import Dashboard
from nexus.http.strict_json import StrictJSON
from nexus.http.types import App
from nexus.ledger import budget_routes
from nexus.ledger import routes as ledger_routes
from nexus.ledger.limiter import Limiter
from nexus.llm import routes as llm_routes
from nexus.llm.hot import chat_completions, hot_routes
from nexus.llm.local.runtime import LocalRuntime
from nexus.llm.money import price_routes
from nexus.metering import watch_budgets, watch_queues, watch_runs
from nexus.runs import routes as runs_routes
from nexus.runs.service import RunService
from nexus.settings import Settings
from nexus.setup import check_migrated
from nexus.system import routes as system_routes
from nexus.system.checks import checks_of
from nexus.system.events import EventHub
from nexus.system.service import Check, SystemService
from nexus.telemetry import logs, metrics, traces
from nexus.telemetry.requests import RequestMeter
from nexus.telemetry.system import Sampler, SystemCollector
from nexus.vision import routes as vision_routes

ROUTERS: Final = (
    access_routes, analytics_routes, automation_routes, budget_routes, catalog_routes, files_routes,
    ledger_routes, llm_routes, price_routes, runs_routes, system_routes, vision_routes,
)  # fmt: skip
# A browser's cookie is not accepted on /v1, so the dashboard's playground has the same handler here.
PLAYGROUND: Final = ("POST", "/api/v1/playground/chat")


def create_app(settings: Settings, lifecycle: Lifecycle) -> App:
    """Return the ASGI app of the API process; its services start and stop with the server's lifespan."""
    parts = build(settings, children=settings.compute.api_children)
    services = parts.services
    meter = RequestMeter()
    sampler = Sampler(
        requests=meter,
        data_dir=settings.data_dir,
        interval=settings.telemetry.sample_seconds,
        history=settings.telemetry.sample_history,
    )
    SystemCollector(sampler).register(metrics.registry)
    checks = checks_of(parts)
    services.put(SystemService(settings=settings, sampler=sampler, checks=checks))
    services.put(EventHub(sampler=sampler, runs=services.get(RunService), pool=services.get(ModelPool)))
    api = _api(parts, sampler)
    hot = {**hot_routes(), **HOOKS, **APPROVAL_DOOR, PLAYGROUND: chat_completions}
    inner: App = Dispatch(api, services=services, hot=hot, pages=Dashboard(dashboard_folder()))
    inner = Idempotency(inner, database=parts.database, keyring=parts.keyring, clock=parts.clock)
    access = services.get(AccessService)
    inner = Authentication(inner, access=access, observe_failure=lambda code: metrics.AUTH_FAILURES.labels(code).inc())
    metrics.HTTP_INFLIGHT.set_function(lambda: lifecycle.inflight)
    metrics.set_limit(settings.telemetry.max_series)
    metrics.BUILD.info({"version": __version__})
    exporting = traces.configure(settings.telemetry, version=__version__)
    edge = build_edge(
        inner,
        settings=settings.http,
        lifecycle=lifecycle,
        checks={"database": _holds(checks["database"])},
        enter=traces.enter_request,
        observe=meter.observe,
        write=logs.write_access,
    )
    return traces.TraceRequests(edge) if exporting else edge


def _api(parts: Parts, sampler: Sampler) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(check_migrated, parts.database)
        await parts.start()
        await sampler.start()
        await _invite(parts)
        beside = [
            asyncio.create_task(_warm(parts.services.get(LocalRuntime))),
            asyncio.create_task(watch_queues(parts.services.get(RunService))),
            asyncio.create_task(watch_runs(parts.database, parts.clock)),
            asyncio.create_task(watch_budgets(parts.services.get(Limiter))),
            asyncio.create_task(_warm_compute(parts.services.get(ComputePool))),
        ]
        try:
            yield
        finally:
            for task in beside:
                task.cancel()
            await sampler.stop()
            await parts.stop()
            traces.shutdown()

    api = FastAPI(
        title="NEXUS",
        version=__version__,
        summary="Language models, vision, analytics and automation behind one API.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
    )
    api.state.services = parts.services
    handlers.install(api)
    api.add_middleware(StrictJSON)
    for module in ROUTERS:
        api.include_router(module.router)
    return api


def _holds(check: Check) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        await check()
        return True

    return holds


async def _invite(parts: Parts) -> None:
    """Print the one-time token of the set-up page while nobody can sign in."""
    token = await parts.services.get(AccessService).accounts.issue_setup_token()
    if token is not None:
        # Not by the log, which hides secrets, and with good reason ends up elsewhere.
        sys.stderr.write(f"\nNobody can sign in yet. Set-up token, good for one hour: {token.reveal()}\n\n")


async def _warm(local: LocalRuntime) -> None:
    """Start the built-in language model, so that the first question need not wait for it."""
    with contextlib.suppress(NexusError):
        await local.find()


async def _warm_compute(compute: ComputePool) -> None:
    """Start a compute child where settings name modules to load ahead."""
    if compute.settings.warm_up:
        with contextlib.suppress(NexusError):
            await compute.warm()


def openapi() -> dict[str, Any]:
    """Return the OpenAPI description of the native API, without starting anything."""
    api = FastAPI(title="NEXUS", version=__version__)
    for module in ROUTERS:
        api.include_router(module.router)
    return api.openapi()


def dashboard_folder() -> Path:
    """Return where the built dashboard lies, whether or not it is there."""
    return Path(str(resources("nexus"))) / "_ui"
