"""Check the rows of a table by rules and by a JSON Schema.

- key: check
  uses: data.validate
  with:
    file_id: "{{ steps.orders.output.file_id }}"
    rules:
      - {column: id, not_null: true, unique: true}
      - {column: total, min: 0, max: 100000}
      - {column: number, like: "INV-%"}
    min_rows: 1
    on_problem: quarantine
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from nexus.automation.data.checking import Checked, Rule, check
from nexus.automation.data.workshop import ColumnOut, TableSource, workshop
from nexus.automation.errors import DataInvalid
from nexus.automation.step import StepModel
from nexus.llm.structured import Schema
from nexus.runs.types import StepContext


class RuleIn(StepModel):
    """What must hold of a column; a null breaks `not_null` only."""

    column: str = Field(min_length=1, max_length=1_024)
    not_null: bool = False
    unique: bool = False
    min: float | str | None = Field(None, description="A number, or a date or moment as text")
    max: float | str | None = None
    min_length: int | None = Field(None, ge=0)
    max_length: int | None = Field(None, ge=0)
    in_: list[Any] | None = Field(None, alias="in", max_length=1_000, description="The values that are allowed")
    like: str | None = Field(None, max_length=1_000, description="A pattern with % for any text and _ for a letter")


class ValidateInputs(TableSource):
    """A table, what must hold of it, and what is done about rows of which it does not."""

    rules: list[RuleIn] = Field(default_factory=list, max_length=200)
    json_schema: dict[str, Any] | None = Field(None, alias="schema", description="A JSON Schema of each row")
    min_rows: int | None = Field(None, ge=0)
    max_rows: int | None = Field(None, ge=0)
    on_problem: Literal["fail", "warn", "quarantine"] = Field(
        "fail", description="Fail the step, pass every row on, or part the rows into two files"
    )
    name: str = Field("valid.parquet", min_length=1, max_length=200, description="Name of the file that is made")
    timeout: float = Field(600, gt=0, le=7_200, description="Seconds the checks may take")

    @model_validator(mode="after")
    def _something_to_check(self) -> ValidateInputs:
        if not self.rules and self.json_schema is None and self.min_rows is None and self.max_rows is None:
            raise ValueError("give rules, a schema, min_rows or max_rows")
        return self


class ProblemOut(StepModel):
    """A row, counted from 1, and the rule that it breaks."""

    row: int
    problem: str


class ValidateOutputs(StepModel):
    """Whether all holds, and the rows that go on: all of them, or the good ones where the others are parted."""

    valid: bool
    file_id: str
    rows: int
    columns: list[ColumnOut]
    preview: list[dict[str, Any]]
    invalid_rows: int
    broken: dict[str, int] = Field(description="How often each rule is broken")
    problems: list[ProblemOut] = Field(description="The first of them")
    quarantine_file_id: str | None = Field(None, description="The other rows, with their problems")


class DataValidate:
    """The step `data.validate`."""

    uses = "data.validate"
    summary = "Check the rows of a table by rules and a JSON Schema; fail, warn or part them."
    queue = "cpu"
    Inputs = ValidateInputs
    Outputs = ValidateOutputs

    async def run(self, context: StepContext, inputs: ValidateInputs) -> ValidateOutputs:
        """Check in a compute child, a batch at a time. Raises `DataInvalid` with the first problems."""
        if inputs.json_schema is not None:
            Schema(inputs.json_schema, field="with.schema")
        async with workshop(context, inputs.timeout) as bench:
            table = await bench.table(TableSource(file_id=inputs.file_id, rows=inputs.rows))
            good, bad = bench.place(), bench.place()
            checked = await bench.run(check, table, _rules(inputs), inputs.json_schema, good, bad)
            counted = _count_problem(inputs, checked.good + checked.bad)
            valid = checked.bad == 0 and counted is None
            if counted is not None and inputs.on_problem != "warn":
                raise DataInvalid(counted, field="with.file_id")
            if not valid:
                _refuse_or_warn(context, inputs, checked, counted)
            parted = inputs.on_problem == "quarantine" and checked.bad > 0
            told = await bench.told(good if parted else table, inputs.name)
            quarantined = await bench.keep(bad, f"rejected-{inputs.name}") if parted else None
            return ValidateOutputs(
                valid=valid,
                **dict(told),
                invalid_rows=checked.bad,
                broken=checked.broken,
                problems=[ProblemOut(**problem) for problem in checked.problems],
                quarantine_file_id=quarantined,
            )


def _rules(inputs: ValidateInputs) -> list[Rule]:
    return [Rule(**rule.model_dump(exclude={"in_"}), among=rule.in_) for rule in inputs.rules]


def _count_problem(inputs: ValidateInputs, rows: int) -> str | None:
    if inputs.min_rows is not None and rows < inputs.min_rows:
        return f"The table has {rows} rows; at least {inputs.min_rows} are wanted."
    if inputs.max_rows is not None and rows > inputs.max_rows:
        return f"The table has {rows} rows; at most {inputs.max_rows} are wanted."
    return None


def _refuse_or_warn(context: StepContext, inputs: ValidateInputs, checked: Checked, counted: str | None) -> None:
    first = checked.problems[0] if checked.problems else None
    where = f"row {first['row']}, {first['problem']}" if first else counted
    said = f"{checked.bad} of {checked.good + checked.bad} rows break the rules; the first: {where}"
    if inputs.on_problem == "fail":
        raise DataInvalid(f"{said}.", field="with.file_id", problems=checked.problems, broken=checked.broken)
    context.log(said, "warning")


plug = DataValidate()
