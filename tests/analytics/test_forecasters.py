"""Every forecaster keeps its contract, the day its file lands."""

from __future__ import annotations

import numpy as np
import pytest

from nexus.analytics.backtest import safe_forecasts
from nexus.analytics.forecaster import FORECASTERS

HISTORIES = {
    "constant": (np.full(30, 5.0), 1),
    "zero": (np.zeros(30), 1),
    "shortest": (np.array([1.0, 2.0, 4.0]), 1),
    "short for its season": (np.arange(10.0), 12),
    "seasonal": (100 + np.arange(48) + 10 * np.sin(np.arange(48) * np.pi / 6), 12),
    "negative": (-100 - np.arange(40.0) + np.tile([1.0, 3.0], 20), 4),
    "huge": (1e12 * (1 + np.tile([0.1, 0.2, 0.3], 12)), 1),
    "tiny": (1e-12 * (1 + np.tile([0.1, 0.2, 0.3], 12)), 1),
    "long season": (np.tile(np.arange(52.0), 5) + np.arange(260) * 0.1, 52),
    "one jump": (np.concatenate((np.zeros(20), np.full(20, 1000.0))), 7),
    "intermittent": (np.tile([0, 0, 3.0, 0, 0, 0, 1.0], 8), 7),
}


@pytest.mark.parametrize("name", FORECASTERS.names())
def test_a_plug_says_what_it_is(name: str) -> None:
    plug = FORECASTERS.get(name)
    assert plug.title
    assert plug.source
    assert plug.needs(1) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("case", HISTORIES)
@pytest.mark.parametrize("name", FORECASTERS.names())
def test_any_series_is_continued(name: str, case: str) -> None:
    history, season = HISTORIES[case]
    before = history.copy()
    (forecast,) = safe_forecasts(FORECASTERS.get(name), [history], horizon=14, season=season, levels=(80, 95))
    assert (history == before).all()
    assert forecast.mean.shape == (14,)
    assert np.isfinite(forecast.mean).all()
    assert set(forecast.intervals) == {80, 95}
    (low80, high80), (low95, high95) = forecast.intervals[80], forecast.intervals[95]
    slack = 1e-6 * max(1e-9, float(np.abs(history).max()))
    for lower, upper in ((low95, low80), (low80, forecast.mean), (forecast.mean, high80), (high80, high95)):
        assert (lower <= upper + slack).all()
    # Nothing flies off: within ten times the range that has been seen.
    room = 10 * max(float(np.ptp(history)), float(np.abs(history).max()), 1e-12)
    assert np.abs(forecast.mean - history.mean()).max() <= room


@pytest.mark.slow
@pytest.mark.parametrize("name", FORECASTERS.names())
def test_a_clear_season_is_found_and_the_answer_is_repeatable(name: str) -> None:
    steps = np.arange(72)
    history = 100 + 20 * np.sin(steps * np.pi / 6) + np.random.default_rng(1).normal(0, 0.5, 72)
    plug = FORECASTERS.get(name)
    first, second = (safe_forecasts(plug, [history], horizon=12, season=12, levels=(80,))[0] for _ in range(2))
    assert np.abs(first.mean - (100 + 20 * np.sin((72 + np.arange(12)) * np.pi / 6))).max() < 4
    assert (first.mean == second.mean).all()
    assert (first.intervals[80][0] == second.intervals[80][0]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", FORECASTERS.names())
def test_many_series_are_the_same_as_each_alone(name: str) -> None:
    series = [100 + np.random.default_rng(n).normal(0, 5, 40).cumsum() for n in range(3)]
    plug = FORECASTERS.get(name)
    together = plug.forecast(series, horizon=4, season=1, levels=())
    alone = [plug.forecast([y], horizon=4, season=1, levels=())[0] for y in series]
    assert all((one.mean == other.mean).all() for one, other in zip(together, alone, strict=True))
