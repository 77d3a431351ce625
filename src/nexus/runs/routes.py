"""`/api/v1/runs`: watching and steering durable work, and the 202 answer of every route that starts some."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from nexus.access.guard import caller, principal_of
from nexus.access.types import Principal
from nexus.core.clock import rfc3339
from nexus.http.depends import service, services_of
from nexus.http.paging import Paged, page_of
from nexus.http.sse import Event, EventStream, last_event_id
from nexus.runs.schemas import ResumeBody, RetryBody, artifact_out, event_out, log_out, run_out, run_row_out, step_out
from nexus.runs.service import RunService
from nexus.runs.timeline import spans
from nexus.runs.types import Run, RunStatus

router = APIRouter(prefix="/api/v1/runs", tags=["runs"])

Who = Annotated[Principal, caller()]
Runs = Annotated[RunService, service(RunService)]

_WAIT: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})", re.IGNORECASE)
_LONGEST_WAIT: Final = 60
_MOST_LINES: Final = 10_000


@router.get("", operation_id="runs.list", summary="List runs")
async def list_runs(
    who: Who,
    page: Paged,
    runs: Runs,
    kind: Annotated[str | None, Query(max_length=64)] = None,
    name: Annotated[str | None, Query(max_length=200)] = None,
    status: RunStatus | None = None,
) -> dict[str, Any]:
    """Runs of the project, newest first; without `automation:read`, only those the caller started."""
    rows = await runs.list(
        who,
        kind=kind,
        name=name,
        status=status,
        after=page.after_id,
        limit=page.fetch,
        newest_first=page.descending,
    )
    return page_of(rows, page, render=run_row_out)


@router.get("/{run_id}", operation_id="runs.get", summary="Show a run")
async def get_run(run_id: str, who: Who, runs: Runs) -> dict[str, Any]:
    """One run with its steps, their outputs and errors."""
    return run_out(await runs.get(who, run_id))


@router.get("/{run_id}/steps", operation_id="runs.steps", summary="List the steps of a run")
async def list_steps(
    run_id: str,
    who: Who,
    runs: Runs,
    page: Paged,
    key: Annotated[str | None, Query(max_length=64)] = None,
) -> dict[str, Any]:
    """All steps in the order of the run's description; with `key` the items of a mapped step, by pages."""
    if key is not None:
        after = int(page.after[0]) if page.after else -1
        items = await runs.items(who, run_id, key, after=after, limit=page.fetch)
        return page_of(items, page, render=step_out, key=lambda item: [item.map_index])
    steps = [step_out(step) for step in await runs.steps(who, run_id)]
    return {"data": steps, "has_more": False, "next_cursor": None}


@router.get("/{run_id}/events", operation_id="runs.events", summary="Follow a run live", response_class=Response)
async def follow(run_id: str, who: Who, runs: Runs, request: Request) -> EventStream:
    """The timeline of a run as server-sent events until it has ended. `Last-Event-ID` continues where one was."""
    seen = last_event_id(request) or "0"
    await runs.get(who, run_id)
    return EventStream(_events(runs, who, run_id, int(seen) if seen.isdigit() else 0))


@router.get("/{run_id}/timeline", operation_id="runs.timeline", summary="Show a run as spans over time")
async def timeline(run_id: str, who: Who, runs: Runs) -> dict[str, Any]:
    """Every attempt at every step and item, when and how it ended, and what the step waited for in between.

    `complete` is false where a run has more than 10,000 lines; the spans are then those of the first.
    """
    run = await runs.get(who, run_id)
    events = await runs.history(who, run_id, limit=_MOST_LINES + 1)
    return {
        "run_id": run.id,
        "status": run.status,
        "created_at": rfc3339(run.created_at),
        "started_at": rfc3339(run.started_at),
        "finished_at": rfc3339(run.finished_at),
        "complete": len(events) <= _MOST_LINES,
        "spans": spans(events[:_MOST_LINES]),
    }


async def _events(runs: RunService, who: Principal, run_id: str, after: int) -> AsyncIterator[Event]:
    async for event in runs.events(who, run_id, after=min(after, 2**62)):
        yield Event(event_out(event), event=event.type, id=str(event.id))


@router.get("/{run_id}/logs", operation_id="runs.logs", summary="Read the log of a run")
async def read_logs(
    run_id: str,
    who: Who,
    runs: Runs,
    page: Paged,
    step: Annotated[str | None, Query(max_length=64)] = None,
) -> dict[str, Any]:
    """Log lines of a run, oldest first; `step` for those of one step."""
    after = int(page.after[0]) if page.after else 0
    rows = await runs.logs(who, run_id, step=step, after=after, limit=page.fetch)
    return page_of(rows, page, render=log_out)


@router.get("/{run_id}/artifacts", operation_id="runs.artifacts", summary="List the files of a run")
async def list_artifacts(run_id: str, who: Who, runs: Runs, page: Paged) -> dict[str, Any]:
    """The files that steps have written, oldest first; their contents are at `/v1/files/{file_id}/content`."""
    after = int(page.after[0]) if page.after else 0
    rows = await runs.artifacts(who, run_id, after=after, limit=page.fetch)
    return page_of(rows, page, render=artifact_out)


@router.post("/{run_id}/pause", operation_id="runs.pause", summary="Pause a run", status_code=202)
async def pause(run_id: str, who: Who, runs: Runs, request: Request) -> Response:
    """Begin no further step; those that run go on to their end. `resume` lets the run go on."""
    return await accepted(await runs.pause(who, run_id), request)


@router.post("/{run_id}/cancel", operation_id="runs.cancel", summary="Cancel a run", status_code=202)
async def cancel(run_id: str, who: Who, runs: Runs, request: Request) -> Response:
    """Ask the run to stop. Cancelling a cancelled run is fine; one that has ended otherwise is a 409."""
    return await accepted(await runs.cancel(who, run_id), request)


@router.post("/{run_id}/retry", operation_id="runs.retry", summary="Retry a run", status_code=202)
async def retry(run_id: str, who: Who, runs: Runs, request: Request, body: RetryBody | None = None) -> Response:
    """Execute again what failed or was cancelled; with `from`, that step too and all behind it. The rest stays."""
    return await accepted(await runs.retry(who, run_id, (body or RetryBody()).from_), request)


@router.post("/{run_id}/resume", operation_id="runs.resume", summary="Resume a waiting run", status_code=202)
async def resume(run_id: str, who: Who, runs: Runs, request: Request, body: ResumeBody | None = None) -> Response:
    """Let a paused run go on; of one that is not paused, let waiting steps go on now, and tell them something."""
    wish = body or ResumeBody()
    if wish.signal is None:
        return await accepted(await runs.resume(who, run_id, wish.step), request)
    return await accepted(await runs.signal(who, run_id, wish.step, wish.signal), request)


async def accepted(run: Run, request: Request) -> Response:
    """Return the answer of a route that started a run: 202 with its `Location` and its JSON.

    With `Prefer: wait=N` (RFC 7240) it waits up to N seconds, at most 60, and is 200 if the run has
    ended by then.
    """
    headers = {"location": f"/api/v1/runs/{run.id}"}
    wish = _WAIT.search(request.headers.get("prefer", ""))
    if wish is not None:
        seconds = min(int(wish[1]), _LONGEST_WAIT)
        runs = services_of(request).get(RunService)
        run = await runs.wait(principal_of(request.scope), run.id, seconds)
        headers["preference-applied"] = f"wait={seconds}"
    status = 200 if wish is not None and run.status.final else 202
    return Response(orjson.dumps(run_out(run)), status, headers, "application/json")
