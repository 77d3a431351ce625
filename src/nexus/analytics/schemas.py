"""The JSON of analytics: what comes in, checked; what goes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from nexus.analytics.errors import InvalidTable, InvalidValue
from nexus.analytics.types import AnomalySpec, Dataset, ForecastSpec, SeriesColumns, Shape, TrainSpec
from nexus.core.clock import rfc3339

ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Level = Annotated[int, Field(ge=1, le=99)]
Method = Annotated[str, StringConstraints(min_length=1, max_length=63)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class ForecastOptions(_In):
    """How to forecast: the fields of a form, or members beside `series` in JSON."""

    horizon: int = Field(ge=1, description="Steps ahead.")
    level: list[Level] = Field([80, 95], max_length=10, description="Levels of the intervals in percent.")
    model: Method = Field("auto", description="A forecaster, or `auto`: the best of each series in a backtest.")
    frequency: str | None = Field(None, max_length=16, description="Such as MS, W, D, h, 15min; found if not given.")
    season: int | None = Field(None, ge=1, le=10_000, description="Steps of a season; by the frequency if not given.")
    fill: Literal["none", "linear", "last", "zero"] = Field("none", description="What to do about gaps.")
    backtest: bool = Field(True, description="Report the error on past cutoffs beside that of the naive forecast.")
    id_column: ColumnName | None = Field(None, description="Column that names the series.")
    time_column: ColumnName | None = Field(None, description="Column of the times.")
    target_column: ColumnName | None = Field(None, description="Column of the values.")

    def spec(self, columns: SeriesColumns | None = None) -> ForecastSpec:
        """Return what the service is asked; `columns` replaces the named ones."""
        named = SeriesColumns(self.id_column, self.time_column, self.target_column)
        return ForecastSpec(
            horizon=self.horizon,
            levels=tuple(sorted(set(self.level))),
            model=self.model,
            frequency=self.frequency or None,
            season=self.season,
            fill=self.fill,
            backtest=self.backtest,
            columns=columns or named,
        )


class ForecastIn(ForecastOptions):
    """A forecast asked for in JSON: of `series` sent along, or of a data set."""

    series: list[dict[str, Any]] | None = Field(
        None, min_length=1, description="Rows `{unique_id, ds, y}`, or one object for each series with lists."
    )
    dataset_id: str | None = Field(None, max_length=40)

    @model_validator(mode="after")
    def _exactly_one(self) -> ForecastIn:
        if (self.series is None) == (self.dataset_id is None):
            raise ValueError("give exactly one of series and dataset_id")
        return self


class AnomalyOptions(_In):
    """How to look for anomalies: the fields of a form, or members beside the data in JSON."""

    model: Method = Field("auto", description="A detector, or `auto`.")
    threshold: float | None = Field(None, ge=0, le=1, description="Score from which on; by the data if not given.")
    season: int | None = Field(None, ge=1, le=10_000, description="Steps of a season of a series.")
    id_column: ColumnName | None = Field(None, description="Column that names the series.")
    time_column: ColumnName | None = Field(None, description="Column of the times.")
    target_column: ColumnName | None = Field(None, description="Column of the values.")

    def spec(self, shape: Shape | None = None, columns: SeriesColumns | None = None) -> AnomalySpec:
        """Return what the service is asked."""
        named = SeriesColumns(self.id_column, self.time_column, self.target_column)
        return AnomalySpec(self.model, self.threshold, self.season, shape, columns or named)


class AnomaliesIn(AnomalyOptions):
    """A search for anomalies asked for in JSON: in plain `values`, in `series`, in `rows`, or in a data set."""

    values: list[Any] | None = Field(None, min_length=1, description="One series of numbers.")
    series: list[dict[str, Any]] | None = Field(None, min_length=1, description="As for a forecast.")
    rows: list[dict[str, Any]] | None = Field(None, min_length=1, description="Rows of a table.")
    dataset_id: str | None = Field(None, max_length=40)

    @model_validator(mode="after")
    def _exactly_one(self) -> AnomaliesIn:
        if sum(one is not None for one in (self.values, self.series, self.rows, self.dataset_id)) != 1:
            raise ValueError("give exactly one of values, series, rows and dataset_id")
        return self


def split_form(fields: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return form fields for `ForecastOptions`: `level` may be repeated or a list with commas; empty ones go."""
    plain: dict[str, Any] = {name: values[-1].strip() for name, values in fields.items() if values[-1].strip()}
    if "level" in plain:
        plain["level"] = [part.strip() for value in fields["level"] for part in value.split(",") if part.strip()]
    return plain


def rows_of(series: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], SeriesColumns]:
    """Return sent series as rows, and which columns they have. Without `ds` the steps are numbered.

    Raises `InvalidTable` and `InvalidValue`, naming what is missing.
    """
    rows: list[dict[str, Any]] = []
    for number, one in enumerate(series):
        place = f"series.{number}"
        if "y" not in one:
            raise InvalidTable("The values y are missing.", field=f"{place}.y")
        if not isinstance(one["y"], list):
            rows.append({"unique_id": one.get("unique_id", "series"), "ds": one.get("ds"), "y": one["y"]})
            continue
        times = one.get("ds", list(range(1, len(one["y"]) + 1)))
        if not isinstance(times, list) or len(times) != len(one["y"]):
            raise InvalidTable("ds and y must be lists of the same length.", field=f"{place}.ds")
        name = one.get("unique_id", "series")
        rows.extend({"unique_id": name, "ds": ds, "y": y} for ds, y in zip(times, one["y"], strict=True))
    for number, row in enumerate(rows, start=1):
        if row["ds"] is None:
            raise InvalidValue.at("ds", number, "a time is needed")
    return rows, SeriesColumns("unique_id", "ds", "y")


class TrainingIn(_In):
    """A training to start."""

    dataset_id: str = Field(max_length=40)
    name: ModelName = Field(description="Name of the model; a further training makes its next version.")
    target: ColumnName = Field(description="Column to learn.")
    task: Literal["classification", "regression"] | None = Field(None, description="By the target if not given.")
    predictor: Method = "lightgbm"
    features: list[ColumnName] | None = Field(None, min_length=1, max_length=2000, description="All if not given.")
    seed: int = Field(0, ge=0, le=2**31 - 1)

    def spec(self) -> TrainSpec:
        """Return what the service is asked."""
        features = tuple(self.features) if self.features is not None else None
        return TrainSpec(self.target, self.task, self.predictor, features, self.seed)


class PredictIn(_In):
    """Rows to ask a model about."""

    rows: list[dict[str, Any]] = Field(min_length=1, description="Objects with the columns that the model knows.")
    alias: Method | None = Field(None, description="Such as `champion`, which is what counts if nothing is given.")
    version: Annotated[int, Field(strict=True, ge=1)] | None = None

    @model_validator(mode="after")
    def _not_both(self) -> PredictIn:
        if self.alias is not None and self.version is not None:
            raise ValueError("give an alias or a version, not both")
        return self


class ColumnOut(BaseModel):
    """One column of a data set."""

    name: str
    kind: str
    missing: int
    distinct: int | None


class DatasetOut(BaseModel):
    """A data set as it is shown."""

    id: str
    name: str
    filename: str
    sha256: str
    size: int
    rows: int
    columns: list[ColumnOut]
    created_at: str | None


class MethodOut(BaseModel):
    """One plug: a forecaster, a predictor or a detector."""

    name: str
    title: str
    source: str


def dataset_out(dataset: Dataset) -> dict[str, Any]:
    """Return the JSON of a data set."""
    return {
        "id": dataset.id,
        "name": dataset.name,
        "filename": dataset.filename,
        "sha256": dataset.sha256,
        "size": dataset.size,
        "rows": dataset.rows,
        "columns": [
            {"name": one.name, "kind": one.kind, "missing": one.missing, "distinct": one.distinct}
            for one in dataset.columns
        ],
        "created_at": rfc3339(dataset.created_at),
    }
