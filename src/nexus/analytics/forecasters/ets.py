"""Exponential smoothing, its form chosen by AICc (Hyndman et al. 2002), by statsforecast's AutoETS."""

from __future__ import annotations

from collections.abc import Sequence

from nexus.analytics.forecaster import OneByOne
from nexus.analytics.seasonality import add_back, take_out
from nexus.analytics.statistical import run_statsforecast
from nexus.analytics.types import Floats, Forecast

# Each season costs a state: above this the season is taken out first (measured: 0.5 s a series at 52).
_LONGEST_SEASON = 24


class Ets(OneByOne):
    """Error, trend and season, each absent, additive or multiplicative, the trend perhaps damped."""

    title = "Exponential smoothing (ETS)"
    source = "Hyndman, Koehler, Snyder & Grose 2002, doi:10.1016/S0169-2070(01)00110-8; statsforecast AutoETS"

    def needs(self, season: int) -> int:
        """Below this the smallest form has more parameters than data."""
        return 8

    def continue_one(self, y: Floats, *, horizon: int, season: int, levels: Sequence[int]) -> Forecast:
        """Fit the best form and continue it; its own variance gives the intervals."""
        from statsforecast.models import AutoETS

        if len(y) < 2 * season + 3:
            season = 1
        if season <= _LONGEST_SEASON:
            return run_statsforecast(AutoETS(season_length=season), y, horizon, levels)
        pattern = take_out(y, season)
        rest = run_statsforecast(AutoETS(season_length=1), pattern.rest, horizon, levels)
        return add_back(rest, pattern, horizon)


plug = Ets()
