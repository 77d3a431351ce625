"""The step `data.load`: what was written stays written once, however often it is tried."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.automation.steps.conftest import Bench

from nexus.automation.errors import WorkflowInvalid
from nexus.http import fetch

pytestmark = pytest.mark.slow

ROWS = [{"id": n, "name": f"n{n}", "ok": True, "day": "2026-01-01"} for n in range(1, 12)]


@pytest.mark.parametrize(
    ("format_", "begins"),
    [("csv", "id,name\n1,a\n"), ("jsonl", '{"id":1,"name":"a"}'), ("json", "[\n"), ("parquet", "PAR1")],
)
async def test_writes_files(bench: Bench, format_: str, begins: str) -> None:
    output = await bench.step("data.load", rows=[{"id": 1, "name": "a"}], file={"name": "out", "format": format_})
    content = await bench.files.read(bench.shop.who, output["file_id"])
    assert content.startswith(begins.encode())


async def opened(bench: Bench, file_id: str, query: str) -> list[tuple[Any, ...]]:
    path = await bench.files.path(bench.shop.who, file_id)
    connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


async def test_makes_a_database_and_writes_it_again_by_key(bench: Bench) -> None:
    sql = {"url": "sqlite://", "table": "people", "key": ["id"], "chunk": 4}
    first = await bench.step("data.load", rows=ROWS, sql=sql)
    assert (first["rows"], first["chunks"]) == (11, 3)
    sql["url"] = f"sqlite:///{first['file_id']}"
    changed = [
        {"id": 2, "name": "new", "ok": False, "day": "2026-02-02"},
        {"id": 99, "name": "z", "ok": True, "day": "x"},
    ]
    second = await bench.step("data.load", rows=changed, sql=sql)
    found = await opened(bench, second["file_id"], "SELECT id, name FROM people ORDER BY id")
    assert len(found) == 12
    assert found[1] == (2, "new")
    assert len(await opened(bench, first["file_id"], "SELECT * FROM people")) == 11


async def test_replaces_all_rows_at_once(bench: Bench) -> None:
    sql = {"url": "sqlite://", "table": "people", "mode": "append"}
    first = await bench.step("data.load", rows=ROWS, sql=sql)
    sql = {"url": f"sqlite:///{first['file_id']}", "table": "people", "mode": "replace", "chunk": 1}
    second = await bench.step("data.load", rows=ROWS[:3], sql=sql)
    assert await opened(bench, second["file_id"], "SELECT count(*) FROM people") == [(3,)]


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ({"table": "t", "key": ["nothere"]}, "data_invalid"),
        ({"table": "t", "key": ["id"], "create": False}, "database_refused"),
    ],
)
async def test_says_what_cannot_be_written(bench: Bench, sql: dict[str, Any], code: str) -> None:
    run = await bench.run("data.load", rows=ROWS, sql={"url": "sqlite://", **sql})
    assert run.error is not None
    assert run.error.code == code, run.error


@pytest.mark.parametrize("sql", [{"table": "t"}, {"table": "t; DROP TABLE x", "key": ["id"]}, {"table": "a.b.c"}])
async def test_a_definition_that_could_double_rows_is_refused(bench: Bench, sql: dict[str, Any]) -> None:
    with pytest.raises(WorkflowInvalid):
        await bench.run("data.load", rows=ROWS, sql={"url": "sqlite://", **sql})


@pytest.fixture
def taker() -> Iterator[tuple[str, Counter[str], list[Any], dict[str, int]]]:
    """An API that takes batches and counts them by key; it breaks at the batch that `fails` names."""
    keys: Counter[str] = Counter()
    bodies: list[Any] = []
    fails = {"at": -1}

    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if len(bodies) == fails["at"]:
                fails["at"] = -1
                self.send_response(500)
            else:
                keys[self.headers["idempotency-key"]] += 1
                bodies.append(body)
                self.send_response(204)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Taker)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    fetch.configure(["127.0.0.0/8"])
    yield f"http://127.0.0.1:{server.server_port}", keys, bodies, fails
    fetch.configure([])
    server.shutdown()
    server.server_close()


async def test_sends_batches_and_goes_on_behind_the_last_one(bench: Bench, taker: Any) -> None:
    url, keys, bodies, fails = taker
    fails["at"] = 2
    definition = {
        "steps": [
            {"key": "one", "uses": "data.load", "retries": {"max": 2, "base": 0.1},
             "with": {"rows": ROWS, "http": {"url": url, "batch": 3, "wrap": "people"}}}
        ]
    }  # fmt: skip
    run = await bench.shop.run(definition)
    assert run.error is None
    assert run.steps[0].attempts == 2
    assert [row["id"] for body in bodies for row in body["people"]] == list(range(1, 12))
    assert set(keys.values()) == {1}
    assert list(keys) == [f"{run.id}.one.0.{offset}" for offset in (0, 3, 6, 9)]
