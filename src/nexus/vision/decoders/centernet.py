"""CenterNet with its peak picking in the graph (Zhou et al., arXiv 1904.07850), as `@vladmandic/human` has it.

Its output is (peaks, 6): x1 y1 x2 y2 in pixels of the input, score, class. Scores of this network run
low: 0.3 shows well.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nexus.vision.backend import Array
from nexus.vision.decoder import Decoder, Scene, main_output
from nexus.vision.errors import ModelBroken
from nexus.vision.types import Findings


class CenterNet(Decoder):
    """Decodes picked peaks."""

    task = "detect"
    threshold = 0.3

    def decode(self, outputs: Mapping[str, Array], scene: Scene) -> Findings:
        """Return the peaks that reach the threshold."""
        peaks = main_output(outputs, scene.params)
        if peaks.ndim != 2 or peaks.shape[1] != 6:
            raise ModelBroken("The detector's output does not have the shape of CenterNet.")
        rows = np.asarray(peaks[peaks[:, 4] >= scene.threshold], np.float32)
        return Findings(scores=rows[:, 4], class_ids=rows[:, 5].astype(np.int64), boxes=rows[:, :4])


plug = CenterNet()
