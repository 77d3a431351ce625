"""Robust location and spread: the half of the data that is ordinary decides, not the odd rest."""

from __future__ import annotations

import numpy as np

from nexus.analytics.types import Floats

# Makes the median absolute deviation of normal data their standard deviation.
_MAD = 1.4826
_MEAN_DEVIATION = 1.2533
# A tenth of normal data lies farther out than so many standard deviations.
_TENTH_BEYOND = 1.6449


def spread(values: Floats) -> float:
    """Return a robust standard deviation, 0 only for values that are all the same.

    Where more than half of the values are equal the median absolute deviation is 0, and the mean one is
    taken (Iglewicz & Hoaglin 1993).
    """
    deviations = np.abs(values - np.median(values))
    return float(_MAD * np.median(deviations)) or float(_MEAN_DEVIATION * deviations.mean())


def distances(values: Floats) -> Floats:
    """Return how many robust standard deviations each value lies from the median."""
    size = spread(values)
    if size == 0:
        return np.zeros(len(values))
    away: Floats = np.abs(values - np.median(values)) / size
    return away


def residual_distances(rest: Floats) -> Floats:
    """Return how many standard deviations each residual of a series lies from 0.

    What trend and season leave behind has heavy tails even where nothing is wrong, so the spread is also
    read off the tenth that lies farthest out: more than a tenth of a series is a habit, not an anomaly.
    """
    tail = float(np.quantile(np.abs(rest), 0.9)) / _TENTH_BEYOND
    size = max(spread(rest), tail)
    return np.abs(rest) / size if size > 0 else np.zeros(len(rest))


def expected_series(y: Floats, season: int) -> Floats:
    """Return what each moment of a series would have been: a running median, and the usual season on top."""
    usual = np.zeros(len(y))
    if 1 < season <= len(y) // 3:
        width = season + (season + 1) % 2
        rest = (y - running_median(y, width))[width // 2 : len(y) - width // 2]
        steps = np.arange(width // 2, len(y) - width // 2) % season
        pattern = np.array([np.median(rest[steps == step]) for step in range(season)])
        usual = pattern[np.arange(len(y)) % season]
    expected: Floats = usual + running_median(y - usual, max(7, season + (season + 1) % 2))
    return expected


def running_median(y: Floats, width: int) -> Floats:
    """Return the median of the `width` (odd) values around each one; towards the ends of fewer, but of four."""
    half = min(width // 2, (len(y) - 1) // 2)
    medians = np.empty(len(y))
    if half:
        windows = np.lib.stride_tricks.sliding_window_view(y, 2 * half + 1)
        medians[half : len(y) - half] = np.median(windows, axis=1)
    for place in (*range(half), *range(len(y) - half, len(y))):
        reach = max(3, min(place, len(y) - 1 - place))
        medians[place] = np.median(y[max(0, place - reach) : place + reach + 1])
    return medians
