"""Naive2, the forecast that M3 and M4 measure all others against (Makridakis et al. 2020, appendix A)."""

from __future__ import annotations

import numpy as np

from nexus.analytics.types import Floats


def is_seasonal(y: Floats, season: int) -> bool:
    """Tell whether the autocorrelation at the season is significant at 90 %."""
    if season <= 1 or len(y) < 3 * season:
        return False
    centred = y - y.mean()
    total = float(np.sum(centred**2))
    if total == 0:
        return False
    correlations = np.array([np.sum(centred[lag:] * centred[:-lag]) / total for lag in range(1, season + 1)])
    limit = 1.645 * np.sqrt((1 + 2 * np.sum(correlations[:-1] ** 2)) / len(y))
    return bool(abs(correlations[-1]) > limit)


def seasonal_indices(y: Floats, season: int) -> Floats:
    """Return the multiplicative index of each step of the season (classical decomposition), mean 1."""
    weights = np.ones(season) / season
    if season % 2 == 0:
        weights = np.concatenate(([0.5], np.ones(season - 1), [0.5])) / season
    trend = np.convolve(y, weights, "valid")
    start = (len(weights) - 1) // 2
    ratios = np.full(len(y), np.nan)
    ratios[start : start + len(trend)] = y[start : start + len(trend)] / trend
    indices = np.array([np.nanmean(ratios[step::season]) for step in range(season)])
    adjusted: Floats = indices / indices.mean()
    return adjusted


def naive2(y: Floats, horizon: int, season: int) -> Floats:
    """Return the last value, seasonally adjusted where the series is seasonal."""
    if not is_seasonal(y, season):
        return np.repeat(y[-1], horizon)
    indices = seasonal_indices(y, season)
    level = y[-1] / indices[(len(y) - 1) % season]
    forecast: Floats = level * indices[(len(y) + np.arange(horizon)) % season]
    return forecast
