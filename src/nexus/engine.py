"""The engine process: executes the steps of every run. The only place that knows all handlers.

The scheduler process is an engine without hands: what happens by itself, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import signal

from nexus.analytics import jobs as analytics_jobs
from nexus.automation import alert_jobs, approval_jobs
from nexus.automation.handlers import step_handlers
from nexus.automation.secrets import SecretService
from nexus.automation.templates import WorkflowRenderer
from nexus.catalog import jobs as catalog_jobs
from nexus.composition import build
from nexus.llm import jobs as llm_jobs
from nexus.runs.scheduler import Scheduler
from nexus.runs.types import Handlers
from nexus.runs.worker import EngineWorker
from nexus.settings import Settings
from nexus.setup import check_migrated

log = logging.getLogger(__name__)


def all_handlers() -> Handlers:
    """Return the handler of every `uses`: the jobs of the slices and the step plugs of automation."""
    jobs = {**catalog_jobs.HANDLERS, **analytics_jobs.HANDLERS, **llm_jobs.HANDLERS}
    return {**jobs, **alert_jobs.HANDLERS, **approval_jobs.HANDLERS, **step_handlers()}


async def run_engine(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; then let running steps end, give the rest back, and stop."""
    parts = build(settings, children=settings.compute.engine_children)
    worker = EngineWorker(
        database=parts.database,
        handlers=all_handlers(),
        services=parts.services,
        settings=settings.runs,
        renderer=WorkflowRenderer(parts.services.get(SecretService).opened),
        clock=parts.clock,
    )
    asked = _asked_to_stop()
    scheduler = parts.services.get(Scheduler)
    await asyncio.to_thread(check_migrated, parts.database)
    await parts.start()
    await worker.start()
    if settings.runs.schedule:
        await scheduler.start()
    log.info("the engine works")
    try:
        await asked.wait()
    finally:
        await scheduler.stop()
        await worker.drain()
        await parts.stop()
    log.info("the engine has stopped")


async def run_scheduler(settings: Settings) -> None:
    """Do what happens by itself, until SIGTERM or SIGINT. Any number of them may run beside engines."""
    parts = build(settings, children=1)
    asked = _asked_to_stop()
    scheduler = parts.services.get(Scheduler)
    await asyncio.to_thread(check_migrated, parts.database)
    await parts.start()
    await scheduler.start()
    log.info("the scheduler works")
    try:
        await asked.wait()
    finally:
        await scheduler.stop()
        await parts.stop()
    log.info("the scheduler has stopped")


def _asked_to_stop() -> asyncio.Event:
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    return asked
