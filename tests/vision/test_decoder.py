"""The contract of decoders over the whole folder, and each one's arithmetic on made-up outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nexus.vision.decoder import DECODERS, Scene
from nexus.vision.decoders.yolox import grid
from nexus.vision.errors import ModelBroken
from nexus.vision.task import TASKS


def scene(threshold: float = 0.3, size: int = 64, **params: Any) -> Scene:
    return Scene(size, size, threshold, params)


@pytest.mark.parametrize("name", DECODERS.names())
def test_every_decoder_serves_a_task_and_refuses_a_foreign_shape(name: str) -> None:
    decoder = DECODERS.get(name)
    assert decoder.task in {TASKS.get(task).model_task for task in TASKS.names()}
    assert 0 <= decoder.threshold < 1
    for outputs in ({}, {"x": np.full((3, 2), np.nan, np.float32)}, {"x": np.zeros((0,), np.float32)}):
        with pytest.raises(ModelBroken):
            decoder.decode(outputs, scene())


def test_a_decoder_takes_the_output_that_the_row_names() -> None:
    outputs = {"features": np.zeros(7, np.float32), "logits": np.array([0, 3.0], np.float32)}
    assert len(DECODERS.get("softmax").decode(outputs, scene(0, output="logits"))) == 2
    with pytest.raises(ModelBroken):
        DECODERS.get("softmax").decode(outputs, scene(0, output="absent"))


@pytest.mark.parametrize(
    ("values", "params", "threshold", "classes", "scores"),
    [
        ([0.0, np.log(3)], {}, 0.0, [1, 0], [0.75, 0.25]),
        ([0.0, np.log(3)], {}, 0.5, [1], [0.75]),
        ([0.2, 0.7, 0.1], {"logits": False}, 0.15, [1, 0], [0.7, 0.2]),
        ([9.0, 0.0, np.log(3)], {"skip": 1}, 0.0, [1, 0], [0.75, 0.25]),
        ([25, 230], {"logits": False, "scale": 1 / 255}, 0.5, [1], [230 / 255]),
        ([1000.0, -1000.0], {}, 0.0, [0, 1], [1.0, 0.0]),
    ],
)
def test_softmax(
    values: list[float], params: dict[str, Any], threshold: float, classes: list[int], scores: list[float]
) -> None:
    found = DECODERS.get("softmax").decode({"x": np.array(values, np.float64)}, scene(threshold, **params))
    assert found.class_ids is not None
    assert found.class_ids.tolist() == classes
    assert found.scores == pytest.approx(np.array(scores))


def test_yolox_cells_run_along_the_rows_from_fine_to_coarse() -> None:
    cells, strides = grid(64, 32, (8, 16, 32))
    assert len(cells) == 8 * 4 + 4 * 2 + 2 * 1
    assert cells[9].tolist() == [1, 1]
    assert strides[[0, 32, 40]].ravel().tolist() == [8, 16, 32]


def test_yolox_boxes_are_offsets_from_their_cell_in_strides() -> None:
    anchors = np.zeros((8 * 8 + 4 * 4 + 2 * 2, 5 + 3), np.float32)
    anchors[9] = [0.5, 0.25, np.log(2), np.log(4), 0.9, 0.1, 0.8, 0.0]  # cell 1, 1 of stride 8
    anchors[64 + 16] = [0, 0, 0, 0, 0.5, 0.5, 0, 0]  # 0.25 is below the threshold
    found = DECODERS.get("yolox").decode({"x": anchors}, scene())
    assert found.boxes is not None
    assert found.class_ids is not None
    assert found.boxes.tolist() == pytest.approx(np.array([[4, -6, 20, 26]]))
    assert found.scores == pytest.approx([0.72])
    assert found.class_ids.tolist() == [1]


def test_centernet_rows_are_boxes_already() -> None:
    peaks = np.array([[1, 2, 30, 40, 0.8, 7], [0, 0, 9, 9, 0.1, 3]], np.float32)
    found = DECODERS.get("centernet").decode({"heat": np.zeros(3), "d": peaks}, scene(output="d"))
    assert found.boxes is not None
    assert found.class_ids is not None
    assert found.boxes.tolist() == [[1, 2, 30, 40]]
    assert found.class_ids.tolist() == [7]
