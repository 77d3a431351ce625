"""A network with everything its row in the catalogue says about it, and tasks that are one network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nexus.catalog.types import ModelVersion
from nexus.core.errors import NotFound
from nexus.vision.backend import BACKENDS, Array, Runtime, Session
from nexus.vision.decoder import DECODERS, Decoder, Scene
from nexus.vision.errors import ModelNotRunnable
from nexus.vision.geometry import Placement
from nexus.vision.inputs import InputSpec, fit, tensor
from nexus.vision.naming import labels_of
from nexus.vision.stopwatch import Stopwatch
from nexus.vision.task import Loaded, Parameters, VisionTask
from nexus.vision.types import Findings, Image, Integers, Pixels

P = TypeVar("P", bound=Parameters)


class DecoderSpec(BaseModel):
    """The `decoder` table of a vision model: the plug, and what it needs to know of this model."""

    model_config = ConfigDict(extra="forbid")

    name: str
    params: dict[str, Any] = Field(default_factory=dict)


class NetworkSpec(BaseModel):
    """What `meta` of a vision model that is one network holds."""

    model_config = ConfigDict(extra="ignore")

    input: InputSpec
    decoder: DecoderSpec
    labels: str | list[str] | None = None

    @classmethod
    def of(cls, version: ModelVersion) -> NetworkSpec:
        """Read it. Raises `ModelNotRunnable` when something is missing or wrong."""
        try:
            return cls.model_validate(version.meta)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise ModelNotRunnable(
                f"The model's description is missing or wrong at `{where}`.", field="model"
            ) from None


@dataclass(frozen=True, slots=True)
class Network:
    """A loaded network: session, input, decoder and class names."""

    session: Session
    spec: NetworkSpec
    decoder: Decoder
    labels: tuple[str, ...]

    @classmethod
    def load(cls, version: ModelVersion, runtime: Runtime, *, task: str) -> Network:
        """Open the network of a version whose decoder must serve `task`.

        Raises `ModelNotRunnable`, and what `Backend.open` raises.
        """
        spec = NetworkSpec.of(version)
        try:
            decoder = DECODERS.get(spec.decoder.name)
        except NotFound:
            raise ModelNotRunnable(
                "The model's description names a decoder that is not there.", field="model"
            ) from None
        path = version.files.get("model") or next(iter(version.files.values()), None)
        backend = next((each for each in BACKENDS.all().values() if path and path.suffix in each.suffixes), None)
        if path is None or backend is None or decoder.task != task:
            raise ModelNotRunnable("No back-end and decoder here can run this model's files.", field="model")
        return cls(backend.open(path, runtime), spec, decoder, labels_of(spec.labels))

    @property
    def threshold(self) -> float:
        """Return the lowest score worth showing for this model."""
        return float(self.spec.decoder.params.get("threshold", self.decoder.threshold))

    def prepare(self, pixels: Pixels) -> tuple[Array, Placement]:
        """Return the tensor of a picture, and where the picture lies in it."""
        fitted, placed = fit(pixels, self.spec.input)
        return tensor(fitted, self.spec.input), placed

    def infer(self, batch: Array) -> dict[str, Array]:
        """Run the network on one prepared picture and take the batch axis off its outputs."""
        outputs = self.session.run({self.session.inputs[0].name: batch})
        return {name: values[0] if values.ndim and values.shape[0] == 1 else values for name, values in outputs.items()}

    def decode(self, outputs: Mapping[str, Array], threshold: float) -> Findings:
        """Return the findings in pixels of the network's input, named."""
        size = self.spec.input
        found = self.decoder.decode(outputs, Scene(size.width, size.height, threshold, self.spec.decoder.params))
        return found if found.class_ids is None else replace(found, labels=self.names(found.class_ids))

    def names(self, class_ids: Integers) -> tuple[str, ...]:
        """Return the name of each class; its number where the model has no names."""
        known = len(self.labels)
        return tuple(self.labels[i] if 0 <= i < known else str(i) for i in class_ids.tolist())

    def close(self) -> None:
        """Let go of the memory."""
        self.session.close()


class NetworkTask(VisionTask[Network, P], Generic[P]):
    """A task that is one network: prepare, infer, decode, and then what the task makes of it."""

    def enough(self, version: ModelVersion) -> int | None:
        """Return the longer side of the network's input."""
        spec = NetworkSpec.of(version).input
        return max(spec.width, spec.height)

    def load(self, version: ModelVersion, runtime: Runtime) -> Network:
        """Open the network."""
        return Network.load(version, runtime, task=self.model_task)

    def run(self, loaded: Loaded[Network], image: Image, parameters: P, watch: Stopwatch) -> Findings:
        """Return what the network finds."""
        network = loaded.model
        with watch.stage("preprocess"):
            batch, placed = network.prepare(image.pixels)
        with watch.stage("inference"):
            outputs = network.infer(batch)
        with watch.stage("postprocess"):
            return self.postprocess(network, outputs, image, placed, parameters)

    @abstractmethod
    def postprocess(
        self, network: Network, outputs: Mapping[str, Array], image: Image, placed: Placement, parameters: P
    ) -> Findings:
        """Turn the outputs of one picture into findings in pixels of `image.pixels`."""
