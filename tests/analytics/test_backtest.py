"""Rolling origins: no future leaks into the past, and the better model is chosen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from nexus.analytics.backtest import Misses, backtest, cutoffs, safe_forecasts, widened
from nexus.analytics.forecaster import OneByOne
from nexus.analytics.forecasters import seasonal_naive
from nexus.analytics.types import Floats, Forecast


class Knows(OneByOne):
    """Knows that the series counts up by one, and remembers what it was shown."""

    title = source = "test"

    def __init__(self) -> None:
        self.seen: list[int] = []

    def continue_one(self, y: Floats, *, horizon: int, season: int, levels: Sequence[int]) -> Forecast:
        self.seen.append(len(y))
        return Forecast(y[-1] + np.arange(1.0, horizon + 1))


class Breaks(OneByOne):
    """Fails for series that begin with 13, and is infinite for those that begin with 7."""

    title = source = "test"

    def continue_one(self, y: Floats, *, horizon: int, season: int, levels: Sequence[int]) -> Forecast:
        if y[0] == 13:
            raise ZeroDivisionError
        return Forecast(np.full(horizon, np.inf if y[0] == 7 else 1.0))


@pytest.mark.parametrize(
    ("length", "horizon", "season", "windows", "expected"),
    [
        (60, 6, 12, 3, [(54, 6), (48, 6), (42, 6)]),
        (60, 20, 12, 3, [(40, 20)]),
        (10, 6, 1, 3, [(8, 2)]),
        (9, 6, 1, 3, [(8, 1)]),
        (8, 6, 1, 3, []),
        (30, 4, 12, 2, [(26, 4), (22, 4)]),
    ],
)
def test_cutoffs(length: int, horizon: int, season: int, windows: int, expected: list[tuple[int, int]]) -> None:
    assert cutoffs(length, horizon, season, windows) == expected


def test_the_better_model_is_chosen_from_the_past_alone() -> None:
    knows = Knows()
    models = {"knows": knows, "seasonal_naive": seasonal_naive.plug}
    tested = backtest([np.arange(40.0)], models, horizon=5, season=1, windows=3, seconds=10)
    assert tested.best == ["knows"]
    assert tested.scores == {"knows": 0.0, "seasonal_naive": pytest.approx(3.0)}
    assert knows.seen == [35, 30, 25]


def test_short_series_and_late_ones_take_the_best_of_the_others() -> None:
    models = {"knows": Knows(), "seasonal_naive": seasonal_naive.plug}
    ticks = iter(range(100))
    long, short = np.arange(40.0), np.arange(5.0)
    tested = backtest([long, short], models, horizon=5, season=1, windows=1, seconds=10)
    assert tested.best == ["knows", "knows"]
    late = backtest([long] * 6, models, horizon=5, season=1, windows=1, seconds=2, clock=lambda: float(next(ticks)))
    assert late.best == ["knows"] * 6


def test_with_nothing_to_compare_it_is_the_naive_forecast() -> None:
    models = {"knows": Knows(), "seasonal_naive": seasonal_naive.plug}
    tested = backtest([np.arange(5.0)], models, horizon=5, season=1, windows=3, seconds=10)
    assert (tested.best, tested.scores, tested.windows) == (["seasonal_naive"], {}, 0)


def test_a_failing_series_does_not_take_the_others_with_it() -> None:
    history = [np.array([1.0, 2, 3]), np.array([13.0, 2, 3]), np.array([7.0, 2, 4])]
    made = safe_forecasts(Breaks(), history, horizon=2, season=1, levels=())
    assert [list(one.mean) for one in made] == [[1, 1], [3, 3], [4, 4]]


def test_the_factor_is_the_conformal_quantile_of_the_misses() -> None:
    misses = Misses([80])
    mean = np.zeros(99)
    interval = {80: (mean - 2.0, mean + 1.0)}
    misses.add("m", Forecast(mean, interval), np.linspace(0.02, 1.98, 99))
    assert misses.factors() == {"m": {80: pytest.approx(1.6)}}
    below = Misses([80])
    below.add("m", Forecast(mean, interval), -np.linspace(0.02, 1.98, 99))
    assert below.factors() == {"m": {80: 1.0}}
    few = Misses([80])
    few.add("m", Forecast(mean[:9], {80: (mean[:9], mean[:9])}), np.ones(9))
    assert few.factors() == {}


def test_wider_levels_stay_outside_narrower_ones() -> None:
    mean = np.zeros(2)
    forecast = Forecast(mean, {95: (mean - 2, mean + 2), 80: (mean - 1, mean + 1)})
    wide = widened(forecast, {80: 3.0, 95: 1.0})
    assert [float(bound[0]) for level in (80, 95) for bound in wide.intervals[level]] == [-3, 3, -3, 3]


def test_intervals_without_width_are_widened_by_nothing_and_break_nothing() -> None:
    misses = Misses([80])
    misses.add("m", Forecast(np.zeros(20), {80: (np.zeros(20), np.zeros(20))}), np.ones(20))
    (factor,) = misses.factors()["m"].values()
    assert np.isfinite(factor)
