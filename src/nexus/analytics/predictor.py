"""The contract of a predictor: one file in `predictors/` with a public `plug`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nexus.analytics.types import Floats, Task
from nexus.core.plugins import PluginFolder

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Lesson:
    """What to learn from: `x` rows x features, NaN for missing; `y` values, or class numbers below `classes`.

    `categorical` are the features that hold level numbers, not sizes. `seed` makes learning repeatable.
    """

    x: Floats
    y: NDArray[Any]
    task: Task
    categorical: Sequence[int] = ()
    classes: int = 0
    seed: int = 0


class Fitted(ABC):
    """A model that has learned."""

    @abstractmethod
    def predict(self, x: Floats) -> Floats:
        """Return a value for each row, or rows x classes of probabilities that add up to 1."""
        ...

    @abstractmethod
    def save(self, folder: Path) -> dict[str, Path]:
        """Write the model as files by role. Never a pickle: reading one runs what is in it."""
        ...


class Predictor(ABC):
    """A learner for tables. Runs in a compute child; heavy libraries are imported in its methods."""

    title: ClassVar[str]
    source: ClassVar[str]
    tasks: ClassVar[frozenset[Task]] = frozenset({"classification", "regression"})

    @abstractmethod
    def fit(self, lesson: Lesson) -> Fitted:
        """Learn. The same lesson gives the same model."""
        ...

    @abstractmethod
    def load(self, files: Mapping[str, Path], *, task: Task, classes: int) -> Fitted:
        """Read what `save` wrote; it predicts exactly what the saved one did."""
        ...


PREDICTORS: PluginFolder[Predictor] = PluginFolder(
    "nexus.analytics.predictors",
    Predictor,  # type: ignore[type-abstract]
    noun="predictor",
)
