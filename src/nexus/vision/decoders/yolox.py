"""YOLOX without the decoding in its graph (Ge et al., arXiv 2107.08430; `demo_postprocess` of the original).

The output is (anchors, 5 + classes): x and y as an offset from the cell, the logarithm of w and h, all
in strides of 8, 16 and 32 pixels (`strides` in the row's params), then objectness and class scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nexus.vision.backend import Array
from nexus.vision.decoder import Decoder, Scene, main_output
from nexus.vision.errors import ModelBroken
from nexus.vision.geometry import centre_to_corners
from nexus.vision.types import Findings, Floats


def grid(width: int, height: int, strides: Sequence[int]) -> tuple[Floats, Floats]:
    """Return the cell (n, 2) and the stride (n, 1) of every anchor, finest level first, row by row."""
    cells, sizes = [], []
    for stride in strides:
        y, x = np.mgrid[: height // stride, : width // stride]
        cells.append(np.stack([x, y], axis=-1).reshape(-1, 2))
        sizes.append(np.full((x.size, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(sizes).astype(np.float32)


class YoloX(Decoder):
    """Decodes raw YOLOX anchors."""

    task = "detect"
    threshold = 0.3

    def decode(self, outputs: Mapping[str, Array], scene: Scene) -> Findings:
        """Return one candidate for each anchor that reaches the threshold."""
        anchors = np.asarray(main_output(outputs, scene.params), np.float32)
        cells, strides = grid(scene.width, scene.height, scene.params.get("strides", (8, 16, 32)))
        if anchors.ndim != 2 or anchors.shape[0] != len(cells) or anchors.shape[1] < 6:
            raise ModelBroken("The detector's output does not have the shape of YOLOX.")
        hopeful = np.flatnonzero(anchors[:, 4] >= scene.threshold)
        anchors, cells, strides = anchors[hopeful], cells[hopeful], strides[hopeful]
        scores = anchors[:, 4:5] * anchors[:, 5:]
        class_ids = scores.argmax(axis=1) if len(scores) else np.zeros(0, np.int64)
        best = scores.max(axis=1, initial=0.0)
        centres, sides = (anchors[:, :2] + cells) * strides, np.exp(anchors[:, 2:4]) * strides
        boxes = centre_to_corners(np.concatenate([centres, sides], axis=1))
        kept = best >= scene.threshold
        return Findings(scores=best[kept], class_ids=class_ids[kept].astype(np.int64), boxes=boxes[kept])


plug = YoloX()
