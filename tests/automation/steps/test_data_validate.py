"""The step `data.validate`: rules, schemas, and what becomes of rows that break them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.automation.steps.conftest import Bench

from nexus.automation.errors import WorkflowInvalid

pytestmark = pytest.mark.slow

ORDERS = "id,number,total,day\n1,INV-1,5,2026-01-01\n2,INV-2,,2026-01-02\n2,X-3,900,2026-01-03\n4,INV-4,7,2026-02-01\n"
RULES: list[dict[str, Any]] = [
    {"column": "id", "not_null": True, "unique": True},
    {"column": "total", "not_null": True, "min": 0, "max": 100},
    {"column": "number", "like": "INV-%"},
    {"column": "day", "max": "2026-01-31"},
]


async def test_parts_the_rows_and_says_why(bench: Bench) -> None:
    output = await bench.step("data.validate", file_id=await bench.upload(ORDERS), rules=RULES, on_problem="quarantine")
    assert (output["valid"], output["rows"], output["invalid_rows"]) == (False, 1, 3)
    assert output["broken"] == {
        "id: unique": 2, "total: not_null": 1, "total: max": 1, "number: like": 1, "day: max": 1
    }  # fmt: skip
    assert output["problems"][0] == {"row": 2, "problem": "id: unique"}
    assert [row["number"] for row in await bench.rows(output["file_id"])] == ["INV-1"]
    rejected = await bench.rows(output["quarantine_file_id"])
    assert [row["_problems"] for row in rejected] == [
        ["id: unique", "total: not_null"], ["id: unique", "total: max", "number: like"], ["day: max"]
    ]  # fmt: skip


async def test_fails_with_the_first_row_that_does_not_hold(bench: Bench) -> None:
    run = await bench.run("data.validate", file_id=await bench.upload(ORDERS), rules=RULES)
    assert run.error is not None
    assert run.error.code == "data_invalid"
    assert "3 of 4 rows" in run.error.message
    assert "row 2, id: unique" in run.error.message


async def test_warns_and_passes_all_rows_on(bench: Bench) -> None:
    output = await bench.step("data.validate", file_id=await bench.upload(ORDERS), rules=RULES, on_problem="warn")
    assert (output["valid"], output["rows"], output["invalid_rows"]) == (False, 4, 3)
    assert output["quarantine_file_id"] is None


async def test_checks_each_row_by_a_json_schema(bench: Bench) -> None:
    schema = {
        "type": "object",
        "properties": {"mail": {"type": "string", "format": "email"}, "age": {"type": "integer", "minimum": 0}},
        "required": ["mail"],
    }
    rows = [{"mail": "a@b.example", "age": 3}, {"mail": "nonsense", "age": 3}, {"mail": "c@d.example", "age": -1}]
    output = await bench.step("data.validate", rows=rows, schema=schema, on_problem="quarantine")
    assert (output["rows"], output["invalid_rows"], output["broken"]) == (1, 2, {"schema": 2})


async def test_all_that_holds_is_valid(bench: Bench) -> None:
    output = await bench.step("data.validate", rows=[{"a": 1}, {"a": 2}], rules=[{"column": "a", "unique": True}])
    assert (output["valid"], output["rows"], output["problems"]) == (True, 2, [])


@pytest.mark.parametrize(
    ("inputs", "code", "words"),
    [
        ({"min_rows": 3}, "data_invalid", "at least 3"),
        ({"max_rows": 1, "on_problem": "quarantine"}, "data_invalid", "at most 1"),
        ({"rules": [{"column": "zzz", "not_null": True}]}, "data_invalid", "no column zzz"),
        ({"rules": [{"column": "b", "min": 3}]}, "data_invalid", "no numbers"),
        ({"rules": [{"column": "a", "min": "x' OR '1"}]}, "query_invalid", "Conver"),
        ({"schema": {"type": "nonsense"}}, "schema_invalid", "schema"),
    ],
)
async def test_says_what_cannot_be_checked(bench: Bench, inputs: dict[str, Any], code: str, words: str) -> None:
    run = await bench.run("data.validate", rows=[{"a": 1, "b": "x"}, {"a": 2, "b": "it's"}], **inputs)
    assert run.error is not None
    assert run.error.code == code, run.error
    assert words in run.error.message


async def test_a_step_that_checks_nothing_is_refused_where_it_is_defined(bench: Bench) -> None:
    with pytest.raises(WorkflowInvalid, match=r"steps\.0\.with: .*give rules"):
        await bench.run("data.validate", rows=[{"a": 1}])


async def test_a_value_with_quotes_stays_a_value(bench: Bench) -> None:
    rules = [{"column": "b", "in": ["it's", "x') OR true --"]}]
    output = await bench.step("data.validate", rows=[{"b": "it's"}, {"b": "y"}], rules=rules, on_problem="warn")
    assert output["broken"] == {"b: in": 1}
