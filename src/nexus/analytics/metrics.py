"""How good forecasts and predictions are. All take arrays of the same length and return one number.

sMAPE, MASE and OWA as the M4 competition defines them (Makridakis et al. 2020,
doi:10.1016/j.ijforecast.2019.04.014).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nexus.analytics.types import Floats

_TINY = 1e-15


def mae(actual: Floats, forecast: Floats) -> float:
    """Mean absolute error, in the unit of the series."""
    return float(np.mean(np.abs(actual - forecast)))


def rmse(actual: Floats, forecast: Floats) -> float:
    """Root of the mean squared error, in the unit of the series."""
    return float(np.sqrt(np.mean((actual - forecast) ** 2)))


def smape(actual: Floats, forecast: Floats) -> float:
    """Symmetric mean absolute percentage error, 0 to 200; where both are 0 the error is 0."""
    size = np.abs(actual) + np.abs(forecast)
    return float(200 * np.mean(np.abs(actual - forecast) / np.where(size == 0, 1.0, size)))


def seasonal_scale(history: Floats, season: int) -> float:
    """Mean absolute error of the seasonal naive forecast within `history`; 0 for one that never changes."""
    period = season if 1 <= season < len(history) else 1
    if len(history) < 2:
        return 0.0
    return float(np.mean(np.abs(history[period:] - history[:-period])))


def mase(actual: Floats, forecast: Floats, history: Floats, season: int) -> float:
    """Mean absolute scaled error: 1 is as good as the seasonal naive forecast was within `history`.

    A history that never changes has no scale; the error is then taken as it is (0 when right).
    """
    return mae(actual, forecast) / (seasonal_scale(history, season) or 1.0)


def owa(smape_: float, mase_: float, naive_smape: float, naive_mase: float) -> float:
    """Overall weighted average against Naive2: below 1 is better than it."""
    return 0.5 * (smape_ / naive_smape + mase_ / naive_mase)


def coverage(actual: Floats, low: Floats, high: Floats) -> float:
    """Share of the actual values within the interval, 0 to 1."""
    return float(np.mean((actual >= low) & (actual <= high)))


def pinball(actual: Floats, quantile_forecast: Floats, quantile: float) -> float:
    """Quantile loss at `quantile` (0 to 1), in the unit of the series."""
    error = actual - quantile_forecast
    return float(np.mean(np.maximum(quantile * error, (quantile - 1) * error)))


def r2(actual: Floats, predicted: Floats) -> float:
    """Share of the variance that is explained; 0 is as good as the mean."""
    total = float(np.sum((actual - actual.mean()) ** 2))
    return 1.0 - float(np.sum((actual - predicted) ** 2)) / total if total > 0 else 0.0


def accuracy(actual: NDArray[np.int64], probabilities: Floats) -> float:
    """Share of rows whose likeliest class (columns of `probabilities`) is the actual one."""
    return float(np.mean(probabilities.argmax(axis=1) == actual))


def log_loss(actual: NDArray[np.int64], probabilities: Floats) -> float:
    """Mean negative log likelihood of the actual class, in nats."""
    likely = probabilities[np.arange(len(actual)), actual]
    return float(-np.mean(np.log(np.clip(likely, _TINY, 1.0))))


def auc(positive: NDArray[np.bool_], score: Floats) -> float:
    """Area under the ROC curve by ranks (Mann-Whitney U), ties counted half; NaN with one class only."""
    good = int(positive.sum())
    bad = len(positive) - good
    if good == 0 or bad == 0:
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[inverse]
    return float((ranks[positive].sum() - good * (good + 1) / 2) / (good * bad))


def mean_of(values: Sequence[float]) -> float:
    """Return the mean of the finite values, NaN when there is none."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
