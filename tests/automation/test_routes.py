"""The routes of automation over HTTP: definitions, runs again, approvals, secrets, artefacts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import jsonschema_rs
import orjson
import pytest
import yaml
from fastapi import FastAPI, Request
from starlette.responses import Response
from tests.automation.conftest import Shop
from tests.automation.test_flows import say

from nexus.access.types import Principal, Scope
from nexus.automation.routes import router
from nexus.automation.types import Definition
from nexus.core.errors import NexusError
from nexus.runs.routes import router as runs_router


class Door:
    """A client whose calls are made as whoever `who` names."""

    def __init__(self, shop: Shop) -> None:
        self.who: Principal = shop.who
        app = FastAPI()
        app.state.services = shop.services
        app.include_router(router)
        app.include_router(runs_router)

        @app.exception_handler(NexusError)
        async def refuse(_request: Request, error: NexusError) -> Response:
            body = {"code": error.code, "field": error.field, **error.details}
            return Response(orjson.dumps(body), error.status, media_type="application/problem+json")

        async def as_who(scope: Any, receive: Any, send: Any) -> None:
            scope["principal"] = self.who
            await app(scope, receive, send)

        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(as_who), base_url="http://test")

    async def __call__(self, method: str, path: str, status: int = 200, **more: Any) -> Any:
        answer = await self.client.request(method, path, **more)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None


@pytest.fixture
async def door(shop: Shop) -> AsyncIterator[Door]:
    made = Door(shop)
    yield made
    await made.client.aclose()


async def test_the_published_schema_takes_what_is_taken_and_explains_itself(door: Door) -> None:
    schema = await door("GET", "/api/v1/workflows/schema")
    check = jsonschema_rs.validator_for(schema)
    for example in schema["examples"]:
        check.validate(example)
        await door("POST", "/api/v1/workflows/validate", json=example)
    assert not check.is_valid({"name": "x", "steps": []})
    fields = schema["$defs"]["StepDefinition"]["properties"]
    assert all("description" in field or "$ref" in field for field in fields.values()), fields
    assert {"with", "continue", "map", "needs"} <= fields.keys()


A = "  - {key: a, uses: wait, with: {seconds: 1}}"
PROBLEMS = [
    (["  - {key: a, uses: nothing}"], "steps.0.uses", 3),
    (["  - key: a", "    uses: wait", "    with: {seconds: soon}"], "steps.0.with.seconds", 5),
    (["  - key: a", "    uses: wait", "    with: {secs: 1}"], "steps.0.with.secs", 5),
    (["  - key: a", "    uses: wait", "    with: {seconds: 1}", "    map: x"], "steps.0.map", 6),
    (["  - {key: a, uses: wait, with: {seconds: 1}, max_parallel: 2}"], "steps.0.max_parallel", 3),
    (["  - {key: a, uses: branch, with: {cases: {x: gone}}}"], "steps.0.with.cases.x", 3),
    ([A, "  - {key: b, uses: wait, with: {seconds: '{{ steps.a.output.nope }}'}}"], "steps.1.with.seconds", 4),
    ([A, "  - {key: b, uses: wait, with: {seconds: '{{ steps.a.error }}'}}"], "steps.1.with.seconds", 4),
    (["  - {key: a, uses: wait, with: {seconds: '{{ failure.code }}'}}"], "steps.0.with.seconds", 3),
    (["  - {key: a, uses: wait, with: {seconds: '{{ item }}'}}"], "steps.0.with.seconds", 3),
    ([A, "outputs: {x: '{{ steps.b.output }}'}"], "outputs.x", 4),
    ([A, "on_failure:", A], "on_failure.0.key", 5),
    (["  - {key: a, uses: wait, with: {seconds: 1}, fallback: {seconds: 2}}"], "steps.0.fallback", 3),
]


@pytest.mark.parametrize(("lines", "field", "line"), PROBLEMS)
async def test_every_problem_has_its_place(door: Door, lines: list[str], field: str, line: int) -> None:
    text = "\n".join(["name: t", "steps:", *lines])
    answer = await door("POST", "/api/v1/workflows/validate", 422, content=text, headers={"content-type": "text/yaml"})
    problems = {problem["field"]: problem for problem in answer["problems"]}
    assert problems[field]["line"] == line, answer


async def test_the_contracts_example_is_taken_unchanged(door: Door, shop: Shop) -> None:
    text = """
name: receipt-to-note
inputs: {image: {type: file}, webhook: {type: url, optional: true}}
steps:
  - {key: read, uses: vision.ocr, with: {image: "{{ inputs.image }}"}, retries: {max: 3, backoff: exponential}, timeout: 60}
  - {key: note, uses: llm.summarize, with: {text: "{{ steps.read.output.text }}", model: nexus-local}, when: "len(steps.read.output.text) > 20"}
  - {key: tell, uses: http.request, needs: [note], with: {method: POST, url: "{{ inputs.webhook }}", json: {note: "{{ steps.note.output.text }}"}}}
"""  # noqa: E501
    Definition.model_validate(yaml.safe_load(text))
    body = await door("POST", "/api/v1/workflows", 201, content=text, headers={"content-type": "application/yaml"})
    assert (body["name"], body["version"]) == ("receipt-to-note", 1)


async def test_run_pause_resume_rerun_and_retry_from_a_step(door: Door, shop: Shop) -> None:
    steps = [say("each", "{{ item }}", map="{{ inputs.list }}"), say("b", "{{ inputs.word }}", needs=["each"])]
    inputs = {"list": {"type": "list"}, "word": {"type": "string", "default": "hello"}}
    await door("POST", "/api/v1/workflows", 201, json={"name": "t", "inputs": inputs, "steps": steps})
    wait = {"prefer": "wait=20"}
    run = await door(
        "POST", "/api/v1/workflows/t/runs", json={"inputs": {"list": [1, 2, 3]}, "priority": 2}, headers=wait
    )
    assert (run["status"], run["priority"], run["trigger"]) == ("succeeded", 2, {"type": "api"})
    assert run["steps"][0]["items"] == {"done": 3, "total": 3}
    page = await door("GET", f"/api/v1/runs/{run['id']}/steps?key=each&limit=2")
    assert ([item["map_index"] for item in page["data"]], page["has_more"]) == ([0, 1], True)
    page = await door("GET", f"/api/v1/runs/{run['id']}/steps?key=each&limit=2&cursor={page['next_cursor']}")
    assert [item["map_index"] for item in page["data"]] == [2]
    files = (await door("GET", f"/api/v1/runs/{run['id']}/artifacts"))["data"]
    assert [(one["step"], one["name"]) for one in files][-1] == ("b", "b.txt")
    assert sorted(one.get("map_index") for one in files[:3]) == [0, 1, 2]
    again = await door("POST", f"/api/v1/runs/{run['id']}/rerun", json={"inputs": {"word": "bye"}}, headers=wait)
    assert again["inputs"] == {"list": [1, 2, 3], "word": "bye"}
    assert again["trigger"] == {"type": "rerun", "run_id": run["id"]}
    retried = await door("POST", f"/api/v1/runs/{run['id']}/retry", json={"from": "b"}, headers=wait)
    assert [step["attempts"] for step in retried["steps"]][1] == 2
    await door("POST", f"/api/v1/runs/{run['id']}/retry", 404, json={"from": "nowhere"})
    await door("POST", f"/api/v1/runs/{run['id']}/pause", 409)


async def test_secrets_go_in_and_never_come_out(door: Door) -> None:
    await door("POST", "/api/v1/secrets", 201, json={"name": "HOOK", "value": "very-secret"})
    await door("PUT", "/api/v1/secrets/HOOK", 200, json={"value": "more-secret"})
    listed = await door("GET", "/api/v1/secrets")
    assert [secret["name"] for secret in listed["data"]] == ["HOOK"]
    assert "secret" not in orjson.dumps(listed).decode().replace("secrets", "")
    assert "value" not in await door("GET", "/api/v1/secrets/HOOK")
    answer = await door("POST", "/api/v1/secrets", 422, json={"name": "1", "value": "very-secret"})
    assert answer["field"] == "name"
    await door("DELETE", "/api/v1/secrets/HOOK", 204)
    await door("GET", "/api/v1/secrets/HOOK", 404)


async def test_approvals(door: Door, shop: Shop) -> None:
    run = await shop.start({"steps": [{"key": "ask", "uses": "approval", "with": {"message": "Well?"}}]})
    async with asyncio.timeout(60):
        while not (pending := (await door("GET", "/api/v1/approvals?status=pending"))["data"]):
            await asyncio.sleep(0.05)
    assert (pending[0]["run_id"], pending[0]["step"], pending[0]["message"]) == (run.id, "ask", "Well?")
    path = f"/api/v1/approvals/{pending[0]['id']}"
    door.who = replace(shop.who, scopes=frozenset({Scope.AUTOMATION_READ}))
    await door("POST", f"{path}/approve", 403)
    door.who = shop.who
    decided = await door("POST", f"{path}/approve", json={"comment": "fine"})
    assert (decided["status"], decided["comment"]) == ("approved", "fine")
    await door("POST", f"{path}/reject", 409)
    await door("GET", "/api/v1/approvals/apr_nothing", 404)
    assert (await shop.wait(run)).status == "succeeded"
