"""Reads M3 and M4 series as the measured data have them."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nexus.analytics import metrics
from nexus.analytics.backtest import safe_forecasts
from nexus.analytics.forecaster import Forecaster
from nexus.analytics.reference import naive2
from nexus.analytics.types import Floats


@dataclass(frozen=True)
class Sample:
    """Past and future of some series; `season` is that of the metric."""

    past: list[Floats]
    future: list[Floats]
    season: int

    @property
    def horizon(self) -> int:
        return len(self.future[0])

    def score(self, forecasts: list[Floats]) -> tuple[float, float]:
        """Return mean sMAPE and MASE."""
        rows = list(zip(self.past, self.future, forecasts, strict=True))
        return (
            float(np.mean([metrics.smape(actual, guess) for _, actual, guess in rows])),
            float(np.mean([metrics.mase(actual, guess, past, self.season) for past, actual, guess in rows])),
        )

    def owa(self, forecasts: list[Floats]) -> float:
        """Return the overall weighted average against Naive2 on the same series."""
        reference = [naive2(past, self.horizon, self.season) for past in self.past]
        return metrics.owa(*self.score(forecasts), *self.score(reference))

    def forecast(self, model: Forecaster, season: int | None = None) -> list[Floats]:
        made = safe_forecasts(model, self.past, horizon=self.horizon, season=season or self.season, levels=())
        return [one.mean for one in made]


def m3(shared: Path, name: str, season: int, most: int | None = None) -> Sample:
    past: dict[str, list[float]] = {}
    future: dict[str, list[float]] = {}
    with gzip.open(shared / "data/analytics/m3" / f"{name}.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            (future if row["is_test"] == "1" else past).setdefault(row["unique_id"], []).append(float(row["y"]))
    names = _some(list(past), most)
    return Sample([np.array(past[n]) for n in names], [np.array(future[n]) for n in names], season)


def m4(shared: Path, name: str, season: int, most: int | None = None) -> Sample:
    def read(part: str) -> dict[str, Floats]:
        with gzip.open(shared / "data/analytics/m4" / f"{name}-{part}.csv.gz", "rt") as file:
            rows = list(csv.reader(file))[1:]
        return {row[0]: np.array([float(cell) for cell in row[1:] if cell not in ("", "NA")]) for row in rows}

    past, future = read("train"), read("test")
    names = _some(list(past), most)
    return Sample([past[n] for n in names], [future[n] for n in names], season)


def _some(names: list[str], most: int | None) -> list[str]:
    order = np.random.default_rng(42).permutation(len(names))
    return [names[place] for place in order[:most]]
