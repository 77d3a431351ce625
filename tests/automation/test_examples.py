"""The shipped examples, one for each kind of task, each run on a real instance with real local models."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from nexus.automation.document import check_definition, read_document
from nexus.cli.instance import Place

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def upload(http: httpx2.Client, name: str) -> str:
    files = {"file": (name, (EXAMPLES / name).read_bytes(), "text/csv")}
    answer = http.post("/v1/files", files=files, data={"purpose": "user_data"})
    assert answer.status_code in (200, 201), answer.text
    return str(answer.json()["id"])


def apply(http: httpx2.Client, name: str) -> None:
    headers = {"content-type": "application/yaml"}
    answer = http.post("/api/v1/workflows", content=(EXAMPLES / f"{name}.yaml").read_bytes(), headers=headers)
    assert answer.status_code in (200, 201), answer.text


def ended(http: httpx2.Client, run_id: str, seconds: float = 120) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while True:
        run: dict[str, Any] = http.get(f"/api/v1/runs/{run_id}").json()
        if run["status"] in ("succeeded", "failed", "cancelled"):
            return run
        assert time.monotonic() < end, run
        time.sleep(0.2)


def run(http: httpx2.Client, name: str, **inputs: Any) -> dict[str, Any]:
    apply(http, name)
    started = http.post(f"/api/v1/workflows/{name}/runs", json={"inputs": inputs})
    assert started.status_code == 202, started.text
    done = ended(http, started.json()["id"])
    assert done["status"] == "succeeded", done
    return done


def content(http: httpx2.Client, file_id: str) -> bytes:
    answer = http.get(f"/v1/files/{file_id}/content")
    assert answer.status_code == 200, answer.text
    return bytes(answer.content)


def step(done: dict[str, Any], key: str) -> dict[str, Any]:
    return next(one for one in done["steps"] if one["key"] == key)


@pytest.fixture(scope="module", autouse=True)
def each_minute(place: Place) -> Iterator[None]:
    """The next minute comes while the other examples run: the one by the clock is the last test here."""
    headers = {"authorization": f"Bearer {place.key}"}
    with httpx2.Client(base_url=place.url, headers=headers, timeout=120, trust_env=False) as http:
        apply(http, "nightly-forecast")
        wanted = json.loads((EXAMPLES / "nightly-forecast.schedule.json").read_text())
        wanted |= {"inputs": {"sales": upload(http, "sales.csv")}, "cron": "* * * * *"}
        schedule = http.post("/api/v1/schedules", json=wanted)
        assert schedule.status_code == 201, schedule.text
        yield
        http.delete(f"/api/v1/schedules/{schedule.json()['id']}")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_is_named_as_its_file_and_says_what_it_does(path: Path) -> None:
    definition = check_definition(*read_document(path.read_bytes()))
    assert definition.name == path.stem
    assert definition.description


def test_a_graph(http: httpx2.Client) -> None:
    done = run(http, "sales-report", sales=upload(http, "sales.csv"))
    report = json.loads(content(http, done["result"]["report"]))
    assert report["rows"] == 60
    assert len(report["forecast"][0]["forecast"]) == 6
    assert done["result"]["unusual"] == len(report["unusual"])
    assert step(done, "forecast")["started_at"] < step(done, "unusual")["finished_at"]


def test_by_an_event(http: httpx2.Client) -> None:
    apply(http, "failure-note")
    made = http.post("/api/v1/triggers", json=json.loads((EXAMPLES / "failure-note.trigger.json").read_text()))
    assert made.status_code == 201, made.text
    broken = {
        "name": "example-broken",
        "steps": [{"key": "a", "uses": "data.transform", "with": {"inputs": {"t": [{"a": 1}]}, "sql": "SELECT b"}}],
    }  # fmt: skip
    try:
        assert http.post("/api/v1/workflows", json=broken).status_code in (200, 201)
        failed = http.post("/api/v1/workflows/example-broken/runs", json={"inputs": {}}).json()
        assert ended(http, failed["id"])["status"] == "failed"
        end = time.monotonic() + 30
        while not (runs := http.get("/api/v1/runs", params={"name": "failure-note"}).json()["data"]):
            assert time.monotonic() < end, "the event started nothing"
            time.sleep(0.2)
        done = ended(http, runs[0]["id"])
        assert done["status"] == "succeeded", done
        note = content(http, step(done, "note")["output"]["file_id"]).decode()
        assert note.startswith("example-broken failed (query_invalid): ")
    finally:
        http.delete(f"/api/v1/triggers/{made.json()['id']}")


@pytest.mark.parametrize(
    ("income", "debt", "sure", "decided"),
    [(9000, 100, 0.5, "grant"), (1500, 4000, 0.5, "refuse")],
)
def test_by_conditions(http: httpx2.Client, income: int, debt: int, sure: float, decided: str) -> None:
    given = {"income": income, "debt": debt, "job": "nurse", "sure": sure}
    done = run(http, "loan-decision", loans=upload(http, "loans.csv"), **given)
    others = {"ask", "grant", "refuse"} - {decided}
    assert step(done, decided)["status"] == "succeeded"
    assert {step(done, key)["status"] for key in others} == {"skipped"}


def test_with_language_models(http: httpx2.Client) -> None:
    done = run(http, "ticket-triage", message="I was charged twice for my order this month, please help me.")
    assert done["result"]["label"] in ("billing", "technical", "other")
    assert done["result"]["headline"]
    kept = json.loads(content(http, step(done, "keep")["output"]["file_id"]))
    assert len(kept["vector"]) == 384
    assert kept["draft"] == done["result"]["draft"]


def test_a_data_pipeline(http: httpx2.Client) -> None:
    done = run(http, "orders-pipeline", orders=upload(http, "orders.csv"))
    assert done["result"]["put_aside"] == 2
    assert [(row["shop"], row["total"]) for row in done["result"]["totals"]] == [("West", 36), ("Nord", 12), ("Süd", 3)]
    assert content(http, done["result"]["csv"]).decode().splitlines()[1] == "West,1,36.0,2026-01-05"
    assert content(http, done["result"]["database"]).startswith(b"SQLite format 3")


def test_by_the_clock(http: httpx2.Client) -> None:
    end = time.monotonic() + 90
    while not (runs := http.get("/api/v1/runs", params={"name": "nightly-forecast"}).json()["data"]):
        assert time.monotonic() < end, "the clock started nothing"
        time.sleep(0.2)
    done = ended(http, runs[0]["id"])
    assert done["status"] == "succeeded", done
    assert done["trigger"]["type"] == "schedule"
