from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from starlette.testclient import TestClient

from nexus.core.errors import (
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InvalidInput,
    MalformedBody,
    MethodNotAllowed,
    NexusError,
    NotFound,
    RateLimited,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedMedia,
)
from nexus.http.edge import build_edge
from nexus.http.handlers import install
from nexus.http.lifecycle import Lifecycle
from nexus.http.problem import Issue, ValidationFailed, render, stream_error
from nexus.http.settings import HTTPSettings
from nexus.http.sse import HEARTBEAT
from nexus.http.strict_json import StrictJSON


class NotAcceptable(NexusError):
    """Nothing acceptable here."""

    code, status = "not_acceptable", 406


class BudgetExceeded(NexusError):
    """The budget is used up."""

    code, status = "budget_exceeded", 429


ERRORS = [
    MalformedBody,
    Unauthenticated,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    Conflict,
    TooLarge,
    UnsupportedMedia,
    InvalidInput,
    RateLimited,
    NexusError,
    Unavailable,
    DeadlineExceeded,
]


def check_openai(body: dict[str, Any], status: int) -> None:
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    assert (body["error"]["type"] == "server_error") == (status >= 500)


def check_anthropic(body: dict[str, Any], status: int) -> None:
    assert set(body) == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert set(body["error"]) == {"type", "message"}
    assert body["error"]["type"].endswith(("_error", "_large"))


def check_google(body: dict[str, Any], status: int) -> None:
    assert set(body) == {"error"}
    assert body["error"]["code"] == status
    assert body["error"]["status"].isupper()
    assert body["error"]["message"]


def check_oip(body: dict[str, Any], status: int) -> None:
    assert list(body) == ["error"]
    assert isinstance(body["error"], str)


def check_native(body: dict[str, Any], status: int) -> None:
    assert body["status"] == status
    assert {"type", "title", "status", "detail", "code", "request_id", "retryable"} <= set(body)


DIALECTS = {
    "/v1/chat/completions": check_openai,
    "/v1/messages": check_anthropic,
    "/v1/messages/count_tokens": check_anthropic,
    "/v1beta/models/x:generateContent": check_google,
    "/v2/models/x/infer": check_oip,
    "/api/v1/runs": check_native,
    "/mcp": check_native,
    "/nowhere": check_native,
}


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("kind", ERRORS)
def test_each_status_has_the_shape_of_its_dialect(path: str, kind: type[NexusError]) -> None:
    answer = render(path, kind(field="a.b"), "req_1")
    expected = kind.status
    if path.startswith(("/v1", "/v2")):
        expected = 400 if expected == 422 else expected
    if path.startswith("/v1/messages"):
        expected = 529 if expected == 503 else expected
    assert answer.status == expected
    DIALECTS[path](answer.body, expected)
    assert (answer.media_type == "application/problem+json") == (DIALECTS[path] is check_native)
    assert answer.encode()


@pytest.mark.parametrize(
    ("kind", "openai", "anthropic", "google"),
    [
        (InvalidInput, "invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT"),
        (Unauthenticated, "authentication_error", "authentication_error", "UNAUTHENTICATED"),
        (Forbidden, "permission_error", "permission_error", "PERMISSION_DENIED"),
        (NotFound, "invalid_request_error", "not_found_error", "NOT_FOUND"),
        (TooLarge, "invalid_request_error", "request_too_large", "INVALID_ARGUMENT"),
        (RateLimited, "rate_limit_error", "rate_limit_error", "RESOURCE_EXHAUSTED"),
        (NexusError, "server_error", "api_error", "INTERNAL"),
        (Unavailable, "server_error", "overloaded_error", "UNAVAILABLE"),
        (DeadlineExceeded, "server_error", "timeout_error", "DEADLINE_EXCEEDED"),
    ],
)
def test_error_types_are_those_of_the_dialects(
    kind: type[NexusError], openai: str, anthropic: str, google: str
) -> None:
    assert render("/v1/models", kind()).body["error"]["type"] == openai
    assert render("/v1/messages", kind()).body["error"]["type"] == anthropic
    assert render("/v1beta/models", kind()).body["error"]["status"] == google


def test_budget_end_says_not_to_retry() -> None:
    answer = render("/v1/chat/completions", BudgetExceeded(retry_after=5))
    headers = dict(answer.headers)
    assert answer.status == 429
    assert answer.body["error"]["type"] == answer.body["error"]["code"] == "insufficient_quota"
    assert headers["x-should-retry"] == "false"
    assert "retry-after" not in headers


def test_retry_after_is_whole_seconds_rounded_up() -> None:
    assert dict(render("/v1/models", RateLimited(retry_after=0.2)).headers)["retry-after"] == "1"


def test_native_lists_every_issue_with_a_pointer() -> None:
    error = ValidationFailed([Issue("rows.0.a/b", "missing", "Field required"), Issue("n", "int_type", "no")])
    body = render("/api/v1/x", error).body
    assert body["status"] == 422
    assert [issue["pointer"] for issue in body["errors"]] == ["/rows/0/a~1b", "/n"]
    assert render("/v1/x", error).body["error"]["param"] == "rows.0.a/b"


def test_details_do_not_overwrite_members() -> None:
    body = render("/api/v1/x", NotFound(status=200, model="m")).body
    assert body["status"] == 404
    assert body["model"] == "m"


def test_stream_errors_follow_the_dialect() -> None:
    assert stream_error("/v1/chat/completions", NexusError()).startswith(b'data: {"error":')
    assert stream_error("/v1/messages", NexusError()).startswith(b"event: error\ndata: {")
    assert stream_error("/api/v1/events", NexusError()).startswith(b"event: error\ndata: {")
    assert HEARTBEAT.count(b"\n") == 1


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    count: int = 1


@cache
def make_app() -> Any:
    app = FastAPI(openapi_url=None)
    install(app)
    for number, path in enumerate(("/v1/things", "/v1/messages", "/v1beta/things", "/v2/things", "/api/v1/things")):

        @app.post(path, name=f"create{number}")
        async def create(body: Body) -> Body:
            return body

        @app.get(path + "/fail", name=f"fail{number}")
        async def fail(how: str) -> None:
            if how == "secret":
                raise RuntimeError("password=hunter2 at 0x7f00deadbeef")
            raise HTTPException(int(how), detail="a foreign text")

    return build_edge(StrictJSON(app), settings=HTTPSettings(hosts=["testserver"]), lifecycle=Lifecycle())


PREFIXES = {
    "/v1/things": check_openai,
    "/v1/messages": check_anthropic,
    "/v1beta/things": check_google,
    "/v2/things": check_oip,
    "/api/v1/things": check_native,
}

BAD_BODIES = [
    (b'{"name":"\\ud800"}', 400),
    (b'{"name":"\\u0000"}', 400),
    (b'{"na\\u0000me":"x"}', 400),
    (b'{"name":NaN}', 400),
    (b'{"name":"x","count":Infinity}', 400),
    (b'{"name":"x","count":1e999}', 400),
    (b'{"name":"x","count":' + b"9" * 5000 + b"}", 400),
    (b'{"name":"x","count":18446744073709551616}', 400),
    (b"[" * 100_000, 400),
    (b'{"name":' + b"[" * 200 + b"]" * 200 + b"}", 400),
    (b'{"name":"\xff"}', 400),
    (b"\xef\xbb\xbf{}", 400),
    (b"{", 400),
    (b"   ", 400),
    (b"[]", 422),
    (b"null", 422),
    (b'"hunter2"', 422),
    (b"{}", 422),
    (b'{"name":{"hunter2":1}}', 422),
    (b'{"name":"x","extra":"hunter2"}', 422),
    (b'{"name":"x","count":"hunter2"}', 422),
]


@pytest.mark.parametrize("path", PREFIXES)
@pytest.mark.parametrize(("body", "status"), BAD_BODIES)
def test_bad_json_is_a_clear_error_in_every_dialect(path: str, body: bytes, status: int) -> None:
    client = TestClient(make_app(), raise_server_exceptions=False)
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    expected = 400 if status == 422 and not path.startswith("/api/") else status
    assert answer.status_code == expected, answer.text
    PREFIXES[path](answer.json(), expected)
    assert "hunter2" not in answer.text.replace("name.hunter2", "")
    assert "input" not in answer.json()


def test_validation_names_each_field() -> None:
    client = TestClient(make_app())
    body = client.post("/api/v1/things", json={"count": "many", "extra": 1}).json()
    assert sorted(issue["pointer"] for issue in body["errors"]) == ["/count", "/extra", "/name"]
    assert client.post("/v1/things", json={"name": 1}).json()["error"]["param"] == "name"


@pytest.mark.parametrize("path", PREFIXES)
@pytest.mark.parametrize("content_type", [None, "text/plain", "application/xml", "multipart/form-data"])
def test_a_wrong_content_type_is_415(path: str, content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {}
    answer = TestClient(make_app()).post(path, content=b'{"name":"x"}', headers=headers)
    assert answer.status_code == 415
    PREFIXES[path](answer.json(), 415)


@pytest.mark.parametrize("path", PREFIXES)
def test_unknown_paths_and_methods_follow_the_prefix(path: str) -> None:
    client = TestClient(make_app())
    for answer, status in ((client.get(path + "/nowhere/at/all"), 404), (client.delete(path), 405)):
        assert answer.status_code == status
        PREFIXES[path](answer.json(), status)
        assert "detail" not in answer.json() or "title" in answer.json()
    assert "POST" in client.delete(path).headers["allow"]


@pytest.mark.parametrize("path", PREFIXES)
def test_foreign_errors_tell_only_the_request_id(path: str, caplog: pytest.LogCaptureFixture) -> None:
    client = TestClient(make_app(), raise_server_exceptions=False)
    answer = client.get(path + "/fail", params={"how": "secret"}, headers={"x-request-id": "given-id-1"})
    assert answer.status_code == 500
    PREFIXES[path](answer.json(), 500)
    assert answer.headers["x-request-id"] == "given-id-1"
    assert "hunter2" not in answer.text
    assert "0x7f" not in answer.text
    found = [record for record in caplog.records if getattr(record, "request_id", None) == "given-id-1"]
    assert any(record.exc_info for record in found)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 406, 409, 413, 415, 418, 429, 500, 503])
def test_starlette_exceptions_lose_their_text(status: int) -> None:
    answer = TestClient(make_app()).get("/api/v1/things/fail", params={"how": status})
    check_native(answer.json(), answer.status_code)
    assert "foreign" not in answer.text
    assert answer.status_code == status
