"""The contract of a back-end: what runs a network file on a device.

A plug is one module in `backends/` whose `plug` is a `Backend`. A session is safe to call from many
threads at once and is always batch-shaped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from nexus.core.plugins import PluginFolder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where and how a network is to run: `device` is auto, cpu, cuda or cuda:N; `threads` inside one call."""

    device: str = "auto"
    threads: int = 1
    precision: str = "f32"


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a network; 0 in `shape` is a size that may vary."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Session(Protocol):
    """A loaded network."""

    inputs: tuple[Input, ...]
    device: str
    precision: str

    def run(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output by name. Blocking; raises `ModelBroken` when the network refuses its input."""
        ...

    def close(self) -> None:
        """Let go of the memory."""
        ...


class Backend(ABC):
    """Opens network files."""

    suffixes: tuple[str, ...]

    @abstractmethod
    def open(self, path: Path, runtime: Runtime) -> Session:
        """Load a network. Raises `ModelBroken` for a bad file and `DeviceUnavailable` for a missing device."""


BACKENDS: PluginFolder[Backend] = PluginFolder("nexus.vision.backends", Backend, noun="vision back-end")  # type: ignore[type-abstract]
