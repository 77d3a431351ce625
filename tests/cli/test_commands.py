"""Commands against a real instance, as a person at this machine uses them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nexus.cli.connection import connect
from nexus.cli.instance import Place
from nexus.smoke import loans_csv, monthly_csv, receipt_png

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def nexus(place: Place, data_dir: Path) -> object:
    def run(*arguments: str, status: int = 0) -> str:
        command = [sys.executable, "-m", "nexus", *arguments, "--data-dir", str(data_dir)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + (done.stderr if status else "")

    return run


def test_chat_and_embed(nexus) -> None:  # type: ignore[no-untyped-def]
    assert nexus("chat", "Say hello.", "--max-tokens", "8").strip()
    body = json.loads(nexus("chat", "Say hello.", "--max-tokens", "8", "--json"))
    assert body["usage"]["completion_tokens"] > 0
    assert len(json.loads(nexus("embed", "a cat", "--json"))["data"][0]["embedding"]) == 384
    assert "model_not_found" in nexus("chat", "x", "--model", "no-such", status=1)


def test_vision(nexus, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    image = tmp_path / "receipt.png"
    image.write_bytes(receipt_png())
    found = json.loads(nexus("vision", "ocr", str(image), "--json"))
    assert "BAKERY" in found["text"].upper()
    nexus("vision", "ocr", str(image), "-o", str(tmp_path / "out.png"))
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_forecast_train_predict(nexus, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    sales, loans = tmp_path / "sales.csv", tmp_path / "loans.csv"
    sales.write_text(monthly_csv())
    loans.write_text(loans_csv())
    assert len(json.loads(nexus("forecast", str(sales), "--horizon", "3", "--json"))["series"][0]["forecast"]) == 3
    run = json.loads(nexus("train", str(loans), "--target", "repaid", "--name", "cli-loans", "--json"))
    assert run["status"] == "succeeded"
    some = tmp_path / "some.csv"
    some.write_text("income,debt,job\n5200,300,clerk\n")
    assert json.loads(nexus("predict", "cli-loans", str(some), "--json"))["predictions"][0]["label"] == "yes"


def test_workflows_schedules_and_triggers(nexus, data_dir: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    definition = tmp_path / "tick.yaml"
    definition.write_text("name: tick\nsteps: [{key: a, uses: wait, with: {seconds: 0.01}}]\n")
    nexus("workflows", "apply", str(definition))
    assert "tick" in nexus("workflows", "list")
    with connect(data_dir, None, None) as client:
        given = {"name": "daily", "workflow": "tick", "cron": "30 7 * * *", "timezone": "Europe/Berlin"}
        client.json("POST", "/api/v1/schedules", json=given)
        heard = {"name": "heard", "kind": "event", "workflow": "tick", "config": {"types": ["model.*"]}}
        client.json("POST", "/api/v1/triggers", json=heard)
    (listed,) = json.loads(nexus("schedules", "list", "--json"))
    assert (listed["name"], listed["enabled"]) == ("daily", True)
    assert "daily" in nexus("schedules", "list")
    times = nexus("schedules", "next", "daily", "--count", "3").split()
    assert len(times) == 3
    assert all("T07:30:00+0" in time for time in times)
    nexus("schedules", "pause", "daily")
    assert "paused" in nexus("schedules", "list")
    assert nexus("schedules", "resume", "daily").strip() == listed["next_fire_at"]
    assert "schedule_not_found" in nexus("schedules", "next", "nobody", status=1)
    assert "heard" in nexus("triggers", "list")
    assert json.loads(nexus("triggers", "list", "--json"))[0]["last_error"] is None


def test_workflows_and_runs(nexus, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    nexus("workflows", "apply", str(ROOT / "examples" / "receipt-to-note.yaml"))
    image = tmp_path / "receipt.png"
    image.write_bytes(receipt_png())
    run = json.loads(nexus("workflows", "run", "receipt-to-note", "-i", f"image=@{image}", "--json"))
    assert run["status"] == "succeeded"
    assert run["id"] in nexus("runs", "list", "--json")
    assert "succeeded" in nexus("runs", "list")
    assert "nexus-local did" in nexus("runs", "logs", run["id"])
    assert "missing" in nexus("workflows", "run", "receipt-to-note", status=1)


def test_models_usage_and_keys(nexus) -> None:  # type: ignore[no-untyped-def]
    assert "smollm2-135m-instruct" in nexus("models", "list", "--json")
    assert "licence" in nexus("models", "show", "smollm2-135m-instruct")
    assert json.loads(nexus("usage", "--by", "kind", "--json"))["data"]
    key = json.loads(nexus("keys", "create", "for a test", "--scope", "llm:invoke", "--json"))
    assert key["id"] in nexus("keys", "list", "--json")
    assert "for a test" in nexus("keys", "list")
    nexus("keys", "revoke", key["id"])
