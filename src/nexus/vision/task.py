"""The contract of a vision task: what a caller may ask of a picture.

A plug is one module in `tasks/` whose `plug` is a `VisionTask`. The service finds the model, decodes
the picture, loads what is needed, runs the task in a worker thread, renders, caches and records;
a plug only says how its models are loaded and what is done with a picture. Tasks that are one
network (`nexus.vision.network.NetworkTask`) write no more than `postprocess`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from nexus.catalog.types import ModelVersion
from nexus.core.plugins import PluginFolder
from nexus.vision.backend import Runtime
from nexus.vision.settings import VisionSettings
from nexus.vision.stopwatch import Stopwatch
from nexus.vision.types import Findings, Image


class Parameters(BaseModel):
    """What a caller may set; each task has its own. Unknown names and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


M = TypeVar("M")
P = TypeVar("P", bound=Parameters)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[M]):
    """The model that a call uses, and those of the task's companions by task name."""

    model: M
    version: ModelVersion
    companions: Mapping[str, Any] = field(default_factory=dict)


class VisionTask(ABC, Generic[M, P]):
    """One thing that can be asked of a picture."""

    name: ClassVar[str]
    """The name of the file, which is that of the route."""
    title: ClassVar[str]
    """What it does, in one line, for the list of tasks."""
    parameters: type[P]
    companions: ClassVar[tuple[str, ...]] = ()
    """Other tasks whose default model this one needs too: pose needs `detect` to find the people."""

    @property
    def model_task(self) -> str:
        """Return the `task` of the catalogue's rows that serve this one."""
        return self.name

    def accepts(self, version: ModelVersion) -> bool:
        """Tell whether this model can do the task."""
        return version.task == self.model_task

    def runtime(self, settings: VisionSettings, device: str) -> Runtime:
        """Return how this task's networks are to run."""
        return Runtime(device=device, threads=settings.threads)

    def enough(self, version: ModelVersion) -> int | None:
        """Return the side in pixels beyond which this model sees no more, or None when every pixel counts."""
        return None

    @abstractmethod
    def load(self, version: ModelVersion, runtime: Runtime) -> M:
        """Load a model. Blocking; runs in the loader's thread. Raises `ModelNotRunnable`, `ModelBroken`."""

    @abstractmethod
    def run(self, loaded: Loaded[M], image: Image, parameters: P, watch: Stopwatch) -> Findings:
        """Return what is in the picture, in pixels of `image.pixels`. Blocking; thread-safe."""


TASKS: PluginFolder[VisionTask[Any, Any]] = PluginFolder("nexus.vision.tasks", VisionTask, noun="vision task")  # type: ignore[type-abstract]
