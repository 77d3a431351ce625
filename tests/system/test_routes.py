"""The installation as its operator sees it, on a real instance."""

from __future__ import annotations

import json

import httpx2
import pytest

from nexus import __version__

pytestmark = pytest.mark.slow


def test_info_and_health(http: httpx2.Client) -> None:
    info = http.get("/api/v1/system/info").json()
    assert (info["version"], info["mode"], info["database"]) == (__version__, "embedded", "sqlite")
    health = http.get("/api/v1/system/health").json()
    assert {c["name"]: c["status"] for c in health["components"]} == {
        "database": "ok", "engine": "ok", "cache": "ok", "disk": "ok",
    }  # fmt: skip


def test_metrics_of_the_machine_and_of_prometheus(http: httpx2.Client) -> None:
    samples = http.get("/api/v1/system/metrics", params={"limit": 5}).json()["data"]
    assert samples
    assert {"ts", "cpu", "memory", "disk", "network", "process", "gpu"} <= set(samples[-1])
    text = http.get("/metrics").text
    assert "nexus_http_requests_total" in text


def test_config_shows_no_secret(http: httpx2.Client) -> None:
    text = http.get("/api/v1/system/config").text
    assert '"data_dir"' in text
    assert "secret.key" not in text
    assert "nx_" not in text


def test_one_stream_carries_every_topic(http: httpx2.Client) -> None:
    seen: set[str] = set()
    with http.stream("GET", "/api/v1/events", params={"topics": "system,models"}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("event: "):
                seen.add(line[7:])
            if line.startswith("data: "):
                json.loads(line[6:])
            if {"system", "models"} <= seen:
                break
    assert http.get("/api/v1/events", params={"topics": "weather"}).status_code == 422


def test_every_error_code_is_listed(http: httpx2.Client) -> None:
    codes = {item["code"]: item["status"] for item in http.get("/api/v1/errors").json()["data"]}
    assert codes["model_not_found"] == 404
    assert codes["internal_error"] == 500
    assert all(400 <= status < 600 for status in codes.values())
