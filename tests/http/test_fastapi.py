"""FastAPI behind the whole edge, as `app.py` puts it together."""

from __future__ import annotations

from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, Form, Request, UploadFile
from pydantic import BaseModel, ConfigDict, Field

from nexus.core.services import Services
from nexus.http.depends import service
from nexus.http.dispatch import Dispatch
from nexus.http.handlers import install
from nexus.http.strict_json import StrictJSON
from nexus.http.uploads import read_upload

from .conftest import Running, Serve

pytestmark = pytest.mark.slow


class Greeter:
    """A service."""

    def greet(self, name: str) -> str:
        return f"hello {name}"


class Greeting(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str = Field(max_length=50)
    times: int = 1


seen: list[tuple[str, str, int]] = []


@pytest.fixture
def running(serve: Serve) -> Running:
    app = FastAPI(openapi_url=None)
    install(app)
    app.add_middleware(StrictJSON)
    app.state.services = Services()
    app.state.services.put(Greeter())

    @app.post("/api/v1/greetings/{place}")
    async def greet(place: int, body: Greeting, greeter: Annotated[Greeter, service(Greeter)]) -> dict[str, str]:
        return {"text": greeter.greet(body.name) * body.times}

    @app.post("/api/v1/forms")
    async def form(image: UploadFile, level: Annotated[int, Form()]) -> dict[str, int]:
        return {"size": len(await image.read()), "level": level}

    @app.post("/api/v1/uploads")
    async def upload(request: Request) -> dict[str, Any]:
        read = await read_upload(request, "image", limit=50_000)
        return {"size": read.size, **read.fields}

    seen.clear()
    observe = lambda route, method, status, seconds: seen.append((route, method, status))  # noqa: E731
    edge = Dispatch(app, services=app.state.services, hot={})
    return serve(edge, observe=observe, json_limit=2000, upload_limit=100_000)


def post(running: Running, path: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
    answer = httpx.post(running.url + path, **arguments)
    assert answer.headers["content-type"] in ("application/json", "application/problem+json")
    assert answer.headers["x-request-id"]
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, answer.json()


def test_a_route_finds_its_service_and_is_measured_by_its_template(running: Running) -> None:
    assert post(running, "/api/v1/greetings/7", json={"name": "you"}) == (200, {"text": "hello you"})
    assert post(running, "/api/v1/nowhere")[0] == 404
    assert seen == [("/api/v1/greetings/{place}", "POST", 200), ("unmatched", "POST", 404)]


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/api/v1/greetings/x", {"name": "n"}, "/place"),
        ("/api/v1/greetings/1", {"name": 5}, "/name"),
        ("/api/v1/greetings/1", {"name": "n", "times": True}, "/times"),
        ("/api/v1/greetings/1", {"name": "n", "times": 1.5}, "/times"),
        ("/api/v1/greetings/1", {"name": "n" * 51}, "/name"),
        ("/api/v1/greetings/1", {"name": "n", "is_admin": True}, "/is_admin"),
        ("/api/v1/greetings/1", {"name": None}, "/name"),
    ],
)
def test_each_wrong_field_is_named(running: Running, path: str, body: Any, pointer: str) -> None:
    status, problem = post(running, path, json=body)
    assert status == 422
    assert [issue["pointer"] for issue in problem["errors"]] == [pointer]


@pytest.mark.parametrize("body", [b'{"name":"\\ud800"}', b'{"name":NaN}', b"[" * 100_000, b'{"name":"\\u0000"}', b"{"])
def test_what_fastapi_chokes_on_is_malformed(running: Running, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    status, problem = post(running, "/api/v1/greetings/1", content=body[:1900], headers=headers)
    assert (status, problem["code"]) == (400, "malformed_body")


def test_large_bodies_are_413_in_every_kind_of_route(running: Running) -> None:
    def chunks(total: int) -> Any:
        yield b'{"name":"'
        for _ in range(total // 100):
            yield b"x" * 100
        yield b'"}'

    headers = {"content-type": "application/json"}
    assert post(running, "/api/v1/greetings/1", content=chunks(5000), headers=headers)[0] == 413
    big = {"image": ("a.png", b"x" * 2_000_000)}
    for path in ("/api/v1/forms", "/api/v1/uploads"):
        status, problem = post(running, path, files=big, data={"level": "1"})
        assert (status, problem["code"]) == (413, "too_large")
    lengthless = b"--x\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\n" + b"x" * 2_000_000

    def pieces() -> Any:
        for start in range(0, len(lengthless), 10_000):
            yield lengthless[start : start + 10_000]

    headers = {"content-type": "multipart/form-data; boundary=x"}
    for path in ("/api/v1/forms", "/api/v1/uploads"):
        status, problem = post(running, path, content=pieces(), headers=headers)
        assert (status, problem["code"]) == (413, "too_large"), path


def test_uploads_are_read_and_refused_clearly(running: Running) -> None:
    image = {"image": ("a.png", b"x" * 5000, "image/png")}
    assert post(running, "/api/v1/uploads", files=image, data={"a": "b"}) == (200, {"size": 5000, "a": "b"})
    assert post(running, "/api/v1/forms", files=image, data={"level": "3"}) == (200, {"size": 5000, "level": 3})
    for path in ("/api/v1/uploads", "/api/v1/forms"):
        forged = {"image": {"path": "/etc/passwd"}, "level": 1}
        assert post(running, path, json=forged)[0] == 415
        assert post(running, path, data={"image": "x", "level": "1"})[0] in (415, 422)
        garbage = {"content-type": "multipart/form-data; boundary=x"}
        assert post(running, path, content=b"garbage", headers=garbage)[0] == 400
        assert post(running, path, content=b"x", headers={"content-type": "multipart/form-data"})[0] == 400
