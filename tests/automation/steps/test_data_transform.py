"""The step `data.transform`: SQL that sees its tables and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from tests.automation.steps.conftest import Bench

pytestmark = pytest.mark.slow

SALES = "shop,price,pieces\nNord,2.5,4\nSüd,3,1\nNord,1,2\n"


async def test_joins_files_and_rows_by_sql(bench: Bench) -> None:
    output = await bench.step(
        "data.transform",
        inputs={"sales": await bench.upload(SALES), "towns": [{"shop": "Nord", "town": "Kiel"}]},
        sql="SELECT town, sum(price * pieces) AS total FROM sales JOIN towns USING (shop) GROUP BY town -- end",
    )
    assert output["rows"] == 1
    assert output["columns"] == [{"name": "town", "type": "VARCHAR"}, {"name": "total", "type": "DOUBLE"}]
    assert output["preview"] == [{"town": "Kiel", "total": 12.0}]
    assert await bench.rows(output["file_id"]) == output["preview"]


async def test_shapes_one_table_without_sql(bench: Bench) -> None:
    output = await bench.step(
        "data.transform",
        input=await bench.upload(SALES),
        columns={"total": "price * pieces", "shop": "upper(shop)"},
        filter="total > 2",
        select=["shop", "total"],
        order=["-total"],
        limit=2,
    )
    assert output["preview"] == [{"shop": "NORD", "total": 10.0}, {"shop": "SÜD", "total": 3.0}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_csv('http://127.0.0.1:1/x')",
        "SELECT * FROM glob('/etc/*')",
        "COPY (SELECT 1) TO '/tmp/nexus-escaped'",
        "COPY sales TO 'sales'",
        "ATTACH '/tmp/other.db'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "DROP VIEW sales",
        "SELECT 1; SELECT 2",
        "SELECT 1) TO '/tmp/nexus-escaped' (FORMAT csv); SELECT (1",
        "SELECT getenv('HOME')",
        "SELECT missing FROM sales",
        "SELECT",
        "",
        "PRAGMA database_list",
        "SELECT * FROM bench",
    ],
)
async def test_reaches_nothing_but_its_tables(bench: Bench, sql: str) -> None:
    run = await bench.run("data.transform", inputs={"sales": [{"shop": "Nord", "price": 1}]}, sql=sql or "x")
    assert run.error is not None
    assert run.error.code == "query_invalid"
    assert run.error.field == "with.sql"
    assert "/tmp/nexus-data" not in run.error.message


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ({"columns": {"x": "1) FROM input; DROP VIEW input; SELECT (1"}}, "with.columns.x"),
        ({"columns": {"x": "1 FROM sales"}}, "with.columns.x"),
        ({"filter": "true) UNION SELECT * FROM read_text('/etc/passwd') WHERE (true"}, "with.filter"),
        ({"filter": "nothere > 1"}, "with.sql"),
        ({"select": ["nothere"]}, "with.sql"),
    ],
)
async def test_expressions_stay_expressions(bench: Bench, inputs: dict[str, Any], field: str) -> None:
    run = await bench.run("data.transform", input=[{"a": 1}], **inputs)
    assert run.error is not None
    assert (run.error.code, run.error.field) == ("query_invalid", field)


async def test_a_table_beyond_its_limit_is_refused(bench: Bench) -> None:
    run = await bench.run("data.transform", inputs={"t": [{"a": 1}]}, sql="SELECT * FROM range(100)", max_rows=99)
    assert run.error is not None
    assert run.error.field == "with.max_rows"


async def test_a_query_that_needs_too_much_memory_or_time_ends(bench: Bench) -> None:
    endless = "SELECT count(*) AS n FROM range(10000000000) a, range(10000000000) b WHERE a.range % 7 = b.range % 11"
    run = await bench.run("data.transform", inputs={"t": [{"a": 1}]}, sql=endless, timeout=1.5)
    assert run.error is not None
    assert run.error.code == "compute_timeout"
