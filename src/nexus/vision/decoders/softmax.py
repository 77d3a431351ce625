"""One score for each class: image classifiers of every make.

Params: `logits` (default true) says that a softmax is still to be taken; `skip` (default 0) how many
leading classes are not in the label list (1 where class 0 is "background"); `scale` multiplies
integer outputs of quantised networks.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nexus.vision.backend import Array
from nexus.vision.decoder import Decoder, Scene, main_output
from nexus.vision.errors import ModelBroken
from nexus.vision.types import Findings


class Softmax(Decoder):
    """Decodes class scores."""

    task = "classify"

    def decode(self, outputs: Mapping[str, Array], scene: Scene) -> Findings:
        """Return the classes that reach the threshold, likeliest first."""
        values = np.asarray(main_output(outputs, scene.params), np.float64).reshape(-1) * float(
            scene.params.get("scale", 1.0)
        )
        values = values[int(scene.params.get("skip", 0)) :]
        if not len(values) or not np.isfinite(values).all():
            raise ModelBroken("The classifier's output is not a list of scores.")
        if scene.params.get("logits", True):
            values = np.exp(values - values.max())
            values /= values.sum()
        order = np.argsort(-values, kind="stable")
        order = order[values[order] >= scene.threshold]
        return Findings(scores=values[order].astype(np.float32), class_ids=order.astype(np.int64))


plug = Softmax()
