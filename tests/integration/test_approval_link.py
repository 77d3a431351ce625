"""A link to an approval on a real instance: no credential, no cookie, and the run goes on."""

from __future__ import annotations

import time
from pathlib import Path

import httpx2
import pytest

from nexus.cli.instance import Place

pytestmark = pytest.mark.slow


def test_somebody_without_an_account_answers_by_a_link(http: httpx2.Client, place: Place, data_dir: Path) -> None:
    ask = {"key": "ask", "uses": "approval", "with": {"message": "Shall we?", "expires": 600}}
    http.post("/api/v1/workflows", json={"name": "by-link", "steps": [ask]}).raise_for_status()
    run = http.post("/api/v1/workflows/by-link/runs", json={"inputs": {}}).json()
    until = time.monotonic() + 30
    while not (asked := http.get("/api/v1/approvals", params={"run_id": run["id"]}).json()["data"]):
        assert time.monotonic() < until
        time.sleep(0.05)
    made = http.post(f"/api/v1/approvals/{asked[0]['id']}/link", json={"expires": 300})
    assert made.status_code == 201, made.text
    with httpx2.Client(base_url=place.url, trust_env=False, timeout=30) as stranger:
        page = stranger.get(made.json()["url"])
        assert "Shall we?" in page.text
        assert "form-action 'self'" in page.headers["content-security-policy"]
        origin = {"origin": place.url}
        done = stranger.post(made.json()["url"], data={"verdict": "approve"}, headers=origin)
        assert (done.status_code, "Approved" in done.text) == (200, True)
        assert stranger.post(made.json()["url"], data={"verdict": "reject"}).status_code == 409
        assert stranger.get("/hooks/approvals?token=x.y").status_code == 404
        assert stranger.delete(made.json()["url"]).status_code == 405
    while http.get(f"/api/v1/runs/{run['id']}").json()["status"] != "succeeded":
        assert time.monotonic() < until
        time.sleep(0.05)
    token = made.json()["url"].partition("?token=")[2]
    # Lines are written together, a moment late.
    while "/hooks/approvals" not in (log := (data_dir / "instance.log").read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert token not in log
