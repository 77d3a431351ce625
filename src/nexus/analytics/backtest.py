"""Rolling-origin evaluation: forecast from earlier cutoffs, compare with what came, choose (FPP3, 5.10)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nexus.analytics import metrics
from nexus.analytics.forecaster import Forecaster
from nexus.analytics.forecasters import seasonal_naive
from nexus.analytics.types import Floats, Forecast

NAIVE = "seasonal_naive"


@dataclass(frozen=True, slots=True)
class Backtest:
    """MASE of each model (averaged over the series it was tried on), and the best model of each series."""

    scores: dict[str, float]
    best: list[str]
    windows: int


def cutoffs(length: int, horizon: int, season: int, windows: int) -> list[tuple[int, int]]:
    """Return (observations before the cutoff, steps to compare) for up to `windows` origins, newest first.

    At least 8 observations, and two seasons where there are three, must stay before the oldest cutoff;
    where the whole horizon does not fit, fewer steps are compared.
    """
    keep = max(8, 2 * season if length >= 3 * season else 0)
    room = length - keep
    if room < 1:
        return []
    steps = min(horizon, room)
    fitting = min(windows, room // steps)
    return [(length - steps * (number + 1), steps) for number in range(fitting)]


def safe_forecasts(
    model: Forecaster, history: Sequence[Floats], *, horizon: int, season: int, levels: Sequence[int]
) -> list[Forecast]:
    """Continue every series; one that the model fails on, or makes infinite, gets the seasonal naive forecast."""
    try:
        forecasts = model.forecast(history, horizon=horizon, season=season, levels=levels)
    # Numeric libraries raise anything at all for odd series; each is then tried alone.
    except Exception:  # noqa: BLE001
        if len(history) == 1:
            return seasonal_naive.plug.forecast(history, horizon=horizon, season=season, levels=levels)
        return [safe_forecasts(model, [y], horizon=horizon, season=season, levels=levels)[0] for y in history]
    naive = seasonal_naive.plug
    return [
        forecast if _finite(forecast) else naive.continue_one(y, horizon=horizon, season=season, levels=levels)
        for forecast, y in zip(forecasts, history, strict=True)
    ]


def backtest(
    history: Sequence[Floats],
    models: Mapping[str, Forecaster],
    *,
    horizon: int,
    season: int,
    windows: int,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> Backtest:
    """Score every model on every series and name the best of each.

    `models` holds the seasonal naive forecast too. Series that are too short for one cutoff, and all that
    are left once `seconds` have passed, take the model that is best over the others.
    """
    end = clock() + seconds
    per_series = [{} if clock() > end else _score_one(y, models, horizon, season, windows) for y in history]
    tried = [scores for scores in per_series if scores]
    overall = {name: metrics.mean_of([scores[name] for scores in tried if name in scores]) for name in models}
    overall = {name: score for name, score in overall.items() if np.isfinite(score)}
    default = min(overall, key=lambda name: overall[name]) if overall else NAIVE
    best = [min(scores, key=lambda name: scores[name]) if scores else default for scores in per_series]
    most = max((len(cutoffs(len(y), horizon, season, windows)) for y in history), default=0)
    return Backtest(overall, best, most)


def _score_one(
    y: Floats, models: Mapping[str, Forecaster], horizon: int, season: int, windows: int
) -> dict[str, float]:
    scores: dict[str, list[float]] = {}
    for before, steps in cutoffs(len(y), horizon, season, windows):
        past, actual = y[:before], y[before : before + steps]
        for name, model in models.items():
            if before >= model.needs(season):
                (forecast,) = safe_forecasts(model, [past], horizon=steps, season=season, levels=())
                scores.setdefault(name, []).append(metrics.mase(actual, forecast.mean, past, season))
    # A model tried on fewer cutoffs than the others would be compared with them on other data.
    most = max((len(found) for found in scores.values()), default=0)
    return {name: metrics.mean_of(found) for name, found in scores.items() if len(found) == most}


def _finite(forecast: Forecast) -> bool:
    bounds = (bound for pair in forecast.intervals.values() for bound in pair)
    return bool(np.isfinite(forecast.mean).all()) and all(bool(np.isfinite(bound).all()) for bound in bounds)
