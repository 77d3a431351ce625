"""Isolation forest: odd rows are alone after few random cuts (Liu, Ting & Zhou 2008), by scikit-learn."""

from __future__ import annotations

import numpy as np

from nexus.analytics.detector import Detector, Scored
from nexus.analytics.robust import expected_series, spread
from nexus.analytics.types import Floats


class IsolationForest(Detector):
    """Looks at all features together; best on average of the detectors measured (research: analytics 3c)."""

    title = "Isolation forest"
    source = "Liu, Ting & Zhou 2008, doi:10.1109/ICDM.2008.17; scikit-learn IsolationForest"

    def score_series(self, y: Floats, *, season: int, seed: int) -> Scored:
        """Score each moment by its value, its step and its distance from what was expected."""
        expected = expected_series(y, season)
        step = np.diff(y, prepend=y[0])
        scored = self.score_rows(np.column_stack((y, step, y - expected)), seed=seed)
        return Scored(scored.scores, scored.threshold, expected)

    def score_rows(self, x: Floats, *, seed: int) -> Scored:
        """Score rows as the paper does: 0.5 is ordinary, near 1 is alone."""
        from sklearn.ensemble import IsolationForest as Forest

        # Cuts do not depend on scale, but the library computes in single precision.
        x = np.column_stack([(column - np.median(column)) / (spread(column) or 1.0) for column in x.T])
        forest = Forest(n_estimators=200, random_state=seed, n_jobs=1).fit(x)
        scores = -np.asarray(forest.score_samples(x), dtype=np.float64)
        # The scores' own spread decides; below 0.6 the paper sees no anomaly.
        return Scored(scores, min(1.0, max(0.6, float(np.median(scores)) + 3 * spread(scores))))


plug = IsolationForest()
