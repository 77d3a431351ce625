"""`/api/v1/system/*`, `/api/v1/events`, `/api/v1/errors`, `/metrics`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from nexus.access.guard import caller, requires
from nexus.access.types import Principal, Scope
from nexus.http.depends import service
from nexus.http.sse import EventStream, last_event_id
from nexus.system.events import EventHub
from nexus.system.service import SystemService, error_codes
from nexus.telemetry import metrics

router = APIRouter(tags=["system"])

System = Annotated[SystemService, service(SystemService)]
Caller = Annotated[Principal, caller()]
Admin = Annotated[Principal, requires(Scope.ADMIN)]


@router.get("/api/v1/system/info", operation_id="system.info")
async def system_info(_who: Caller, system: System) -> dict[str, Any]:
    """Return version, uptime and kind of the installation."""
    return system.info()


@router.get("/api/v1/system/health", operation_id="system.health")
async def system_health(_who: Caller, system: System) -> dict[str, Any]:
    """Return every component with its status."""
    return await system.health()


@router.get("/api/v1/system/metrics", operation_id="system.metrics")
async def system_metrics(
    _who: Caller, system: System, limit: Annotated[int, Query(ge=1, le=600)] = 60
) -> dict[str, Any]:
    """Return the newest samples of the machine, oldest first, one a second."""
    return {"data": system.sampler.history(limit=limit)}


@router.get("/api/v1/system/config", operation_id="system.config")
async def system_config(_who: Admin, system: System) -> dict[str, Any]:
    """Return the effective settings without their secrets."""
    return system.config()


@router.get("/api/v1/events", operation_id="events.stream")
async def stream_events(
    request: Request,
    who: Caller,
    hub: Annotated[EventHub, service(EventHub)],
    topics: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Stream what happens, as server-sent events: `topics=system,runs,models`."""
    return EventStream(hub.stream(who, hub.chosen(topics), last_event_id(request)))


@router.get("/api/v1/errors", operation_id="errors.list")
async def list_errors() -> dict[str, Any]:
    """List every error code with its status and meaning."""
    return {"data": error_codes()}


@router.get("/metrics", operation_id="metrics")
async def prometheus(request: Request) -> Response:
    """Return the metrics for Prometheus; access is decided in front of the routes."""
    body, content_type = metrics.render(request.headers.get("accept", ""))
    return Response(body, media_type=content_type)
