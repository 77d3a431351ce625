"""Where is what? A box, a class and a confidence for each thing in the picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from pydantic import Field

from nexus.core.errors import InvalidInput
from nexus.vision.backend import Array
from nexus.vision.errors import ModelBroken
from nexus.vision.geometry import Placement, area, boxes_to_picture, nms
from nexus.vision.network import Network, NetworkTask
from nexus.vision.selection import pick
from nexus.vision.task import Parameters
from nexus.vision.types import Findings, Image

_MOST_CANDIDATES = 3000


class DetectParameters(Parameters):
    """What is shown: `threshold` (default the model's own), only these `classes`, `max_results` at the most.

    `iou` is how far two boxes of one class may overlap before the weaker is dropped.
    """

    threshold: float | None = Field(None, ge=0, le=1)
    iou: float | None = Field(None, ge=0, le=1)
    max_results: int = Field(100, ge=1, le=1000)
    classes: list[str] | None = Field(None, max_length=200)


class Detect(NetworkTask[DetectParameters]):
    """Finds things of known classes."""

    name = "detect"
    title = "Find objects: a box, a class and a confidence for each."
    parameters = DetectParameters

    def postprocess(
        self,
        network: Network,
        outputs: Mapping[str, Array],
        image: Image,
        placed: Placement,
        parameters: DetectParameters,
    ) -> Findings:
        """Return the boxes that stay after suppressing doubles, best first, cut at the picture's edges."""
        threshold = network.threshold if parameters.threshold is None else parameters.threshold
        found = network.decode(outputs, threshold)
        if found.boxes is None or found.class_ids is None:
            raise ModelBroken("The detector's decoder gave no boxes.")
        if parameters.classes is not None:
            found = pick(found, np.flatnonzero(np.isin(found.labels, _known(network, parameters.classes))))
        found = pick(found, np.argsort(-found.scores, kind="stable")[:_MOST_CANDIDATES])
        assert found.boxes is not None
        assert found.class_ids is not None
        iou = float(network.spec.decoder.params.get("iou", 0.65)) if parameters.iou is None else parameters.iou
        found = pick(found, nms(found.boxes, found.scores, found.class_ids, iou)[: parameters.max_results])
        assert found.boxes is not None
        height, width = image.pixels.shape[:2]
        found = replace(found, boxes=boxes_to_picture(found.boxes, placed, width, height))
        assert found.boxes is not None
        return pick(found, np.flatnonzero(area(found.boxes) > 0))


def _known(network: Network, classes: list[str]) -> list[str]:
    """Return `classes`, or raise `InvalidInput` when the model does not know one of them."""
    if not set(classes) <= set(network.labels):
        raise InvalidInput("The model does not know one of these classes.", field="classes")
    return classes


plug = Detect()
