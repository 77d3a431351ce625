"""Rolling-origin evaluation: forecast from earlier cutoffs, compare with what came, choose (FPP3, 5.10)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nexus.analytics import metrics
from nexus.analytics.forecaster import Forecaster
from nexus.analytics.forecasters import seasonal_naive
from nexus.analytics.types import Floats, Forecast

NAIVE = "seasonal_naive"


_FEWEST_TO_CALIBRATE = 10
_WIDEST = 4.0


@dataclass(frozen=True, slots=True)
class Backtest:
    """MASE of each model (averaged over the series it was tried on), and the best model of each series.

    `factors` tell for each model and level how much wider its intervals must be to have held as many of
    the values that came as they promise.
    """

    scores: dict[str, float]
    best: list[str]
    windows: int
    factors: dict[str, dict[int, float]] = field(default_factory=dict)


class Misses:
    """How far actual values lay from the forecasts, in half widths of the interval: 1 is on its edge."""

    def __init__(self, levels: Sequence[int]) -> None:
        """Begin with none."""
        self.levels = tuple(levels)
        self._ratios: dict[tuple[str, int], list[Floats]] = {}

    def add(self, model: str, forecast: Forecast, actual: Floats) -> None:
        """Take what became of one forecast."""
        for level, (low, high) in forecast.intervals.items():
            half = np.where(actual >= forecast.mean, high - forecast.mean, forecast.mean - low)
            error = np.abs(actual - forecast.mean)
            ratio = np.divide(error, half, out=np.where(error > 0, _WIDEST, 0.0), where=half > 0)
            self._ratios.setdefault((model, level), []).append(ratio)

    def factors(self) -> dict[str, dict[int, float]]:
        """Return the conformal factor of each model and level (Romano, Patterson & Candes 2019), never below 1."""
        found: dict[str, dict[int, float]] = {}
        for (model, level), parts in self._ratios.items():
            ratios = np.sort(np.concatenate(parts))
            if len(ratios) >= _FEWEST_TO_CALIBRATE:
                place = min(len(ratios), int(np.ceil((len(ratios) + 1) * level / 100))) - 1
                found.setdefault(model, {})[level] = float(np.clip(ratios[place], 1.0, _WIDEST))
        return found


def widened(forecast: Forecast, factors: Mapping[int, float]) -> Forecast:
    """Return the forecast with its intervals widened by level; a higher level never lies within a lower one."""
    intervals: dict[int, tuple[Floats, Floats]] = {}
    mean = forecast.mean
    low_before, high_before = mean, mean
    for level in sorted(forecast.intervals):
        low, high = forecast.intervals[level]
        factor = factors.get(level, 1.0)
        low_before = np.minimum(low_before, mean - (mean - low) * factor)
        high_before = np.maximum(high_before, mean + (high - mean) * factor)
        intervals[level] = (low_before, high_before)
    return Forecast(mean, intervals)


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
    levels: Sequence[int] = (),
    clock: Callable[[], float] = time.monotonic,
) -> Backtest:
    """Score every model on every series and name the best of each.

    `models` holds the seasonal naive forecast too. Series that are too short for one cutoff, and all that
    are left once `seconds` have passed, take the model that is best over the others.
    """
    end = clock() + seconds
    misses = Misses(levels)
    per_series = [{} if clock() > end else _score_one(y, models, horizon, season, windows, misses) for y in history]
    tried = [scores for scores in per_series if scores]
    overall = {name: metrics.mean_of([scores[name] for scores in tried if name in scores]) for name in models}
    overall = {name: score for name, score in overall.items() if np.isfinite(score)}
    default = min(overall, key=lambda name: overall[name]) if overall else NAIVE
    best = [min(scores, key=lambda name: scores[name]) if scores else default for scores in per_series]
    most = max((len(cutoffs(len(y), horizon, season, windows)) for y in history), default=0)
    return Backtest(overall, best, most, misses.factors())


def _score_one(
    y: Floats, models: Mapping[str, Forecaster], horizon: int, season: int, windows: int, misses: Misses
) -> dict[str, float]:
    scores: dict[str, list[float]] = {}
    for before, steps in cutoffs(len(y), horizon, season, windows):
        past, actual = y[:before], y[before : before + steps]
        for name, model in models.items():
            if before >= model.needs(season):
                (forecast,) = safe_forecasts(model, [past], horizon=steps, season=season, levels=misses.levels)
                misses.add(name, forecast, actual)
                scores.setdefault(name, []).append(metrics.mase(actual, forecast.mean, past, season))
    # A model tried on fewer cutoffs than the others would be compared with them on other data.
    most = max((len(found) for found in scores.values()), default=0)
    return {name: metrics.mean_of(found) for name, found in scores.items() if len(found) == most}


def _finite(forecast: Forecast) -> bool:
    bounds = (bound for pair in forecast.intervals.values() for bound in pair)
    return bool(np.isfinite(forecast.mean).all()) and all(bool(np.isfinite(bound).all()) for bound in bounds)
