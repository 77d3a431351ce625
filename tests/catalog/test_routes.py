"""The routes of `/api/v1/models` with real files and a real database."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.apps import app_with
from tests.catalog.conftest import MakeCatalog, person, row_of, spec_of, tiny_onnx

from nexus.access.types import Principal, Scope
from nexus.catalog.routes import router
from nexus.catalog.service import CatalogService
from nexus.core.services import Services
from nexus.storage.db import Database


class Caller:
    """Puts a principal into each request, as the deny-by-default layer does."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.principal = person()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["principal"] = self.principal
        await self.app(scope, receive, send)


@pytest.fixture
def catalog(database: Database, make_catalog: MakeCatalog, tmp_path: Path) -> CatalogService:
    content = b"content"
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "m").write_bytes(content)
    rows = [row_of(spec_of(content, "model.bin"), name=f"row-{n:02}") for n in range(30)]
    catalog = make_catalog(database, *rows, model_sources=[str(tmp_path / "mirror")])

    async def start(principal: Principal, model: str, version: int) -> dict[str, Any]:
        return {"id": "run_1", "name": model, "version": version, "by": principal.id}

    catalog.start_pull = start
    return catalog


@pytest.fixture
def door(catalog: CatalogService) -> Caller:
    services = Services()
    services.put(catalog)
    return Caller(app_with(services, router))


@pytest.fixture
def client(door: Caller) -> Iterator[httpx.AsyncClient]:
    return httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://test")


def upload(path: Path, **fields: str) -> dict[str, Any]:
    return {"files": {"file": ("m.onnx", path.read_bytes())}, "data": fields}


async def test_the_list_pages(client: httpx.AsyncClient) -> None:
    names, cursor = [], None
    while True:
        query = {"limit": 12} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/api/v1/models", params=query)).json()
        names += [model["name"] for model in page["data"]]
        cursor = page["next_cursor"]
        if not page["has_more"]:
            break
    assert names == [f"row-{n:02}" for n in range(30)]
    one = (await client.get("/api/v1/models", params={"kind": "llm"})).json()
    assert one["data"] == []


async def test_one_model(client: httpx.AsyncClient) -> None:
    shown = (await client.get("/api/v1/models/row-03")).json()
    assert shown["state"] == "available"
    assert shown["licence"] == "Apache-2.0"
    missing = await client.get("/api/v1/models/nothing")
    assert missing.status_code == 404
    assert missing.json()["code"] == "model_not_found"
    versions = (await client.get("/api/v1/models/row-03/versions")).json()
    assert versions == {"data": [{"version": 1, "state": "available", "aliases": []}]}


async def test_a_pull_answers_with_its_run(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/v1/models/row-03/pull")
    assert answer.status_code == 202
    assert answer.headers["location"] == "/api/v1/runs/run_1"
    assert (await client.post("/api/v1/models/nothing/pull")).status_code == 404
    assert (await client.post("/api/v1/models/row-03/pull", json={"version": "1"})).status_code == 422


async def test_import_alias_and_delete(client: httpx.AsyncClient, tmp_path: Path) -> None:
    path = tiny_onnx(tmp_path / "m.onnx")
    for number in (1, 2):
        made = await client.post("/api/v1/models/import", **upload(path, name="mine", meta='{"labels": ["a"]}'))
        assert made.status_code == 201, made.text
        assert made.json()["version"] == number
    place = "/api/v1/models/mine/aliases/champion"
    moved = await client.put(place, json={"version": 1}, headers={"If-Match": '"2"'})
    assert moved.status_code == 200
    assert moved.headers["etag"] == '"3"'
    late = await client.put(place, json={"version": 2}, headers={"If-Match": '"2"'})
    assert (late.status_code, late.json()["code"]) == (412, "alias_moved")
    odd = await client.put(place, json={"version": 2}, headers={"If-Match": "abc"})
    assert odd.status_code == 412
    exists = await client.put(place, json={"version": 2}, headers={"If-None-Match": "*"})
    assert exists.status_code == 412
    assert len((await client.get(place + "/history")).json()["data"]) == 3
    busy = await client.delete("/api/v1/models/mine", params={"version": 1})
    assert (busy.status_code, busy.json()["code"]) == (409, "model_in_use")
    assert (await client.delete("/api/v1/models/mine", params={"version": 2})).status_code == 204
    assert [v["version"] for v in (await client.get("/api/v1/models/mine/versions")).json()["data"]] == [1]


@pytest.mark.parametrize(
    ("fields", "content", "code", "field"),
    [
        ({"name": "x"}, pickle.dumps(print), "model_refused", "file"),
        ({"name": "../x"}, None, "model_refused", "name"),
        ({"name": "row-03"}, None, "model_exists", "name"),
        ({}, None, "invalid_input", "name"),
        ({"name": "x", "meta": "{"}, None, "invalid_input", "meta"),
        ({"name": "x", "meta": "[1]"}, None, "model_refused", "meta"),
        ({"name": "x", "alias": "../.."}, None, "model_refused", "alias"),
    ],
)
async def test_a_bad_import_names_the_field(
    client: httpx.AsyncClient, tmp_path: Path, fields: dict[str, str], content: bytes | None, code: str, field: str
) -> None:
    path = tiny_onnx(tmp_path / "m.onnx")
    if content is not None:
        path.write_bytes(content)
    answer = await client.post("/api/v1/models/import", **upload(path, **fields))
    assert answer.json()["code"] == code, answer.text
    assert answer.status_code < 500
    assert field in answer.text


async def test_rights(client: httpx.AsyncClient, door: Caller) -> None:
    door.principal = person("prj_a", Scope.MODELS_READ)
    assert (await client.get("/api/v1/models")).status_code == 200
    for method, path in [
        ("POST", "/api/v1/models/row-03/pull"),
        ("POST", "/api/v1/models/row-03/load"),
        ("DELETE", "/api/v1/models/row-03"),
        ("PUT", "/api/v1/models/row-03/aliases/champion"),
    ]:
        assert (await client.request(method, path, json={"version": 1})).status_code == 403
    door.principal = person("prj_a", Scope.LLM_INVOKE)
    assert (await client.get("/api/v1/models")).status_code == 403
