"""kill -9 in the middle of extracting and loading: the next engine goes on at the chunk where it was cut off."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from tests.runs import killing
from tests.runs.killing import WHO, Yard, yard

import nexus.automation.tables
import nexus.files.tables  # noqa: F401  the database fixture creates what has been imported
from nexus.core.clock import SystemClock
from nexus.runs import storage
from nexus.runs.types import Run, RunSpec, StepSpec
from nexus.storage.db import Database

pytestmark = pytest.mark.slow
PAGES = 12


class Outside:
    """An API of 12 slow pages, that takes batches too and remembers all it was asked."""

    def __init__(self) -> None:
        self.pages: list[int] = []
        self.taken: Counter[str] = Counter()
        self.rows: dict[str, list[int]] = {}
        outside = self

        class Api(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = int(dict(parse_qsl(urlsplit(self.path).query))["page"])
                time.sleep(0.15)
                outside.pages.append(page)
                self._answer([{"id": page * 10 + n} for n in range(10)] if page < PAGES else [])

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                time.sleep(0.15)
                key = self.headers["idempotency-key"]
                outside.taken[key] += 1
                outside.rows[key] = [row["id"] for row in body]
                self._answer({})

            def _answer(self, body: Any) -> None:
                try:
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(json.dumps(body).encode())
                except OSError:
                    # Whoever asked was killed.
                    pass

            def log_message(self, *_args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def made(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(killing, "ENGINE", "tests.automation.data_engine")
    with yard(database, tmp_path, lease=30.0, heartbeat=0.5, reap=0.2) as ready:
        yield ready


@pytest.fixture
def outside() -> Any:
    there = Outside()
    yield there
    there.server.shutdown()
    there.server.server_close()


def start(made: Yard, uses: str, inputs: dict[str, Any]) -> Run:
    spec = RunSpec("test", "data", [StepSpec("one", uses, inputs)])
    run = made.db.write_now(storage.add_run, spec, WHO, SystemClock().now(), made.settings["republish"])[0]
    made.bell.ring("outbox")
    return run


def kill_when(made: Yard, condition: Any) -> None:
    engine = made.engine()
    made.until(condition, 60, "it never came so far")
    engine.kill()


def result(made: Yard, run: Run) -> dict[str, Any]:
    made.engine()
    made.until(lambda: made.all_ended([run]), 60, "the run did not end")
    stands = made.db.read_now(storage.run_with_steps, run.project_id, run.id)
    assert stands.status == "succeeded", stands
    return dict(stands.steps[0].output)


def test_extracting_goes_on_at_the_chunk_where_it_was_killed(made: Yard, outside: Outside) -> None:
    paging = {"by": "page", "parameter": "page", "start": 0}
    run = start(made, "data.extract", {"http": {"url": outside.url, "paging": paging, "chunk": 20}})
    kill_when(made, lambda: len(outside.pages) >= 7)
    before = len(outside.pages)
    output = result(made, run)
    assert output["rows"] == PAGES * 10
    again = outside.pages[before:]
    # Two chunks of two pages were kept at least, and are not asked for again; no chunk is missing or doubled.
    assert min(again) >= 4
    assert sorted(set(outside.pages)) == list(range(PAGES + 1))


def test_loading_goes_on_behind_the_batch_where_it_was_killed(made: Yard, outside: Outside) -> None:
    rows = [{"id": n} for n in range(50)]
    run = start(made, "data.load", {"rows": rows, "http": {"url": outside.url, "batch": 5}})
    kill_when(made, lambda: len(outside.taken) >= 4)
    assert result(made, run)["rows"] == 50
    assert sorted(one for batch in outside.rows.values() for one in batch) == list(range(50))
    # Only the batch in flight may be sent twice, under the same key.
    assert sum(outside.taken.values()) <= 11
    assert len(outside.taken) == 10
