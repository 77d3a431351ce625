"""An engine in this process, and the principals who ask it for work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import nexus.runs.tables  # noqa: F401  the database fixtures create what has been imported
from nexus.access.types import Principal, Scope
from nexus.runs.service import RunService
from nexus.runs.settings import RunsSettings
from nexus.runs.types import Handler, Renderer, StepContext
from nexus.runs.worker import EngineWorker
from nexus.storage.db import Database

Start = Callable[..., Awaitable[EngineWorker]]


@pytest.fixture
def who() -> Principal:
    return Principal("key", "key_a", "prj_a", frozenset({Scope.AUTOMATION_READ, Scope.AUTOMATION_RUN}), key_id="key_a")


@pytest.fixture
def settings(tmp_path: Path) -> RunsSettings:
    return RunsSettings(data_dir=tmp_path, reap=0.1, heartbeat=0.5, lease=30.0, concurrency=4)


@pytest.fixture
def runs(database: Database, settings: RunsSettings) -> RunService:
    return RunService(database=database, settings=settings)


async def noop(_context: StepContext, inputs: dict[str, Any]) -> dict[str, Any]:
    return inputs


@asynccontextmanager
async def engine_on(
    database: Database, settings: RunsSettings, handlers: dict[str, Handler], renderer: Renderer | None = None
) -> AsyncIterator[EngineWorker]:
    worker = EngineWorker(database=database, handlers={"noop": noop, **handlers}, settings=settings, renderer=renderer)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.drain(1)


@pytest.fixture
async def engine(database: Database, settings: RunsSettings) -> AsyncIterator[Start]:
    """Call it with handlers by name to start the engine; it is drained at the end of the test."""
    async with AsyncExitStack() as stack:

        async def start(*, renderer: Renderer | None = None, **handlers: Handler) -> EngineWorker:
            return await stack.enter_async_context(engine_on(database, settings, handlers, renderer))

        yield start
