"""The contract of a forecaster: one file in `forecasters/` with a public `plug`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from nexus.analytics.types import Floats, Forecast
from nexus.core.plugins import PluginFolder


class Forecaster(ABC):
    """A way to continue series. Runs in a compute child; heavy libraries are imported in its methods.

    `title` and `source` tell people what it is and where it was published. `auto` lets the model
    `auto` choose it. A forecaster that learns across series sees all of them in one call.
    """

    title: ClassVar[str]
    source: ClassVar[str]
    auto: ClassVar[bool] = True

    def needs(self, season: int) -> int:
        """Return how many observations a series must have at least."""
        return 3

    @abstractmethod
    def forecast(
        self, history: Sequence[Floats], *, horizon: int, season: int, levels: Sequence[int]
    ) -> list[Forecast]:
        """Continue every series of `history` (each finite, oldest first) by `horizon` steps.

        `season` is the number of steps of one season, 1 for none; `levels` are percent, such as 80. The
        answer is in the order of `history`. May raise anything for a series it cannot handle: the
        caller then asks for each alone, and falls back to the seasonal naive forecast.
        """
        ...


class OneByOne(Forecaster):
    """A forecaster that looks at each series by itself."""

    @abstractmethod
    def continue_one(self, y: Floats, *, horizon: int, season: int, levels: Sequence[int]) -> Forecast:
        """Continue one series: see `Forecaster.forecast`."""
        ...

    def forecast(
        self, history: Sequence[Floats], *, horizon: int, season: int, levels: Sequence[int]
    ) -> list[Forecast]:
        """Continue each series in turn."""
        return [self.continue_one(y, horizon=horizon, season=season, levels=levels) for y in history]


FORECASTERS: PluginFolder[Forecaster] = PluginFolder(
    "nexus.analytics.forecasters",
    Forecaster,  # type: ignore[type-abstract]
    noun="forecaster",
)
