"""Rows checked by rules and by a JSON Schema, and parted into those that hold and those that do not.

Runs in a compute child, a batch of rows at a time. Rules are conditions of SQL made here; users write values only.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nexus.automation.data.duck import leashed, named, quoted, sql_errors
from nexus.automation.data.values import plain
from nexus.automation.errors import DataInvalid

if TYPE_CHECKING:
    import pyarrow as pa

PROBLEMS: Final = "_problems"
_BATCH: Final = 10_000
_SHOWN: Final = 20
_OF_SCHEMA: Final = "schema: "
_NUMBERS: Final = ("INT", "DOUBLE", "FLOAT", "DECIMAL")


@dataclass(frozen=True, slots=True)
class Rule:
    """What must hold of one column. Nulls break `not_null` only. `like` has % and _ as in SQL."""

    column: str
    not_null: bool = False
    unique: bool = False
    min: float | str | None = None
    max: float | str | None = None
    min_length: int | None = None
    max_length: int | None = None
    among: list[Any] | None = None
    like: str | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """How it went: the counts, how often each rule was broken, and the first problems with their rows."""

    good: int
    bad: int
    broken: dict[str, int] = field(default_factory=dict)
    problems: list[dict[str, Any]] = field(default_factory=list)


def check(path: Path, rules: list[Rule], schema: dict[str, Any] | None, good: Path, bad: Path) -> Checked:
    """Write the rows that hold to `good`, the others with a column of their problems to `bad`.

    Raises `DataInvalid` for a rule of a column that is not there, or a bound of another kind than the column.
    """
    with leashed(good.parent, [path]) as connection:
        connection.execute(f"CREATE VIEW data AS SELECT * FROM read_parquet({quoted(path)})")
        types = {row[0]: row[1] for row in connection.execute("DESCRIBE data").fetchall()}
        conditions = [condition for rule in rules for condition in _conditions(rule, types)]
        said = ", ".join(f"CASE WHEN NOT ({sql}) THEN {quoted(name)} END" for name, sql in conditions)
        found = f"list_filter([{said}]::VARCHAR[], lambda one: one IS NOT NULL)" if said else "[]::VARCHAR[]"
        with sql_errors("with.rules", [path]):
            batches = connection.sql(f"SELECT *, {found} AS {named(PROBLEMS)} FROM data").to_arrow_reader(_BATCH)
            return _parted(batches, schema, good, bad)


def _conditions(rule: Rule, types: dict[str, str]) -> list[tuple[str, str]]:
    """Return what must be true, each with its name."""
    if rule.column not in types:
        raise DataInvalid(f"The table has no column {rule.column[:80]}.", field="with.rules", columns=list(types)[:50])
    column, kind = named(rule.column), types[rule.column]
    made: list[tuple[str, str]] = []

    def add(name: str, sql: str) -> None:
        made.append((f"{rule.column}: {name}", f"{column} IS NULL OR ({sql})" if name != "not_null" else sql))

    if rule.not_null:
        add("not_null", f"{column} IS NOT NULL")
    if rule.unique:
        add("unique", f"{column} NOT IN (SELECT {column} FROM data WHERE {column} IS NOT NULL"
                      f" GROUP BY {column} HAVING count(*) > 1)")  # fmt: skip
    if rule.min is not None:
        add("min", f"{column} >= {_bound(rule, rule.min, kind)}")
    if rule.max is not None:
        add("max", f"{column} <= {_bound(rule, rule.max, kind)}")
    if rule.min_length is not None:
        add("min_length", f"length({column}::VARCHAR) >= {rule.min_length}")
    if rule.max_length is not None:
        add("max_length", f"length({column}::VARCHAR) <= {rule.max_length}")
    if rule.among is not None:
        listed = ", ".join(quoted(_said(one)) for one in rule.among)
        add("in", f"{column}::VARCHAR IN ({listed})" if listed else "false")
    if rule.like is not None:
        add("like", f"{column}::VARCHAR LIKE {quoted(rule.like)}")
    return made


def _bound(rule: Rule, value: float | str, kind: str) -> str:
    if isinstance(value, str):
        # Moments are written as texts; the cast tells whether this is one.
        return f"{quoted(value)}::{kind}" if kind.startswith(("DATE", "TIME")) else quoted(value)
    if not any(name in kind for name in _NUMBERS):
        raise DataInvalid(f"The column {rule.column[:80]} holds no numbers, but {kind}.", field="with.rules")
    return repr(value)


def _said(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parted(batches: Any, schema: dict[str, Any] | None, good: Path, bad: Path) -> Checked:
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole: pa.Schema = batches.schema
    kept = whole.remove(whole.get_field_index(PROBLEMS))
    validate = _validator(schema)
    broken: Counter[str] = Counter()
    first: list[dict[str, Any]] = []
    counts, seen = [0, 0], 0
    with pq.ParquetWriter(good, kept, compression="zstd") as goods, pq.ParquetWriter(bad, whole) as bads:
        for batch in batches:
            problems = batch.column(PROBLEMS).to_pylist()
            if validate is not None:
                for row, found in zip(batch.drop_columns([PROBLEMS]).to_pylist(), problems, strict=True):
                    found.extend(validate(row))
            for number, found in enumerate(problems, start=seen + 1):
                broken.update("schema" if one.startswith(_OF_SCHEMA) else one for one in found)
                room = _SHOWN - len(first)
                first += [{"row": number, "problem": one} for one in found[:room]]
            holds = pa.array([not found for found in problems])
            table = pa.Table.from_batches([batch])
            said = table.set_column(
                whole.get_field_index(PROBLEMS), whole.field(PROBLEMS), pa.array(problems, whole.field(PROBLEMS).type)
            )
            right = table.drop_columns([PROBLEMS]).filter(holds)
            wrong = said.filter(pa.array([bool(found) for found in problems]))
            counts = [counts[0] + right.num_rows, counts[1] + wrong.num_rows]
            goods.write_table(right)
            bads.write_table(wrong)
            seen += batch.num_rows
    return Checked(counts[0], counts[1], dict(broken.most_common(200)), first)


def _validator(schema: dict[str, Any] | None) -> Any:
    if schema is None:
        return None
    from nexus.llm.structured import Schema

    ready = Schema(schema, field="with.schema")
    return lambda row: [f"{_OF_SCHEMA}{problem}" for problem in ready.problems(plain(row))]
