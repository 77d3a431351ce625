"""Bad input gets the right 4xx in the caller's dialect, names the field, and echoes nothing."""

from __future__ import annotations

import io
import re
import zlib
from typing import Any

import httpx2
import pytest

pytestmark = pytest.mark.slow
LEAK = re.compile(r"0x[0-9a-f]{6,}|Traceback|/site-packages|/src/nexus|postgres(ql)?://|nx_[a-z0-9]{8}_|sqlite3?\.")
YAML = {"content-type": "application/yaml"}
JSON = {"content-type": "application/json"}


def bomb() -> bytes:
    """A PNG of 30000 x 30000 pixels in about 100 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    row = b"\0" * (30_000 // 8 + 1)
    body = zlib.compress(row * 30_000, 9)
    header = (30_000).to_bytes(4, "big") * 2 + b"\x01\x00\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "nexus-local", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, **more}


TOOLS = [{"type": "function", "function": {"name": "f"}}]
TEXT_IN_Y = "ds,y\n2024-01-01,1\n2024-02-01,x\n"
UNKNOWN_STEP = b"name: x\nsteps: [{key: a, uses: no.such}]"
SHORT = "ds,y\n2024-01-01,1\n2024-02-01,2\n"


def upload(field: str, content: bytes | str, name: str = "x.bin") -> dict[str, Any]:
    return {"files": {field: (name, io.BytesIO(content.encode() if isinstance(content, str) else content))}}


CASES: list[tuple[str, str, dict[str, Any], int, str]] = [
    # vision
    ("POST", "/api/v1/vision/ocr", upload("image", b"not an image"), 422, "image"),
    ("POST", "/api/v1/vision/detect", upload("image", b"\x89PNG\r\n\x1a\n" + b"\0" * 50), 422, "image"),
    ("POST", "/api/v1/vision/classify", upload("image", b""), 422, "image"),
    ("POST", "/api/v1/vision/ocr", {"json": {}}, 422, "image"),
    ("POST", "/api/v1/vision/ocr", {"json": {"file_id": "file_nothing"}}, 404, "file"),
    ("POST", "/api/v1/vision/ocr", {"json": {"url": "http://169.254.169.254/latest"}}, 400, "url"),
    ("POST", "/api/v1/vision/no-such-task", upload("image", b"x"), 404, "task"),
    ("POST", "/api/v1/vision/ocr", {"content": b"x", "headers": {"content-type": "text/plain"}}, 415, "content"),
    # language
    ("POST", "/v1/chat/completions", {"json": chat(model="gpt-17")}, 404, "model"),
    ("POST", "/v1/chat/completions", {"json": chat(messages=[])}, 400, "messages"),
    ("POST", "/v1/chat/completions", {"json": chat(messages="hello")}, 400, "messages"),
    ("POST", "/v1/chat/completions", {"json": chat(temperature="hot")}, 400, "temperature"),
    ("POST", "/v1/chat/completions", {"json": {"messages": []}}, 400, "model"),
    ("POST", "/v1/chat/completions", {"content": b"{", "headers": JSON}, 400, "JSON"),
    ("POST", "/v1/chat/completions", {"content": b'{"model": NaN}', "headers": JSON}, 400, "JSON"),
    ("POST", "/v1/chat/completions", {"content": b'{"model": "a\\u0000b", "messages": []}', "headers": JSON}, 400, ""),
    ("POST", "/v1/chat/completions", {"content": b'{"model": "\\ud800", "messages": []}', "headers": JSON}, 400, ""),
    ("POST", "/v1/chat/completions", {"content": b"[" * 100_000, "headers": JSON}, 400, ""),
    ("POST", "/v1/chat/completions", {"content": b"9" * 5_000, "headers": JSON}, 400, ""),
    ("POST", "/v1/chat/completions", {"json": chat(tools=TOOLS)}, 400, "tools"),
    ("POST", "/v1/embeddings", {"json": {"model": "minilm-l6-v2", "input": []}}, 400, "input"),
    ("POST", "/v1/chat/completions", {"content": b" " * 40_000_000, "headers": JSON}, 413, ""),
    ("POST", "/v1/chat/completions", {"json": chat(messages=[{"role": "user", "content": "x" * 10_000_000}])}, 413, ""),
    ("POST", "/api/v1/keys", {"content": b" " * 10_000_000, "headers": JSON}, 413, ""),
    ("POST", "/api/v1/workflows", {"content": b"#" * 10_000_000, "headers": YAML}, 413, ""),
    # analytics
    ("POST", "/api/v1/forecasts", {**upload("file", TEXT_IN_Y), "data": {"horizon": "3"}}, 422, "y"),
    ("POST", "/api/v1/forecasts", {**upload("file", "ds,y\n2024-01-01,1\n"), "data": {"horizon": "3"}}, 422, ""),
    ("POST", "/api/v1/forecasts", {**upload("file", b"\x00\x01\x02"), "data": {"horizon": "3"}}, 422, ""),
    ("POST", "/api/v1/forecasts", {**upload("file", SHORT), "data": {"horizon": "0"}}, 422, "horizon"),
    ("POST", "/api/v1/forecasts", {"json": {"series": [], "horizon": 1}}, 422, "series"),
    ("POST", "/api/v1/models/none/predict", {"json": {"rows": [{"a": 1}]}}, 404, "model"),
    ("POST", "/api/v1/training-runs", {"json": {"name": "x", "dataset_id": "ds_none", "target": "y"}}, 404, "dataset"),
    # automation
    ("POST", "/api/v1/workflows", {"content": b"name: [", "headers": YAML}, 422, "line 1"),
    ("POST", "/api/v1/workflows", {"content": UNKNOWN_STEP, "headers": YAML}, 422, "steps.0.uses"),
    ("POST", "/api/v1/workflows", {"content": b"x", "headers": {"content-type": "text/html"}}, 415, "yaml"),
    ("POST", "/api/v1/workflows/none/runs", {"json": {"inputs": {}}}, 404, "workflow"),
    ("POST", "/api/v1/workflows/none/runs", {"json": {"inputs": {}, "project_id": "prj_x"}}, 422, "project_id"),
    ("GET", "/api/v1/runs/run_none", {}, 404, "run"),
    ("GET", "/api/v1/runs?limit=0", {}, 422, "limit"),
    ("GET", "/api/v1/runs?cursor=forged", {}, 422, "cursor"),
    ("GET", "/v1/files/%2e%2e%2f%2e%2e%2fetc%2fpasswd", {}, 404, ""),
    # everywhere
    ("GET", "/api/v1/none", {}, 404, "not_found"),
    ("DELETE", "/v1/models", {}, 405, ""),
    ("POST", "/api/v1/keys", {"json": {"name": "x", "is_admin": True}}, 422, "is_admin"),
]  # fmt: skip


def refused(http: httpx2.Client, method: str, path: str, request_: dict[str, Any], status: int, names: str) -> None:
    """Ask, and look at everything that a refusal must say."""
    answer = http.request(method, path, **request_)
    assert answer.status_code == status, answer.text[:500]
    assert names.lower() in answer.text.lower(), answer.text[:500]
    assert not LEAK.search(answer.text), answer.text[:500]
    assert answer.headers["x-request-id"]
    body = answer.json()
    if path.startswith("/v1/"):
        assert set(body) == {"error"}
        assert {"message", "type", "param", "code"} <= set(body["error"])
    else:
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert {"type", "title", "status", "detail", "code", "request_id"} <= set(body)


@pytest.mark.parametrize(
    ("method", "path", "request_", "status", "names"), CASES, ids=[f"{c[1]}-{i}" for i, c in enumerate(CASES)]
)
def test_is_refused_clearly(
    http: httpx2.Client, method: str, path: str, request_: dict[str, Any], status: int, names: str
) -> None:
    refused(http, method, path, request_, status, names)


def test_a_picture_too_large_to_unpack_is_refused_clearly(http: httpx2.Client) -> None:
    refused(http, "POST", "/api/v1/vision/ocr", upload("image", bomb()), 413, "image")


@pytest.mark.parametrize("path", ["/v1/models", "/api/v1/runs", "/api/v1/models", "/metrics", "/openapi.json"])
@pytest.mark.parametrize("key", ["nx_short", "nx_" + "a" * 8 + "_" + "b" * 43 + "_cccccc", "' OR 1=1--", "x" * 8_000])
def test_a_wrong_key_opens_nothing(http: httpx2.Client, path: str, key: str) -> None:
    headers = {"authorization": f"Bearer {key}"}
    if path == "/metrics":
        headers["x-forwarded-for"] = "8.8.8.8"
    answer = http.get(path, headers=headers)
    assert answer.status_code == 401 or (path == "/metrics" and answer.status_code == 200), answer.text[:300]
    assert key not in answer.text
