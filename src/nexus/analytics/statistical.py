"""How the models of statsforecast are asked, one series at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nexus.analytics.types import Floats, Forecast


def run_statsforecast(model: Any, y: Floats, horizon: int, levels: Sequence[int]) -> Forecast:
    """Fit a model of `statsforecast.models` to `y` and continue it.

    The series is scaled to a size of about one first: optimisers and simulations work at that scale,
    and large values lose digits in the library's single-precision paths.
    """
    scale = float(np.mean(np.abs(y))) or 1.0
    answer = model.forecast(y=y / scale, h=horizon, level=list(levels) or None)
    mean = np.asarray(answer["mean"], dtype=np.float64) * scale
    intervals = {}
    for level in levels:
        low = np.asarray(answer[f"lo-{level}"], dtype=np.float64) * scale
        high = np.asarray(answer[f"hi-{level}"], dtype=np.float64) * scale
        intervals[level] = (np.minimum(low, mean), np.maximum(high, mean))
    return Forecast(mean, intervals)
