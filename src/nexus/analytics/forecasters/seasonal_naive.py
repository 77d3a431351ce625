"""The last season again: what every other forecaster has to beat (Hyndman & Athanasopoulos, FPP3, 5.2)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from nexus.analytics.forecaster import OneByOne
from nexus.analytics.types import Floats, Forecast


class SeasonalNaive(OneByOne):
    """Repeats the last season; without a season, the last value."""

    title = "Seasonal naive"
    source = "Hyndman & Athanasopoulos, Forecasting: Principles and Practice (3rd ed.), section 5.2"

    def needs(self, season: int) -> int:
        """Two observations tell how far one differs from the next."""
        return 2

    def continue_one(self, y: Floats, *, horizon: int, season: int, levels: Sequence[int]) -> Forecast:
        """Repeat the last season; the interval grows with the root of the seasons passed (FPP3, 5.5)."""
        period = season if 1 <= season < len(y) else 1
        steps = np.arange(horizon)
        mean = y[len(y) - period + steps % period].astype(np.float64)
        errors = y[period:] - y[:-period]
        width = np.sqrt(np.mean(errors**2)) * np.sqrt(steps // period + 1)
        intervals = {}
        for level in levels:
            spread = NormalDist().inv_cdf(0.5 + level / 200) * width
            intervals[level] = (mean - spread, mean + spread)
        return Forecast(mean, intervals)


plug = SeasonalNaive()
