"""The contract of a detector: one file in `detectors/` with a public `plug`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from nexus.analytics.types import Floats, Shape
from nexus.core.plugins import PluginFolder


@dataclass(frozen=True, slots=True)
class Scored:
    """An anomaly score for each row, 0 to 1, higher is odder; and from which score on a row is an anomaly.

    The threshold comes from the data, never from an assumed share of anomalies. `expected` is what
    each row would have been, where the detector can tell.
    """

    scores: Floats
    threshold: float
    expected: Floats | None = None


class Detector(ABC):
    """A way to find odd rows. Runs in a compute child; heavy libraries are imported in its methods.

    `shapes` says what it looks at: moments of a series, or rows of a table.
    """

    title: ClassVar[str]
    source: ClassVar[str]
    shapes: ClassVar[frozenset[Shape]] = frozenset({"series", "table"})

    def score_series(self, y: Floats, *, season: int, seed: int) -> Scored:
        """Score the moments of one series, oldest first; `season` is its length in steps, 1 for none."""
        raise NotImplementedError

    @abstractmethod
    def score_rows(self, x: Floats, *, seed: int) -> Scored:
        """Score rows x features; every number is finite. The same rows give the same scores."""
        ...


DETECTORS: PluginFolder[Detector] = PluginFolder(
    "nexus.analytics.detectors",
    Detector,  # type: ignore[type-abstract]
    noun="detector",
)
