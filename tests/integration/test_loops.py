"""Workflows that start themselves over the API of a real instance: an end, whatever they do."""

from __future__ import annotations

import time

import httpx2
import pytest

from nexus.automation.chains import DEEPEST
from nexus.cli.instance import Place

pytestmark = pytest.mark.slow


def test_a_workflow_that_starts_itself_comes_to_an_end(http: httpx2.Client, place: Place) -> None:
    http.post("/api/v1/secrets", json={"name": "OWN_KEY", "value": place.key}).raise_for_status()
    call = {
        "method": "POST",
        "url": f"{place.url}/api/v1/workflows/by-itself/runs",
        "headers": {"authorization": "Bearer {{ secrets.OWN_KEY }}"},
        "json": {"inputs": {}},
    }
    definition = {"name": "by-itself", "steps": [{"key": "again", "uses": "http.request", "with": call}]}
    http.post("/api/v1/workflows", json=definition).raise_for_status()
    http.post("/api/v1/workflows/by-itself/runs", json={"inputs": {}}).raise_for_status()
    until = time.monotonic() + 60
    while True:
        runs = http.get("/api/v1/runs", params={"name": "by-itself", "limit": 100}).json()["data"]
        if all(run["status"] in ("succeeded", "failed") for run in runs):
            break
        assert time.monotonic() < until, runs
        time.sleep(0.2)
    assert [run["status"] for run in runs] == ["failed"] + ["succeeded"] * DEEPEST
    assert [run["trigger"].get("depth") for run in runs] == [*range(DEEPEST, 0, -1), None]
    failed = http.get(f"/api/v1/runs/{runs[0]['id']}").json()
    assert "422" in failed["error"]["message"], failed
