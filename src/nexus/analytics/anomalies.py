"""The story of a search for anomalies, in a compute child: read, score, mark, give reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nexus.analytics import frequency as frequencies
from nexus.analytics.detector import DETECTORS
from nexus.analytics.encoding import describe
from nexus.analytics.errors import InvalidSeries, InvalidTable, InvalidValue, UnknownMethod, shown
from nexus.analytics.frames import Frame, find_columns, identities
from nexus.analytics.reading import Table, read_table
from nexus.analytics.types import AnomalySpec, Column, Floats, Limits, Series, SeriesColumns, Shape, Source
from nexus.analytics.values import Times, numbers, texts, times
from nexus.core.errors import InvalidInput

AUTO: Final = "auto"
_BEST: Final[dict[Shape, str]] = {"series": "zscore_mad", "table": "isolation_forest"}
_FEWEST: Final = 8


@dataclass(frozen=True, slots=True)
class Found:
    """Scores in the order of the rows; times and reasons for those that may be shown."""

    scores: Floats
    threshold: float
    reasons: dict[int, str]
    times: list[Any] | None
    extra: dict[str, Any]


def check_detector(model: str) -> None:
    """Raise `UnknownMethod`, naming the known ones, unless the detector is there."""
    if model != AUTO and model not in DETECTORS:
        known = [AUTO, *DETECTORS.names()]
        raise UnknownMethod(f"There is no such detector; known are {', '.join(known)}.", field="model")


def detect_table(source: Source, spec: AnomalySpec, limits: Limits, max_series: int) -> dict[str, Any]:
    """Return the body of the answer (design/contract.md, anomalies) but for its id."""
    check_detector(spec.model)
    table = read_table(source, limits)
    columns = _series_columns(table, spec)
    shape: Shape = "table" if columns is None else "series"
    name = _BEST[shape] if spec.model == AUTO else spec.model
    if shape not in DETECTORS.get(name).shapes:
        raise InvalidInput(f"This detector does not look at a {shape}.", field="model")
    found = _in_rows(table, name, spec) if columns is None else _in_series(table, columns, name, spec, max_series)
    marked = [int(place) for place in np.flatnonzero(found.scores >= found.threshold)]
    anomalies = []
    for place in marked:
        entry: dict[str, Any] = {"index": place, "score": round(float(found.scores[place]), 6)}
        if found.times is not None:
            entry["ds"] = found.times[place]
        entry["reason"] = found.reasons.get(place, "")
        anomalies.append(entry)
    return {
        "model": spec.model,
        "chosen": name,
        "threshold": round(found.threshold, 6),
        "scores": [round(float(score), 6) for score in found.scores],
        "anomalies": anomalies,
        **found.extra,
    }


def _series_columns(table: Table, spec: AnomalySpec) -> SeriesColumns | None:
    """Return the columns of the series, or None when the table's rows are meant."""
    if spec.shape == "table":
        return None
    named = spec.columns != SeriesColumns()
    try:
        found = find_columns(table, spec.columns)
    except InvalidTable:
        if spec.shape == "series" or named:
            raise
        return None
    used = {found.unique_id, found.ds, found.y} - {None}
    return found if spec.shape == "series" or named or used == set(table.columns) else None


def _in_series(table: Table, columns: SeriesColumns, name: str, spec: AnomalySpec, max_series: int) -> Found:
    """Score every series by itself; rows may come in any order, and times need not be regular."""
    assert columns.ds is not None
    assert columns.y is not None
    stamps = times(table.column(columns.ds), columns.ds)
    y = numbers(table.column(columns.y), columns.y, decimal_comma=table.decimal_comma)
    if np.isnan(y).any():
        raise InvalidValue.at(columns.y, int(np.flatnonzero(np.isnan(y))[0]) + 1, "the value is missing")
    ids, places = identities(table, columns.unique_id)
    if len(ids) > max_series:
        raise InvalidSeries(f"There are {len(ids)} series; {max_series} are allowed.", field=columns.unique_id)
    scores, thresholds = np.zeros(table.rows), []
    reasons: dict[int, str] = {}
    order = np.lexsort((stamps.values, places))
    bounds = np.searchsorted(places[order], np.arange(len(ids) + 1))
    for number, unique_id in enumerate(ids):
        rows = order[bounds[number] : bounds[number + 1]]
        if len(rows) < _FEWEST:
            raise InvalidSeries(
                f"Series {shown(unique_id)} has {len(rows)} observations; at least {_FEWEST} are needed.", field="y"
            )
        season = spec.season or _season(unique_id, stamps, rows, y)
        scored = DETECTORS.get(name).score_series(y[rows], season=season, seed=spec.seed)
        threshold = spec.threshold if spec.threshold is not None else scored.threshold
        scores[rows] = scored.scores
        thresholds.append(threshold)
        for place in np.flatnonzero(scored.scores >= threshold):
            value = y[rows[place]]
            wanted = scored.expected[place] if scored.expected is not None else np.median(y[rows])
            side = "above" if value > wanted else "below"
            reasons[int(rows[place])] = f"{value:g} is far {side} the expected {wanted:g}"
    shown_times = Frame([], "", stamps.style).render_times(stamps.values)
    return Found(scores, float(np.max(thresholds)), reasons, shown_times, {"series": len(ids)})


def _season(unique_id: str, stamps: Times, rows: NDArray[Any], y: Floats) -> int:
    """Return the season that the times suggest, 1 where they are irregular."""
    series = Series(unique_id, stamps.values[rows], y[rows])
    try:
        season = frequencies.season_of(frequencies.infer([series]))
    except InvalidInput:
        return 1
    return season if len(rows) >= 3 * season else 1


def _in_rows(table: Table, name: str, spec: AnomalySpec) -> Found:
    """Score the rows of a table by all their usable columns."""
    if table.rows < _FEWEST:
        raise InvalidTable(f"The table has {table.rows} rows; at least {_FEWEST} are needed.", field="file")
    described = {one.name: _feature(table, one) for one in describe(table)}
    features = {column: values for column, values in described.items() if values is not None}
    if not features:
        raise InvalidTable("No column of the table varies in a way that can be judged.", field="file")
    scored = DETECTORS.get(name).score_rows(np.column_stack(list(features.values())), seed=spec.seed)
    threshold = spec.threshold if spec.threshold is not None else scored.threshold
    marked = np.flatnonzero(scored.scores >= threshold)
    reasons = {int(place): _reason(features, int(place)) for place in marked}
    ignored = [column for column, values in described.items() if values is None]
    return Found(scored.scores, threshold, reasons, None, {"columns": list(features), "ignored": ignored})


def _feature(table: Table, column: Column) -> Floats | None:
    """Return a column as numbers: a category by how rare its level is; None for what says nothing."""
    if column.distinct is not None and column.distinct < 2:
        return None
    data = table.columns[column.name]
    if column.kind == "number":
        values = numbers(data, column.name, decimal_comma=table.decimal_comma)
        return np.where(np.isnan(values), np.nanmedian(values), values)
    if column.kind in ("category", "boolean"):
        cells = [cell or "" for cell in texts(data)]
        _, place, counts = np.unique(cells, return_inverse=True, return_counts=True)
        rarity: Floats = -np.log(counts[place] / len(cells))
        return rarity
    return None


def _reason(features: dict[str, Floats], place: int) -> str:
    """Say which column of the row lies farthest from what is usual, in spans of the middle half."""
    farthest, most = "", -1.0
    for column, values in features.items():
        low, high = np.quantile(values, (0.25, 0.75))
        away = abs(float(values[place]) - float(np.median(values))) / (float(high - low) or float(values.std()) or 1.0)
        if away > most:
            most = away
            farthest = f"{shown(column)} is {values[place]:g}, usually {low:g} to {high:g}"
    return farthest
