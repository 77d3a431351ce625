"""Make a table out of tables: by SQL, or by a filter and columns.

    - key: totals
      uses: data.transform
      with:
        inputs: {sales: "{{ steps.sales.output.file_id }}", shops: "{{ inputs.shops }}"}
        sql: SELECT shop, sum(price * pieces) AS total FROM sales JOIN shops USING (shop) GROUP BY shop

The SQL is DuckDB's (https://duckdb.org/docs/stable/sql/introduction), one SELECT that sees its inputs and nothing else.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from nexus.automation.data.transforming import Shaping, transform
from nexus.automation.data.workshop import MOST_ROWS, TableOutputs, TableSource, workshop
from nexus.automation.step import StepModel
from nexus.runs.types import StepContext

TableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
Expression = Annotated[str, StringConstraints(min_length=1, max_length=10_000)]
Rows = Annotated[list[dict[str, Any]], Field(min_length=1, max_length=10_000)]


class TransformInputs(StepModel):
    """Tables by name, and `sql` over them; or one `input` with a filter and columns."""

    inputs: dict[TableName, str | Rows] = Field(
        default_factory=dict, max_length=20, description="Ids of files, or rows, by the name that the SQL knows them by"
    )
    sql: str | None = Field(None, min_length=1, max_length=100_000)
    input: str | Rows | None = Field(None, description="The id of a file, or rows: without SQL")
    filter: Expression | None = Field(None, description="An expression of SQL: the rows for which it is true stay")
    columns: dict[str, Expression] = Field(
        default_factory=dict, max_length=200, description="New or changed columns, each an expression of SQL"
    )
    select: list[str] | None = Field(None, min_length=1, max_length=1_000, description="The columns that stay")
    order: list[str] = Field(default_factory=list, max_length=20, description="Columns; -name for the largest first")
    distinct: bool = False
    limit: int | None = Field(None, ge=0)
    name: str = Field("transformed.parquet", min_length=1, max_length=200, description="Name of the file that is made")
    max_rows: int = Field(5_000_000, ge=1, le=MOST_ROWS)
    timeout: float = Field(600, gt=0, le=7_200, description="Seconds the query may take")

    @model_validator(mode="after")
    def _one_way(self) -> TransformInputs:
        if (self.sql is None) == (self.input is None):
            raise ValueError("give either sql with inputs, or input")
        if self.sql is not None and not self.inputs:
            raise ValueError("sql needs inputs")
        shaped = self.filter or self.columns or self.select or self.order or self.distinct or self.limit is not None
        if self.sql is not None and shaped:
            raise ValueError("filter, columns, select, order, distinct and limit go with input, not with sql")
        if self.input is not None and self.inputs:
            raise ValueError("give input or inputs, not both")
        return self


class DataTransform:
    """The step `data.transform`."""

    uses = "data.transform"
    summary = "Make a table out of tables by SQL (DuckDB), or by a filter and columns."
    queue = "cpu"
    Inputs = TransformInputs
    Outputs = TableOutputs

    async def run(self, context: StepContext, inputs: TransformInputs) -> TableOutputs:
        """Run the query in a child without files, network or much memory."""
        given = inputs.inputs if inputs.input is None else {"input": inputs.input}
        async with workshop(context, inputs.timeout) as bench:
            tables = {
                name: await bench.table(
                    TableSource(file_id=one) if isinstance(one, str) else TableSource(rows=one), field=f"inputs.{name}"
                )
                for name, one in given.items()
            }
            shaping = Shaping(inputs.filter, inputs.columns, inputs.select, inputs.order, inputs.distinct, inputs.limit)
            made = bench.place()
            await bench.run(transform, tables, inputs.sql or shaping, made, inputs.max_rows)
            return await bench.told(made, inputs.name)


plug = DataTransform()
