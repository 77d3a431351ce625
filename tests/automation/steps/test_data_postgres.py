"""Data steps with a real PostgreSQL, reached over TCP as a user's would be."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from tests.automation.steps.conftest import Bench

from nexus.http import fetch

pytestmark = pytest.mark.slow


@pytest.fixture
def server(postgres_url: str) -> Iterator[str]:
    """A TCP door to the test's PostgreSQL, which listens on a socket of the file system only."""
    folder = parse_qs(urlsplit(postgres_url).query)["host"][0]
    door = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = door.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(f"{folder}/.s.PGSQL.5432")
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
        connection.execute(
            "CREATE TABLE orders (id bigint PRIMARY KEY, total numeric(10,2), at timestamptz, tags jsonb, note text)"
        )
        connection.execute(
            "INSERT INTO orders SELECT n, n * 1.25, '2026-01-01'::timestamptz + n * interval '1 hour',"
            " '{\"a\": 1}', CASE WHEN n > 900 THEN 'late' END FROM generate_series(1, 1000) n"
        )
    fetch.configure(["127.0.0.0/8"])
    yield f"postgresql://postgres@127.0.0.1:{door.getsockname()[1]}/postgres?sslmode=disable"
    fetch.configure([])
    door.close()


@pytest.mark.parametrize("key", [None, "id", "at"])
async def test_reads_typed_rows_whole_and_in_chunks(bench: Bench, server: str, key: str | None) -> None:
    query = "SELECT id, total, at, tags, note FROM orders WHERE total::float > :least"
    sql = {"url": server, "query": query, "parameters": {"least": 2.5}, "key": key, "chunk": 300}
    output = await bench.step("data.extract", sql=sql)
    assert output["rows"] == 998
    assert {column["name"]: column["type"] for column in output["columns"]} == {
        "id": "BIGINT",
        "total": "DECIMAL(6,2)",
        "at": "TIMESTAMP WITH TIME ZONE",
        "tags": "VARCHAR",
        "note": "VARCHAR",
    }
    rows = await bench.rows(output["file_id"])
    assert {row["id"] for row in rows} == set(range(3, 1001))
    assert rows[-1]["note"] == "late"


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM orders",
        "SELECT 1) AS x; DELETE FROM orders; SELECT * FROM (SELECT 1",
        "SELECT 1; COMMIT; DELETE FROM orders",
        "WITH gone AS (DELETE FROM orders RETURNING 1) SELECT * FROM gone",
        "SELECT nothere FROM orders",
    ],
)
async def test_a_query_changes_nothing(bench: Bench, server: str, postgres_url: str, query: str) -> None:
    run = await bench.run("data.extract", sql={"url": server, "query": query})
    assert run.error is not None
    assert run.error.code in ("query_invalid", "database_refused"), run.error
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (1000,)


async def test_writes_once_however_often_it_is_tried(bench: Bench, server: str, postgres_url: str) -> None:
    rows = [{"id": n, "name": f"n{n}", "score": n / 2} for n in range(25)]
    for _ in range(2):
        await bench.step("data.load", rows=rows, sql={"url": server, "table": "people", "key": ["id"], "chunk": 10})
    await bench.step("data.load", rows=rows, sql={"url": server, "table": "log", "mode": "append", "chunk": 10})
    await bench.step("data.load", rows=rows[:2], sql={"url": server, "table": "people", "mode": "replace"})
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM people").fetchone() == (2,)
        assert connection.execute("SELECT count(*), max(score) FROM log").fetchone() == (25, 12.0)
        assert connection.execute("SELECT count(*) FROM nexus_loads").fetchone() == (3,)


async def test_a_server_that_is_away_is_worth_a_retry(bench: Bench) -> None:
    fetch.configure(["127.0.0.0/8"])
    run = await bench.run("data.extract", sql={"url": "postgresql://u:secret-word@127.0.0.1:1/d", "query": "SELECT 1"})
    fetch.configure([])
    assert run.error is not None
    assert run.error.code == "database_away"
    assert "secret-word" not in run.error.message
