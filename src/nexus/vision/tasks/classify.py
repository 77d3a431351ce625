"""What is this a picture of? The likeliest classes of the whole picture."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from nexus.vision.backend import Array
from nexus.vision.geometry import Placement
from nexus.vision.network import Network, NetworkTask
from nexus.vision.selection import first
from nexus.vision.task import Parameters
from nexus.vision.types import Findings, Image


class ClassifyParameters(Parameters):
    """`top_k` classes at the most, none below `threshold`."""

    top_k: int = Field(5, ge=1, le=1000)
    threshold: float = Field(0.0, ge=0, le=1)


class Classify(NetworkTask[ClassifyParameters]):
    """Names the picture as a whole."""

    name = "classify"
    title = "Name what a picture shows, with a probability for each class."
    parameters = ClassifyParameters

    def postprocess(
        self,
        network: Network,
        outputs: Mapping[str, Array],
        image: Image,
        placed: Placement,
        parameters: ClassifyParameters,
    ) -> Findings:
        """Return the likeliest classes."""
        return first(network.decode(outputs, parameters.threshold), parameters.top_k)


plug = Classify()
