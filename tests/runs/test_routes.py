"""Runs over HTTP, with a real engine behind them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.responses import Response

from nexus.access.guard import caller
from nexus.access.types import Principal, Scope
from nexus.core.errors import InvalidInput, NexusError
from nexus.core.services import Services
from nexus.http.depends import service
from nexus.runs.routes import accepted, router
from nexus.runs.service import RunService
from nexus.runs.types import Parked, RunSpec, StepContext, StepSpec
from nexus.runs.worker import EngineWorker

Start = Callable[..., Awaitable[EngineWorker]]


class As:
    """Stands for the access layer: whoever `principal` names is asking."""

    def __init__(self, app: Any, principal: Principal) -> None:
        self.app = app
        self.principal = principal

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["principal"] = self.principal
        await self.app(scope, receive, send)


def app_of(runs: RunService) -> FastAPI:
    app = FastAPI()
    app.state.services = Services()
    app.state.services.put(runs)
    app.include_router(router)

    @app.exception_handler(NexusError)
    async def refuse(_request: Request, error: NexusError) -> Response:
        body = {"code": error.code, "detail": error.message, "field": error.field}
        return Response(json.dumps(body), error.status, media_type="application/problem+json")

    @app.post("/start/{uses}")
    async def start(
        uses: str, request: Request, who: Annotated[Principal, caller()], it: Annotated[RunService, service(RunService)]
    ) -> Response:
        return await accepted(await it.start(who, RunSpec("test", "x", [StepSpec("a", uses)])), request)

    return app


@pytest.fixture
async def client(runs: RunService, who: Principal) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(As(app_of(runs), who))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as it:
        yield it


async def ask(context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
    context.log("asking", "warning")
    if context.signal is None:
        raise Parked
    return context.signal


async def hang(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(60)
    return {}


async def fail(_context: StepContext, _inputs: dict[str, Any]) -> dict[str, Any]:
    raise InvalidInput("No.", field="image")


async def test_a_202_says_where_its_run_is(client: httpx.AsyncClient) -> None:
    answer = await client.post("/start/noop")
    assert answer.status_code == 202
    run = answer.json()
    assert answer.headers["location"] == f"/api/v1/runs/{run['id']}"
    assert run["status"] == "queued"
    assert set(run) >= {
        "id",
        "kind",
        "name",
        "version",
        "status",
        "progress",
        "created_at",
        "started_at",
        "finished_at",
    }
    assert set(run) >= {"error", "result", "steps", "inputs"}
    assert run["progress"] == {"done": 0, "total": 1, "unit": "steps"}
    shown = await client.get(answer.headers["location"])
    assert shown.status_code == 200
    assert shown.json() == run


async def test_prefer_wait_waits(client: httpx.AsyncClient, engine: Start) -> None:
    await engine(hang=hang)
    answer = await client.post("/start/noop", headers={"Prefer": "respond-async, wait=10"})
    assert answer.status_code == 200
    assert answer.json()["status"] == "succeeded"
    assert answer.headers["preference-applied"] == "wait=10"
    step = answer.json()["steps"][0]
    assert (step["key"], step["uses"], step["status"], step["attempts"], step["output"]) == (
        "a",
        "noop",
        "succeeded",
        1,
        {},
    )
    answer = await client.post("/start/hang", headers={"Prefer": "wait=0"})
    assert answer.status_code == 202


async def test_a_failed_step_shows_its_error_and_can_be_retried(client: httpx.AsyncClient, engine: Start) -> None:
    await engine(fail=fail)
    run = (await client.post("/start/fail", headers={"Prefer": "wait=10"})).json()
    assert run["status"] == "failed"
    assert run["error"] == {"code": "invalid_input", "message": "No.", "field": "image", "step": "a"}
    answer = await client.post(f"/api/v1/runs/{run['id']}/retry", headers={"Prefer": "wait=10"})
    assert answer.json()["steps"][0]["attempts"] == 2


async def test_cancel_and_its_conflicts(client: httpx.AsyncClient, engine: Start) -> None:
    await engine(hang=hang)
    run = (await client.post("/start/hang")).json()
    answer = await client.post(f"/api/v1/runs/{run['id']}/cancel", headers={"Prefer": "wait=10"})
    assert answer.json()["status"] == "cancelled"
    assert (await client.post(f"/api/v1/runs/{run['id']}/cancel")).status_code == 202
    done = (await client.post("/start/noop", headers={"Prefer": "wait=10"})).json()
    answer = await client.post(f"/api/v1/runs/{done['id']}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "run_finished")


async def test_resume_tells_the_waiting_step(client: httpx.AsyncClient, engine: Start) -> None:
    await engine(ask=ask)
    run = (await client.post("/start/ask")).json()
    path = f"/api/v1/runs/{run['id']}"
    while (await client.get(path)).json()["status"] != "waiting":
        await asyncio.sleep(0.02)
    for body in ({"step": 1}, {"unknown": 1}, {"signal": []}):
        assert (await client.post(f"{path}/resume", json=body)).status_code == 422
    assert (await client.post(f"{path}/resume", json={"step": "zzz"})).status_code == 404
    wait = {"Prefer": "wait=10"}
    answer = await client.post(f"{path}/resume", json={"step": "a", "signal": {"yes": 1}}, headers=wait)
    assert answer.json()["result"] == {"yes": 1}
    assert (await client.post(f"{path}/resume")).status_code == 409
    logs = (await client.get(f"{path}/logs")).json()
    assert [(line["message"], line["level"], line["step"]) for line in logs["data"]] == [("asking", "warning", "a")] * 2
    page = (await client.get(f"{path}/logs", params={"limit": 1})).json()
    assert page["has_more"]
    rest = (await client.get(f"{path}/logs", params={"limit": 1, "cursor": page["next_cursor"]})).json()
    assert rest["data"] == logs["data"][1:]


async def events_of(client: httpx.AsyncClient, path: str, **headers: str) -> list[dict[str, str]]:
    text = (await client.get(path, headers=headers)).text
    blocks = [block for block in text.split("\n\n") if block.startswith("id: ")]
    return [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]


async def test_events_stream_until_the_end_and_continue_where_one_was(client: httpx.AsyncClient, engine: Start) -> None:
    await engine()
    run = (await client.post("/start/noop")).json()
    path = f"/api/v1/runs/{run['id']}/events"
    events = await events_of(client, path)
    assert [event["event"] for event in events] == [
        "run.created",
        "run.started",
        "step.started",
        "step.succeeded",
        "run.finished",
    ]
    last = json.loads(events[-1]["data"])
    assert (last["type"], last["status"]) == ("run.finished", "succeeded")
    assert await events_of(client, path, **{"Last-Event-ID": events[2]["id"]}) == events[3:]
    assert await events_of(client, path, **{"Last-Event-ID": "not-ours"}) == events


async def test_lists_page_by_cursor_and_filter(client: httpx.AsyncClient) -> None:
    ids = [(await client.post("/start/noop")).json()["id"] for _ in range(5)]
    seen: list[str] = []
    cursor = None
    for _ in range(3):
        page = (await client.get("/api/v1/runs", params={"limit": 2, **({"cursor": cursor} if cursor else {})})).json()
        seen += [run["id"] for run in page["data"]]
        cursor = page["next_cursor"]
    assert seen == ids[::-1]
    assert cursor is None
    for wish, count in (({"kind": "test"}, 5), ({"kind": "other"}, 0), ({"status": "queued"}, 5), ({"name": "x"}, 5)):
        assert len((await client.get("/api/v1/runs", params=wish)).json()["data"]) == count
    assert (await client.get("/api/v1/runs", params={"status": "odd"})).status_code == 422


@pytest.mark.parametrize("path", ["", "/steps", "/events", "/logs", "/timeline"])
async def test_runs_of_other_projects_are_not_there(runs: RunService, who: Principal, path: str) -> None:
    run = await runs.start(who, RunSpec("test", "x", [StepSpec("a", "noop")]))
    other = Principal("key", "key_b", "prj_b", frozenset({Scope.ADMIN}))
    transport = httpx.ASGITransport(As(app_of(runs), other))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get(f"/api/v1/runs/{run.id}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "run_not_found")
        if not path:
            for verb in ("cancel", "retry", "resume"):
                assert (await client.post(f"/api/v1/runs/{run.id}/{verb}")).status_code == 404
