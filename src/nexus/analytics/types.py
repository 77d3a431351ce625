"""The nouns of analytics: a table to read, series and their forecasts, what to train, what was predicted.

Inside, a series is an array `y` with its times; outside, everything follows `design/contract.md`:
long tables of `unique_id, ds, y`, intervals as `lo-80` and `hi-80`, labels with probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from nexus.analytics.settings import AnalyticsSettings

if TYPE_CHECKING:  # processes that only hand these on need no numpy
    import numpy as np
    from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.float64]"
Shape: TypeAlias = Literal["series", "table"]
Kind: TypeAlias = Literal["number", "category", "time", "boolean", "text"]
Task: TypeAlias = Literal["classification", "regression"]
Fill: TypeAlias = Literal["none", "linear", "last", "zero"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a table comes from: the bytes of a file, a local file, or rows. Exactly one is given."""

    content: bytes | None = None
    path: Path | None = None
    rows: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a table may be: see `AnalyticsSettings`."""

    rows: int
    columns: int
    cells: int
    cell_bytes: int

    @classmethod
    def of(cls, settings: AnalyticsSettings) -> Limits:
        """Return the limits that the settings state."""
        return cls(settings.max_rows, settings.max_columns, settings.max_cells, settings.max_cell_bytes)


@dataclass(frozen=True, slots=True)
class SeriesColumns:
    """Which columns hold the series; None: found by name, else by what the columns hold."""

    unique_id: str | None = None
    ds: str | None = None
    y: str | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """One series in order of time. `ds` is `datetime64[ns]` (UTC) or `int64`; `y` is finite."""

    unique_id: str
    ds: NDArray[Any]
    y: Floats


@dataclass(frozen=True, slots=True)
class ForecastSpec:
    """What to forecast: steps ahead, interval levels in percent, the method or `auto`, and how to read the table."""

    horizon: int
    levels: tuple[int, ...] = (80, 95)
    model: str = "auto"
    frequency: str | None = None
    season: int | None = None
    fill: Fill = "none"
    backtest: bool = True
    columns: SeriesColumns = field(default_factory=SeriesColumns)


@dataclass(frozen=True, slots=True)
class AnomalySpec:
    """What to look for: the detector or `auto`, and a threshold other than the one that the data give.

    `shape` None: a series where columns are named, or where there is a time, a value, at most a name and
    nothing else; the rows of a table otherwise.
    """

    model: str = "auto"
    threshold: float | None = None
    season: int | None = None
    shape: Shape | None = None
    columns: SeriesColumns = field(default_factory=SeriesColumns)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Forecast:
    """The continuation of one series: point forecasts, and (low, high) for each level in percent."""

    mean: Floats
    intervals: dict[int, tuple[Floats, Floats]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a data set."""

    name: str
    kind: Kind
    missing: int
    distinct: int | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A table that a project has uploaded; `sha256` names its content in the blob store."""

    id: str
    project_id: str
    name: str
    filename: str
    sha256: str
    size: int
    rows: int
    columns: list[Column]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """What to learn: which column from which others (None: all), by which predictor."""

    target: str
    task: Task | None = None
    predictor: str = "lightgbm"
    features: tuple[str, ...] | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """What training left behind: files by role, how well it did, and what the model needs to be asked."""

    task: Task
    files: dict[str, Path]
    metrics: dict[str, float]
    baseline: dict[str, float]
    features: list[dict[str, Any]]
    ignored: dict[str, str]
    rows: int
    labels: list[str] | None = None
