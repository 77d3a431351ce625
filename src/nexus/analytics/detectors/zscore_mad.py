"""Distance from the median in robust standard deviations (Iglewicz & Hoaglin 1993)."""

from __future__ import annotations

from typing import Final

import numpy as np

from nexus.analytics.detector import Detector, Scored
from nexus.analytics.robust import distances, expected_series, residual_distances
from nexus.analytics.types import Floats

# What Iglewicz and Hoaglin recommend: one of 2000 normal values lies beyond.
_BEYOND: Final = 3.5


class ZScoreMad(Detector):
    """Looks at one number at a time: in a series at what differs from trend and season."""

    title = "Robust z-score (median and MAD)"
    source = "Iglewicz & Hoaglin 1993, How to Detect and Handle Outliers, ASQC Quality Press"

    def score_series(self, y: Floats, *, season: int, seed: int) -> Scored:
        """Score how far each moment lies from what was expected of it."""
        expected = expected_series(y, season)
        return Scored(_share(residual_distances(y - expected)), float(_share(np.array([_BEYOND]))[0]), expected)

    def score_rows(self, x: Floats, *, seed: int) -> Scored:
        """Score each row by its oddest feature."""
        away = np.max([distances(column) for column in x.T], axis=0)
        return Scored(_share(away), float(_share(np.array([_BEYOND]))[0]))


def _share(away: Floats) -> Floats:
    """Return `z / (z + 1)`: 0.5 at one standard deviation, 0.78 at the threshold, never quite 1."""
    # In this form it is 1, and a number, for what is infinitely far away.
    share: Floats = 1 - 1 / (away + 1)
    return share


plug = ZScoreMad()
