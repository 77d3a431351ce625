"""The services of a test, who asks them, and an app with their routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
from tests.apps import app_with

from nexus.access.types import Principal, Scope
from nexus.analytics.dataset_service import DatasetService
from nexus.analytics.jobs import HANDLERS
from nexus.analytics.routes import router
from nexus.analytics.service import AnalyticsService
from nexus.catalog.service import CatalogService
from nexus.core.services import Services
from nexus.ledger.service import Ledger
from nexus.runs.service import RunService
from nexus.runs.settings import RunsSettings
from nexus.runs.worker import EngineWorker
from nexus.storage.db import Database

SCOPES = frozenset({Scope.ANALYTICS_READ, Scope.ANALYTICS_TRAIN, Scope.ANALYTICS_PREDICT})


def person(project: str, *, scopes: frozenset[Scope] = SCOPES) -> Principal:
    return Principal("key", f"key_{project}", f"prj_{project}", scopes, key_id=f"key_{project}")


@dataclass
class House:
    """The services, and who asks."""

    services: Services
    analytics: AnalyticsService
    datasets: DatasetService
    catalog: CatalogService
    ledger: Ledger
    runs: RunService
    database: Database
    runs_settings: RunsSettings
    principal: Principal

    def client(self) -> httpx.AsyncClient:
        """Return a client of the routes, signed in as `principal`."""
        app = app_with(self.services, router)

        async def signed_in(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "principal": self.principal, "request_id": "req_1"}, receive, send)

        transport = httpx.ASGITransport(signed_in, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://nexus", timeout=120)

    def engine(self) -> EngineWorker:
        """Return an engine that runs trainings."""
        return EngineWorker(
            database=self.database, handlers=HANDLERS, settings=self.runs_settings, services=self.services
        )
