"""Taking a fixed season out of a series and adding it back: classical additive decomposition (FPP3, 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nexus.analytics.types import Floats, Forecast


@dataclass(frozen=True, slots=True)
class Pattern:
    """A series without its season, and the season: `season[i]` belongs to every step `i` modulo its length."""

    rest: Floats
    season: Floats


def take_out(y: Floats, season: int) -> Pattern:
    """Return `y` without the mean deviation of each step of the season from a centred moving average."""
    weights = np.ones(season) / season
    if season % 2 == 0:
        weights = np.concatenate(([0.5], np.ones(season - 1), [0.5])) / season
    trend = np.convolve(y, weights, "valid")
    start = (len(weights) - 1) // 2
    deviations = np.full(len(y), np.nan)
    deviations[start : start + len(trend)] = y[start : start + len(trend)] - trend
    pattern = np.array([np.nanmean(deviations[step::season]) for step in range(season)])
    pattern -= pattern.mean()
    return Pattern(y - pattern[np.arange(len(y)) % season], pattern)


def add_back(forecast: Forecast, pattern: Pattern, horizon: int) -> Forecast:
    """Return the forecast of `pattern.rest` with the season on top."""
    steps = (len(pattern.rest) + np.arange(horizon)) % len(pattern.season)
    season = pattern.season[steps]
    intervals = {level: (low + season, high + season) for level, (low, high) in forecast.intervals.items()}
    return Forecast(forecast.mean + season, intervals)
