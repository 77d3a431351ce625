"""The contract of a benchmark: one file in `benches/` with a public `plug`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from nexus.core.plugins import PluginFolder


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure: a median, with its target and what the peer reached, where there are such."""

    name: str
    value: float
    unit: str
    target: float | None = None
    lower_is_better: bool = True
    peer: str | None = None

    @property
    def met(self) -> bool | None:
        """Tell whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value <= self.target if self.lower_is_better else self.value >= self.target

    def data(self) -> dict[str, Any]:
        """Return the figure as JSON data."""
        return {**asdict(self), "met": self.met}


@runtime_checkable
class Bench(Protocol):
    """A benchmark."""

    summary: ClassVar[str]

    def run(self, *, quick: bool) -> list[Figure]:
        """Measure and return the figures."""
        ...


BENCHES: PluginFolder[Bench] = PluginFolder("nexus.bench.benches", Bench, noun="benchmark")  # type: ignore[type-abstract]
