"""The Theta method (Assimakopoulos & Nikolopoulos 2000), winner of M3, by statsforecast's AutoTheta."""

from __future__ import annotations

from collections.abc import Sequence

from nexus.analytics.forecaster import OneByOne
from nexus.analytics.statistical import run_statsforecast
from nexus.analytics.types import Floats, Forecast


class Theta(OneByOne):
    """The best of four Theta models: standard or optimised, static or dynamic."""

    title = "Theta"
    source = "Fiorucci et al. 2016, doi:10.1016/j.ijforecast.2016.02.005; statsforecast AutoTheta"

    def needs(self, season: int) -> int:
        """Below this the trend line is not worth its name."""
        return 5

    def continue_one(self, y: Floats, *, horizon: int, season: int, levels: Sequence[int]) -> Forecast:
        """Fit and continue; simulated paths give the intervals."""
        from statsforecast.models import AutoTheta

        if len(y) < 2 * season + 3:
            season = 1
        return run_statsforecast(AutoTheta(season_length=season), y, horizon, levels)


plug = Theta()
