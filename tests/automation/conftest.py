"""Workflows with an engine in this process: definitions in, finished runs out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

import nexus.access.tables
import nexus.automation.tables
import nexus.files.tables
import nexus.runs.tables  # noqa: F401  the database fixtures create what has been imported
from nexus.access.types import Principal, Scope
from nexus.automation.approval_jobs import HANDLERS
from nexus.automation.approvals import ApprovalService
from nexus.automation.handlers import step_handlers
from nexus.automation.secrets import SecretService
from nexus.automation.service import AutomationService
from nexus.automation.templates import WorkflowRenderer
from nexus.core.clock import Clock, SystemClock
from nexus.core.secrets import Keyring
from nexus.core.services import Services
from nexus.files.service import FileService
from nexus.runs.service import RunService
from nexus.runs.settings import RunsSettings
from nexus.runs.types import Run
from nexus.runs.worker import EngineWorker
from nexus.storage.blobs.local import LocalBlobs
from nexus.storage.db import Database

WHO = Principal(
    "key",
    "key_a",
    "prj_a",
    frozenset({Scope.AUTOMATION_READ, Scope.AUTOMATION_WRITE, Scope.AUTOMATION_RUN, Scope.AUTOMATION_APPROVE}),
    key_id="key_a",
)


@dataclass
class Shop:
    """The services of automation, and short words for what a user does."""

    services: Services
    automation: AutomationService
    runs: RunService
    secrets: SecretService
    approvals: ApprovalService
    who: Principal = WHO

    async def start(self, definition: dict[str, Any], **inputs: Any) -> Run:
        workflow, _ = await self.automation.apply(self.who, orjson.dumps({"name": "flow", **definition}))
        return await self.automation.start(self.who, workflow.id, inputs)

    async def run(self, definition: dict[str, Any], **inputs: Any) -> Run:
        run = await self.start(definition, **inputs)
        return await self.wait(run)

    async def wait(self, run: Run, seconds: float = 120) -> Run:
        run = await self.runs.wait(self.who, run.id, seconds)
        assert run.status.final, run
        return run


@pytest.fixture
async def shop(database: Database, tmp_path: Path) -> AsyncIterator[Shop]:
    clock = SystemClock()
    settings = RunsSettings(data_dir=tmp_path, reap=0.1, heartbeat=0.5, lease=30.0, concurrency=4)
    runs = RunService(database=database, settings=settings)
    files = FileService(database=database, blobs=LocalBlobs(tmp_path / "files"))
    automation = AutomationService(database=database, runs=runs, files=files, clock=clock)
    secrets = SecretService(database=database, keyring=Keyring(b"k" * 48), clock=clock)
    approvals = ApprovalService(database=database, runs=runs, clock=clock)
    services = Services()
    for service in (database, runs, files, automation, secrets, approvals):
        services.put(service)
    services.put(clock, as_type=Clock)
    worker = EngineWorker(
        database=database,
        handlers={**step_handlers(), **HANDLERS},
        services=services,
        settings=settings,
        renderer=WorkflowRenderer(secrets.opened),
        clock=clock,
    )
    await worker.start()
    yield Shop(services, automation, runs, secrets, approvals)
    await worker.drain(1)
    await runs.stop()
