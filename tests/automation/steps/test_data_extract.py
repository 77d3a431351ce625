"""The step `data.extract`: files, databases and web APIs become tables."""

from __future__ import annotations

import gzip
import json
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from tests.automation.steps.conftest import Bench

from nexus.http import fetch

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "content",
    [
        "id;name\n1;Ä\n2;b\n",
        "id,name\n1,Ä\n2,b\n",
        '[{"id": 1, "name": "Ä"}, {"id": 2, "name": "b"}]',
        '{"id": 1, "name": "Ä"}\n{"id": 2, "name": "b"}\n',
        gzip.compress("id\tname\n1\tÄ\n2\tb\n".encode(), mtime=0),
    ],
)
async def test_knows_a_file_by_its_bytes(bench: Bench, content: str | bytes) -> None:
    output = await bench.step("data.extract", file={"file_id": await bench.upload(content)})
    assert output["preview"] == [{"id": 1, "name": "Ä"}, {"id": 2, "name": "b"}]
    assert [column["type"] for column in output["columns"]] == ["BIGINT", "VARCHAR"]


async def test_takes_the_types_that_are_given(bench: Bench) -> None:
    file = {"file_id": await bench.upload("zip,day\n01234,2026-01-01\n"), "types": {"zip": "text"}}
    output = await bench.step("data.extract", file=file)
    assert output["preview"] == [{"zip": "01234", "day": "2026-01-01"}]


@pytest.mark.parametrize(
    ("content", "words"),
    [("id,name\n1,a\n2,b,c,d\n", "not"), ("PAR1nonsense", "not a readable"), ("[{", "not a readable")],
)
async def test_says_that_a_file_is_no_table(bench: Bench, content: str, words: str) -> None:
    run = await bench.run("data.extract", file={"file_id": await bench.upload(content)})
    assert run.error is not None
    assert run.error.code == "data_unreadable"
    assert words in run.error.message
    assert "/" not in run.error.message


@pytest.fixture
def orders(tmp_path: Path) -> bytes:
    path = tmp_path / "orders.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, shop TEXT, total REAL, note TEXT)")
        connection.executemany(
            "INSERT INTO orders VALUES (?, ?, ?, ?)", [(n, f"s{n % 3}", n * 1.5, None) for n in range(1, 1001)]
        )
    connection.close()
    return path.read_bytes()


async def test_reads_a_database_by_a_query_with_parameters(bench: Bench, orders: bytes) -> None:
    url = f"sqlite:///{await bench.upload(orders)}"
    sql = {"url": url, "query": "SELECT id, total FROM orders WHERE shop = :shop", "parameters": {"shop": "s1' OR 1"}}
    assert (await bench.step("data.extract", sql=sql))["rows"] == 0
    sql["parameters"] = {"shop": "s1"}
    assert (await bench.step("data.extract", sql=sql))["rows"] == 334


async def test_reads_in_chunks_by_a_key(bench: Bench, orders: bytes) -> None:
    url = f"sqlite:///{await bench.upload(orders)}"
    sql = {"url": url, "query": "SELECT * FROM orders", "key": "id", "chunk": 300}
    output = await bench.step("data.extract", sql=sql)
    rows = await bench.rows(output["file_id"])
    assert [row["id"] for row in rows] == list(range(1, 1001))
    assert list(rows[0]) == ["id", "shop", "total", "note"]
    parts = await bench.files.page(bench.shop.who, purpose="workflow_part")
    assert parts == []


@pytest.mark.parametrize(
    ("url", "query", "code"),
    [
        ("sqlite:////etc/passwd", "SELECT 1", "database_not_allowed"),
        ("sqlite:///nexus.db", "SELECT 1", "database_not_allowed"),
        ("sqlite://", "SELECT 1", "database_not_allowed"),
        ("sqlite:///FILE?mode=rwc", "SELECT 1", "database_not_allowed"),
        ("mysql://a:b@c/d", "SELECT 1", "database_not_allowed"),
        ("postgresql:///d?host=/tmp", "SELECT 1", "database_not_allowed"),
        ("postgresql://u:secret-word@127.0.0.1/d", "SELECT 1", "database_not_allowed"),
        ("postgresql://u:secret-word@169.254.169.254/d?sslrootcert=/etc/passwd", "SELECT 1", "database_not_allowed"),
        ("nonsense", "SELECT 1", "database_not_allowed"),
        ("sqlite:///FILE", "DELETE FROM orders", "query_invalid"),
        ("sqlite:///FILE", "SELECT 1; DELETE FROM orders", "query_invalid"),
        ("sqlite:///FILE", "SELECT nothere FROM orders", "query_invalid"),
        ("sqlite:///FILE", "SELECT * FROM orders WHERE id = :missing", "query_invalid"),
        ("sqlite:///FILE", "ATTACH '/tmp/x.db' AS y", "query_invalid"),
        ("sqlite:///FILE", "SELECT load_extension('x')", "query_invalid"),
    ],
)
async def test_reads_no_other_database_and_changes_none(
    bench: Bench, orders: bytes, url: str, query: str, code: str
) -> None:
    fetch.configure([])
    file_id = await bench.upload(orders)
    run = await bench.run("data.extract", sql={"url": url.replace("FILE", file_id), "query": query})
    assert run.error is not None
    assert run.error.code == code, run.error
    assert "secret-word" not in run.error.message
    assert await bench.files.read(bench.shop.who, file_id) == orders


@pytest.fixture
def api() -> Iterator[tuple[str, list[str]]]:
    """An API of 25 records, paged in every way, that remembers which pages were asked for."""
    asked: list[str] = []
    records = [{"id": n, "tags": ["x"], "who": {"name": f"n{n}"}} for n in range(25)]

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query))
            if parts.path == "/broken":
                self.send_response(503)
                self.send_header("retry-after", "9")
                self.end_headers()
                return
            start = {
                "/page": (int(query.get("page", 1)) - 1) * 10,
                "/offset": int(query.get("offset", 0)),
                "/cursor": int(query.get("after", 0)),
                "/next": int(query.get("at", 0)),
                "/link": int(query.get("at", 0)),
                "/self": 0,
            }[parts.path]
            found, more = records[start : start + 10], start + 10 < 25
            body: Any = {"data": {"items": found}, "meta": {"next": str(start + 10) if more else None}}
            if parts.path == "/next":
                body["meta"]["next"] = f"/next?at={start + 10}" if more else None
            if parts.path == "/self":
                body["meta"]["next"] = self.path
            self.send_response(200)
            if parts.path == "/link" and more:
                self.send_header("link", f'</link?at={start + 10}>; rel="next"')
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    fetch.configure(["127.0.0.0/8"])
    yield f"http://127.0.0.1:{server.server_port}", asked
    fetch.configure([])
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "paging"),
    [
        ("/page", {"by": "page", "parameter": "page", "size": 10, "size_parameter": "size"}),
        ("/offset", {"by": "offset", "parameter": "offset"}),
        ("/cursor", {"by": "cursor", "parameter": "after", "next": "meta.next"}),
        ("/next", {"by": "next_url", "next": "meta.next"}),
        ("/link", {"by": "link_header"}),
    ],
)
async def test_reads_an_api_page_by_page(
    bench: Bench, api: tuple[str, list[str]], path: str, paging: dict[str, Any]
) -> None:
    http = {"url": f"{api[0]}{path}", "records": "data.items", "paging": paging, "chunk": 10}
    output = await bench.step("data.extract", http=http)
    rows = await bench.rows(output["file_id"])
    assert [row["id"] for row in rows] == list(range(25))
    assert rows[0]["who"] == '{"name":"n0"}'


@pytest.mark.parametrize(
    ("path", "records", "code"),
    [
        ("/broken", None, "request_failed_for_now"),
        ("/page", "data.nothing", "data_unreadable"),
        ("/self", "data.items", "data_unreadable"),
    ],
)
async def test_says_what_an_api_does_wrong(
    bench: Bench, api: tuple[str, list[str]], path: str, records: str | None, code: str
) -> None:
    paging = {"by": "next_url", "next": "meta.next"}
    run = await bench.run("data.extract", http={"url": api[0] + path, "records": records, "paging": paging})
    assert run.error is not None
    assert run.error.code == code
