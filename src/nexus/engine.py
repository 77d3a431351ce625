"""The engine process: executes the steps of every run. The only place that knows all handlers."""

from __future__ import annotations

import asyncio
import logging
import signal

from nexus.analytics import jobs as analytics_jobs
from nexus.automation.handlers import step_handlers
from nexus.automation.templates import WorkflowRenderer
from nexus.catalog import jobs as catalog_jobs
from nexus.composition import build
from nexus.runs.types import Handlers
from nexus.runs.worker import EngineWorker
from nexus.settings import Settings
from nexus.setup import check_migrated

log = logging.getLogger(__name__)


def all_handlers() -> Handlers:
    """Return the handler of every `uses`: the jobs of the slices and the step plugs of automation."""
    return {**catalog_jobs.HANDLERS, **analytics_jobs.HANDLERS, **step_handlers()}


async def run_engine(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; then let running steps end, give the rest back, and stop."""
    parts = build(settings, children=settings.compute.engine_children)
    worker = EngineWorker(
        database=parts.database,
        handlers=all_handlers(),
        services=parts.services,
        settings=settings.runs,
        renderer=WorkflowRenderer(),
        clock=parts.clock,
    )
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    await asyncio.to_thread(check_migrated, parts.database)
    await parts.start()
    await worker.start()
    log.info("the engine works")
    try:
        await asked.wait()
    finally:
        await worker.drain()
        await parts.stop()
    log.info("the engine has stopped")
