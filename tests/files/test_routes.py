from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.apps import app_with

from nexus.access.types import Principal, Scope
from nexus.core.services import Services
from nexus.files.routes import router
from nexus.files.service import FileService
from nexus.files.settings import FilesSettings
from nexus.storage.blobs.local import LocalBlobs
from nexus.storage.db import Database

BOTH = frozenset({Scope.FILES_READ, Scope.FILES_WRITE})


@pytest.fixture
def app(database: Database, tmp_path: Path) -> FastAPI:
    services = Services()
    settings = FilesSettings(limit=1_000_000)
    services.put(FileService(database=database, blobs=LocalBlobs(tmp_path / "files"), settings=settings))
    return app_with(services, router)


def client_of(app: FastAPI, *scopes: Scope, project: str = "prj_a") -> httpx.AsyncClient:
    async def as_principal(scope: Any, receive: Any, send: Any) -> None:
        scope["principal"] = Principal("key", "key_a", project, frozenset(scopes))
        await app(scope, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(as_principal), base_url="http://localhost")


@pytest.fixture
def client(app: FastAPI) -> httpx.AsyncClient:
    return client_of(app, *BOTH)


async def upload(client: httpx.AsyncClient, name: str, data: bytes, kind: str = "text/plain", **form: str) -> Any:
    sent = {"purpose": "user_data"} | form
    return await client.post("/v1/files", files={"file": (name, data, kind)}, data=sent)


async def test_the_openai_client_works_unchanged(app: FastAPI) -> None:
    openai = pytest.importorskip("openai")
    async with openai.AsyncOpenAI(
        api_key="x", base_url="http://localhost/v1", http_client=client_of(app, *BOTH), max_retries=0
    ) as sdk:
        made = await sdk.files.create(
            file=("a.jsonl", b'{"a": 1}\n'),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": 3600},
        )
        assert (made.object, made.bytes, made.filename, made.purpose) == ("file", 9, "a.jsonl", "batch")
        assert made.expires_at == made.created_at + 3600
        other = await sdk.files.create(file=("b.txt", b"b"), purpose="user_data")
        assert [file.id async for file in sdk.files.list(limit=1)] == [other.id, made.id]
        assert [file.id async for file in sdk.files.list(purpose="batch")] == [made.id]
        assert (await sdk.files.retrieve(made.id)).id == made.id
        assert (await sdk.files.content(made.id)).content == b'{"a": 1}\n'
        assert (await sdk.files.delete(made.id)).deleted
        with pytest.raises(openai.NotFoundError) as gone:
            await sdk.files.retrieve(made.id)
        assert gone.value.code == "file_not_found"


@pytest.mark.parametrize("purpose", ["assistants", "batch", "fine-tune", "vision", "user_data", "evals"])
async def test_every_purpose_of_the_openai_client_is_kept(app: FastAPI, purpose: Any) -> None:
    openai = pytest.importorskip("openai")
    async with openai.AsyncOpenAI(
        api_key="x", base_url="http://localhost/v1", http_client=client_of(app, *BOTH), max_retries=0
    ) as sdk:
        made = await sdk.files.create(file=("a.jsonl", b"{}\n"), purpose=purpose)
        assert (made.purpose, made.status) == (purpose, "processed")
        assert (await sdk.files.wait_for_processing(made.id)).id == made.id
        assert [file.id async for file in sdk.files.list(purpose=purpose)] == [made.id]
        refused = await client_of(app, *BOTH).post("/v1/files", files={"file": b"x"}, data={"purpose": "no such"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "purpose")


@pytest.mark.parametrize(
    ("name", "data", "declared", "served"),
    [
        ("x.html", b"<html><script>alert(1)</script>", "text/html", "application/octet-stream"),
        ("x.svg", b"<svg onload=alert(1)>", "image/svg+xml", "application/octet-stream"),
        ("x.png", b"<script>alert(1)</script>", "image/png", "application/octet-stream"),
        ("x.png", b"\x89PNG\r\n\x1a\n\x00", "image/png", "image/png"),
        ('"><script>.txt', b"x", "text/plain", "text/plain; charset=utf-8"),
        ("ü\u20ac.txt", b"x", "text/plain", "text/plain; charset=utf-8"),
    ],
)
async def test_nothing_that_is_downloaded_runs(
    client: httpx.AsyncClient, name: str, data: bytes, declared: str, served: str
) -> None:
    file_id = (await upload(client, name, data, declared)).json()["id"]
    response = await client.get(f"/api/v1/files/{file_id}/content")
    assert response.content == data
    assert response.headers["content-type"] == served
    assert response.headers["content-disposition"].startswith("attachment")
    assert "\n" not in response.headers["content-disposition"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in response.headers["content-security-policy"]


async def test_many_ranges_do_not_hurt(client: httpx.AsyncClient) -> None:
    file_id = (await upload(client, "a.bin", b"x" * 10_000)).json()["id"]
    url = f"/v1/files/{file_id}/content"
    part = await client.get(url, headers={"range": "bytes=0-9"})
    assert (part.status_code, part.content) == (206, b"x" * 10)
    many = "bytes=" + ",".join(f"{i}-{i}" for i in range(0, 20_000, 2))
    assert (await client.get(url, headers={"range": many})).status_code in (200, 206, 400, 416)


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b'{"file": {"path": "/etc/passwd"}}', {"content-type": "application/json"}, 415),
        (b"file=%2Fetc%2Fpasswd", {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b"x", {}, 415),
        (b"x", {"content-type": "multipart/form-data"}, 400),
        (b"x", {"content-type": "multipart/form-data; boundary=" + "b" * 1000}, 400),
        (b"--b\r\n", {"content-type": "multipart/form-data; boundary=b"}, 400),
    ],
)
async def test_only_a_file_part_is_a_file(
    client: httpx.AsyncClient, content: bytes, headers: dict[str, str], status: int
) -> None:
    response = await client.post("/v1/files", content=content, headers=headers)
    assert response.status_code == status
    assert (await client.get("/v1/files")).json()["data"] == []


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"purpose": "../../etc"}, "purpose"),
        ({"purpose": "x" * 65}, "purpose"),
        ({"purpose": ""}, "purpose"),
        ({"expires_after[seconds]": "5"}, "expires_after.seconds"),
        ({"expires_after[seconds]": "9" * 5000}, "expires_after.seconds"),
        ({"expires_after[seconds]": "-1"}, "expires_after.seconds"),
        ({"expires_after[anchor]": "never"}, "expires_after.anchor"),
    ],
)
async def test_bad_fields_are_named(client: httpx.AsyncClient, form: dict[str, str], param: str) -> None:
    response = await upload(client, "a.txt", b"x", **form)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_sizes_have_a_cap(client: httpx.AsyncClient) -> None:
    assert (await upload(client, "a", b"x" * 1_000_001)).status_code == 413
    assert (await upload(client, "a", b"")).status_code == 400
    assert (await client.get("/v1/files")).json()["data"] == []


@pytest.mark.parametrize("url", ["/v1/files?limit=0", "/v1/files?after=x", "/v1/files?order=up", "/v1/files?limit=x"])
async def test_bad_lists_are_refused(client: httpx.AsyncClient, url: str) -> None:
    assert (await client.get(url)).status_code == 400
    assert (await client.get("/api" + url)).status_code == 422


async def test_each_route_needs_its_scope_and_its_project(app: FastAPI, client: httpx.AsyncClient) -> None:
    file_id = (await upload(client, "a.txt", b"secret")).json()["id"]
    nobody, reader = client_of(app), client_of(app, Scope.FILES_READ)
    stranger = client_of(app, *BOTH, project="prj_b")
    for prefix in ("/v1/files", "/api/v1/files"):
        for url in (prefix, f"{prefix}/{file_id}", f"{prefix}/{file_id}/content"):
            assert (await nobody.get(url)).status_code == 403
            assert (await reader.get(url)).status_code == 200
        for url in (f"{prefix}/{file_id}", f"{prefix}/{file_id}/content"):
            assert (await stranger.get(url)).status_code == 404
        assert (await stranger.get(prefix)).json()["data"] == []
        assert (await reader.delete(f"{prefix}/{file_id}")).status_code == 403
        assert (await stranger.delete(f"{prefix}/{file_id}")).status_code == 404
        assert (await reader.post(prefix, files={"file": b"x"})).status_code == 403
