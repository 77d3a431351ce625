from __future__ import annotations

import base64
import json
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.apps import app_with

from nexus.access.types import Principal, Scope
from nexus.core.errors import NotFound
from nexus.core.services import Services
from nexus.http import fetch
from nexus.testing.images import encoded, gradient, page, png_header
from nexus.vision.images import decode
from nexus.vision.routes import router
from nexus.vision.service import VisionService
from nexus.vision.settings import VisionSettings

WHO = Principal("key", "key_1", "prj_1", frozenset({Scope.VISION_INVOKE, Scope.FILES_READ}), key_id="key_1")


class OneFile:
    """A file store with one file of one project."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    async def read(self, principal: Principal, file_id: str, limit: int | None = None) -> bytes:
        if (principal.project_id, file_id) != ("prj_1", "file_1"):
            raise NotFound("There is no file of this id.", field="file_id")
        return self.content


class Caller:
    """Who asks; a test may change it."""

    principal = WHO


@pytest.fixture
def dinner(images: Path) -> bytes:
    return (images / "detect_voc" / "2007_000762.jpg").read_bytes()


@pytest.fixture
def caller() -> Caller:
    return Caller()


@pytest.fixture
async def client(vision: VisionService, caller: Caller) -> AsyncIterator[httpx.AsyncClient]:
    services = Services()
    services.put(vision)
    app = app_with(services, router)

    async def with_principal(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "principal": caller.principal, "request_id": "req-12345678"}, receive, send)

    transport = httpx.ASGITransport(with_principal, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://nexus", timeout=60) as client:
        yield client


async def post(client: httpx.AsyncClient, task: str, image: bytes, query: str = "", **fields: str) -> httpx.Response:
    return await client.post(f"/api/v1/vision/{task}{query}", files={"image": ("x.bin", image)}, data=fields)


async def test_a_photograph_by_form(client: httpx.AsyncClient, dinner: bytes) -> None:
    answer = await post(client, "detect", dinner, threshold="0.5", max_results="3", classes="person, bottle")
    assert answer.status_code == 200
    body = answer.json()
    assert body["id"].startswith("inv_")
    assert (body["task"], body["model"], body["image"]) == ("detect", "yolox-nano", {"width": 500, "height": 375})
    assert len(body["results"]) == 3
    assert {each["label"] for each in body["results"]} == {"person", "bottle"}


async def test_classes_of_a_photograph(client: httpx.AsyncClient, images: Path) -> None:
    data = (images / "classify" / "n01518878_ostrich.JPEG").read_bytes()
    body = (await post(client, "classify", data, "?top_k=2")).json()
    assert body["results"][0]["label"] == "ostrich"
    assert len(body["results"]) == 2


@pytest.mark.slow
async def test_text_of_a_page(client: httpx.AsyncClient) -> None:
    body = (await post(client, "ocr", page(["Hello NEXUS", "second line"]))).json()
    assert body["text"] == "Hello NEXUS\nsecond line"
    assert set(body["results"][0]) == {"score", "box", "text", "quad"}


@pytest.mark.parametrize("where", ["query", "form"])
async def test_an_annotated_picture(client: httpx.AsyncClient, dinner: bytes, where: str) -> None:
    fields = {"annotate": "png"} if where == "form" else {}
    answer = await post(client, "detect", dinner, "?annotate=png" if where == "query" else "", **fields)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-nexus-model"] == "yolox-nano"
    drawn, plain = decode(answer.content, VisionSettings()), decode(dinner, VisionSettings())
    assert drawn.pixels.shape == plain.pixels.shape
    assert 0.01 < (drawn.pixels != plain.pixels).any(axis=2).mean() < 0.5


async def test_the_coco_format(client: httpx.AsyncClient, dinner: bytes) -> None:
    body = (await post(client, "detect", dinner, "?format=coco")).json()
    assert set(body) == {"info", "images", "categories", "annotations"}
    assert body["annotations"][0]["bbox"][2] > 0


async def test_json_with_base64(client: httpx.AsyncClient, dinner: bytes) -> None:
    plain = base64.b64encode(dinner).decode()
    for sent in ({"base64": plain}, {"image": {"base64": f"data:image/jpeg;base64,{plain}"}}):
        answer = await client.post("/api/v1/vision/detect", json={**sent, "threshold": 0.8})
        assert answer.status_code == 200
        assert all(each["score"] >= 0.8 for each in answer.json()["results"])


async def test_json_with_a_file(
    client: httpx.AsyncClient, vision: VisionService, caller: Caller, dinner: bytes
) -> None:
    vision.files = OneFile(dinner)
    assert (await client.post("/api/v1/vision/detect", json={"file_id": "file_1"})).status_code == 200
    missing = await client.post("/api/v1/vision/detect", json={"file_id": "file_2"})
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    caller.principal = replace(WHO, scopes=frozenset({Scope.VISION_INVOKE}))
    assert (await client.post("/api/v1/vision/detect", json={"file_id": "file_1"})).status_code == 403


@pytest.fixture
def server(dinner: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/x.jpg" else 404)
            self.end_headers()
            self.wfile.write(dinner if self.path == "/x.jpg" else b"<html>not here</html>")

        def log_message(self, *_: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


async def test_json_with_an_address(client: httpx.AsyncClient, server: str) -> None:
    refused = await client.post("/api/v1/vision/detect", json={"url": f"{server}/x.jpg"})
    assert (refused.status_code, refused.json()["code"]) == (400, "url_not_allowed")
    fetch.configure(["127.0.0.0/8"])
    try:
        answer = await client.post("/api/v1/vision/detect", json={"url": f"{server}/x.jpg"})
        missing = await client.post("/api/v1/vision/detect", json={"url": f"{server}/y.jpg"})
    finally:
        fetch.configure([])
    assert answer.status_code == 200
    assert (missing.status_code, missing.json()["errors"][0]["pointer"]) == (422, "/url")
    assert "not here" not in missing.text


@pytest.mark.parametrize(
    ("image", "status", "code"),
    [
        (b"", 422, "image_unreadable"),
        (b"<html></html>", 422, "image_unreadable"),
        (encoded(gradient(), "JPEG")[:300], 422, "image_unreadable"),
        (png_header(30_000, 30_000, rows=100), 413, "image_too_large"),
        (b"\xff\xd8\xff" + bytes(20_000_001), 413, "image_too_large"),
    ],
)
async def test_a_bad_picture_is_refused_by_name(
    client: httpx.AsyncClient, image: bytes, status: int, code: str
) -> None:
    answer = await post(client, "detect", image)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["errors"][0]["pointer"] == "/image"


@pytest.mark.parametrize(
    ("query", "fields", "status", "pointer"),
    [
        ("", {"model": "absent"}, 404, None),
        ("", {"model": "efficientnet-lite0"}, 422, "/model"),
        ("", {"threshold": "high"}, 422, "/threshold"),
        ("", {"threshold": "nan"}, 422, "/threshold"),
        ("", {"top_k": "3"}, 422, "/top_k"),
        ("?threshold=7", {}, 422, "/threshold"),
        ("?annotate=gif", {}, 422, "/annotate"),
        ("?format=yolo", {}, 422, "/format"),
        ("", {"classes": "gryphon"}, 422, "/classes"),
    ],
)
async def test_a_bad_field_is_refused_by_name(
    client: httpx.AsyncClient, dinner: bytes, query: str, fields: dict[str, str], status: int, pointer: str | None
) -> None:
    answer = await post(client, "detect", dinner, query, **fields)
    assert answer.status_code == status
    if pointer:
        assert [each["pointer"] for each in answer.json()["errors"]] == [pointer]
    for value in fields.values():
        assert value not in answer.text or value == "3"


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{}", {"content-type": "application/json"}, 422),
        (b'{"url": "http://x/", "base64": "AAAA"}', {"content-type": "application/json"}, 422),
        (b'{"base64": "!!!"}', {"content-type": "application/json"}, 422),
        (b'{"base64": "AAAA"}', {"content-type": "application/json"}, 422),
        (b'{"base64": 7}', {"content-type": "application/json"}, 422),
        (b"[]", {"content-type": "application/json"}, 422),
        (b'{"base64": "AAAA", "threshold": NaN}', {"content-type": "application/json"}, 400),
        (b'{"base64": "\\u0000"}', {"content-type": "application/json"}, 400),
        (b"", {"content-type": "application/json"}, 400),
        (b"x", {"content-type": "image/jpeg"}, 415),
        (b"x", {"content-type": "multipart/form-data; boundary=b"}, 400),
    ],
)
async def test_a_bad_body_is_refused(
    client: httpx.AsyncClient, content: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await client.post("/api/v1/vision/detect", content=content, headers=headers)
    assert answer.status_code == status
    assert "detail" in answer.json()
    assert answer.json()["code"] != "internal_error"


async def test_a_form_without_the_image_says_so(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/v1/vision/detect", files={"picture": b"x"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/image")


async def test_an_unknown_task_is_not_found(client: httpx.AsyncClient) -> None:
    answer = await post(client, "paint", b"x")
    assert (answer.status_code, answer.json()["code"]) == (404, "vision_task_not_found")


async def test_the_right_is_asked_for(client: httpx.AsyncClient, caller: Caller) -> None:
    caller.principal = replace(WHO, scopes=frozenset({Scope.LLM_INVOKE}))
    assert (await post(client, "detect", encoded(gradient()))).status_code == 403
    assert (await client.get("/api/v1/vision/tasks")).status_code == 403


async def test_the_list_of_tasks(client: httpx.AsyncClient) -> None:
    body = (await client.get("/api/v1/vision/tasks")).json()
    tasks = {each["name"]: each for each in body["data"]}
    assert set(tasks) >= {"classify", "detect", "ocr"}
    assert [each["name"] for each in tasks["detect"]["models"]] == ["yolox-nano"]
    assert tasks["classify"]["parameters"]["top_k"]["default"] == 5
    assert body["limits"]["max_pixels"] == 40_000_000
    assert "jpeg" in body["limits"]["formats"]


async def test_a_picture_of_a_result_is_what_is_in_the_result(client: httpx.AsyncClient, dinner: bytes) -> None:
    plain = (await post(client, "detect", dinner)).json()
    again = (await post(client, "detect", dinner)).json()
    assert (plain["cached"], again["cached"]) == (False, True)
    assert again["results"] == plain["results"]
    assert json.dumps(plain["results"])  # no NaN
