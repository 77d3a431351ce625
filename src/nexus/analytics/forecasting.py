"""The story of a forecast, in a compute child: read, check, choose by backtest, continue, render."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nexus.analytics import frequency as frequencies
from nexus.analytics.backtest import NAIVE, Backtest, backtest, safe_forecasts, widened
from nexus.analytics.errors import UnknownMethod
from nexus.analytics.forecaster import FORECASTERS, Forecaster
from nexus.analytics.frames import Frame, to_frame
from nexus.analytics.reading import read_table
from nexus.analytics.types import Forecast, ForecastSpec, Limits, Source

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a forecast may look at: series, newest observations of each, rolling origins, seconds to choose."""

    series: int
    history: int
    windows: int
    seconds: float


def check_model(model: str) -> None:
    """Raise `UnknownMethod`, naming the known ones, unless the forecaster is there."""
    if model != AUTO and model not in FORECASTERS:
        known = [AUTO, *FORECASTERS.names()]
        raise UnknownMethod(f"There is no such forecaster; known are {', '.join(known)}.", field="model")


def forecast_table(source: Source, spec: ForecastSpec, limits: Limits, budget: Budget) -> dict[str, Any]:
    """Return the body of the answer (design/contract.md, forecast) but for its id."""
    check_model(spec.model)
    table = read_table(source, limits)
    frame = to_frame(table, spec.columns, frequency=spec.frequency, fill=spec.fill, max_series=budget.series)
    season = spec.season or frequencies.season_of(frame.frequency)
    history = [one.y[-budget.history :] for one in frame.series]
    models = _candidates(spec.model)
    tested = None
    if spec.backtest or spec.model == AUTO:
        tested = backtest(
            history,
            models,
            horizon=spec.horizon,
            season=season,
            windows=budget.windows,
            seconds=budget.seconds,
            levels=spec.levels,
        )
    chosen = tested.best if tested is not None and spec.model == AUTO else [spec.model] * len(history)
    chosen = [name if len(y) >= models[name].needs(season) else NAIVE for name, y in zip(chosen, history, strict=True)]
    forecasts = _continue(history, chosen, models, spec, season)
    if tested is not None:
        factors = tested.factors
        forecasts = [widened(one, factors.get(name, {})) for one, name in zip(forecasts, chosen, strict=True)]
    return _render(frame, spec, season, chosen, forecasts, tested)


def _candidates(model: str) -> dict[str, Forecaster]:
    if model == AUTO:
        return {name: plug for name, plug in FORECASTERS.all().items() if plug.auto}
    return {name: FORECASTERS.get(name) for name in dict.fromkeys((model, NAIVE))}


def _continue(
    history: list[Any], chosen: list[str], models: dict[str, Forecaster], spec: ForecastSpec, season: int
) -> list[Forecast]:
    """Continue every series by its chosen model, all series of one model in one call."""
    forecasts: dict[int, Forecast] = {}
    for name in dict.fromkeys(chosen):
        places = [place for place, chosen_name in enumerate(chosen) if chosen_name == name]
        made = safe_forecasts(
            models[name],
            [history[place] for place in places],
            horizon=spec.horizon,
            season=season,
            levels=spec.levels,
        )
        forecasts.update(zip(places, made, strict=True))
    return [forecasts[place] for place in range(len(history))]


def _render(
    frame: Frame,
    spec: ForecastSpec,
    season: int,
    chosen: list[str],
    forecasts: list[Forecast],
    tested: Backtest | None,
) -> dict[str, Any]:
    series = []
    for one, forecast in zip(frame.series, forecasts, strict=True):
        ahead = frequencies.future(one, frame.frequency, spec.horizon)
        entry: dict[str, Any] = {
            "unique_id": one.unique_id,
            "ds": frame.render_times(ahead),
            "forecast": _rounded(forecast.mean),
        }
        for level, (low, high) in forecast.intervals.items():
            entry[f"lo-{level}"], entry[f"hi-{level}"] = _rounded(low), _rounded(high)
        series.append(entry)
    body: dict[str, Any] = {
        "model": spec.model,
        "chosen": {one.unique_id: name for one, name in zip(frame.series, chosen, strict=True)},
        "frequency": frame.frequency,
        "season": season,
        "series": series,
        "backtest": None,
    }
    if tested is not None:
        scores = {name: round(score, 6) for name, score in tested.scores.items()}
        body["backtest"] = {"metric": "mase", "windows": tested.windows, "models": scores}
    return body


def _rounded(values: Any) -> list[float]:
    """Return numbers with ten significant digits: more is noise of the optimiser."""
    return [float(f"{value:.10g}") for value in np.asarray(values)]
