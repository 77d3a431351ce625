from __future__ import annotations

import json

import numpy as np
import pytest

from nexus.testing.images import gradient
from nexus.vision.masks import from_rle
from nexus.vision.rendering import coco, records
from nexus.vision.selection import first, pick
from nexus.vision.types import Findings, Image, Result, Size

# A quarter of the picture as sent in each direction: 64 x 48 pixels stand for 256 x 192.
IMAGE = Image(gradient(), 256, 192)


def everything() -> Findings:
    mask = np.zeros((2, 48, 64), np.bool_)
    mask[0, 10:20, 5:25] = True
    return Findings(
        scores=np.array([0.9, 0.123456], np.float32),
        labels=("cat", "dog"),
        class_ids=np.array([15, 16]),
        boxes=np.array([[5, 10, 25, 20], [0, 0, 1.1, 1.1]], np.float32),
        quads=np.array([[[5, 10], [25, 10], [25, 20], [5, 20]]] * 2, np.float32),
        masks=mask,
        keypoints=np.array([[[1, 2, 0.9]], [[3, 4, 0.2]]], np.float32),
        keypoint_names=("nose",),
        track_ids=np.array([3, 4]),
        embeddings=np.array([[0.5, 0.25], [1, 0]], np.float32),
        texts=("ja", "nein"),
    )


def result(found: Findings) -> Result:
    return Result(id="inv_1", task="detect", model="m", version=2, image=Size(256, 192), results=records(found, IMAGE))


def test_every_column_reaches_the_record_in_pixels_of_the_picture_as_sent() -> None:
    body = json.loads(result(everything()).encoded())
    assert body["image"] == {"width": 256, "height": 192}
    cat, dog = body["results"]
    mask = cat.pop("mask")["rle"]
    assert mask["size"] == [192, 256]
    assert from_rle(mask)[40:80, 20:100].all()
    assert from_rle(mask).sum() == 40 * 80
    assert cat == {
        "label": "cat",
        "class_id": 15,
        "score": 0.9,
        "box": [20.0, 40.0, 100.0, 80.0],
        "quad": [[20.0, 40.0], [100.0, 40.0], [100.0, 80.0], [20.0, 80.0]],
        "keypoints": [{"name": "nose", "x": 4.0, "y": 8.0, "score": 0.9}],
        "track_id": 3,
        "embedding": [0.5, 0.25],
        "text": "ja",
    }
    assert (dog["score"], dog["box"]) == (0.1235, [0.0, 0.0, 4.4, 4.4])


def test_what_a_task_does_not_find_is_left_out() -> None:
    body = json.loads(result(Findings(scores=np.array([0.5], np.float32), labels=("cat",))).encoded())
    assert body["results"] == [{"label": "cat", "score": 0.5}]
    assert "text" not in body
    assert set(body) == {
        "id",
        "task",
        "model",
        "version",
        "image",
        "results",
        "timing_ms",
        "cached",
        "precision",
        "device",
    }


def test_a_class_number_of_zero_is_shown() -> None:
    found = Findings(scores=np.array([0.5], np.float32), class_ids=np.array([0]), track_ids=np.array([0]))
    assert json.loads(result(found).encoded())["results"] == [{"class_id": 0, "score": 0.5, "track_id": 0}]


def test_coco_has_width_and_height_and_its_own_key_points() -> None:
    body = coco(result(everything()))
    assert body["images"] == [{"id": 1, "width": 256, "height": 192}]
    assert body["categories"] == [{"id": 15, "name": "cat"}, {"id": 16, "name": "dog"}]
    cat, dog = body["annotations"]
    assert (cat["bbox"], cat["area"], cat["category_id"]) == ([20.0, 40.0, 80.0, 40.0], 3200.0, 15)
    assert cat["segmentation"]["size"] == [192, 256]
    assert (cat["keypoints"], cat["num_keypoints"]) == ([4.0, 8.0, 2], 1)
    assert dog["keypoints"][2] == 1


def test_picking_rows_picks_them_in_every_column() -> None:
    turned = pick(everything(), np.array([1, 0]))
    assert turned.labels == ("dog", "cat")
    assert turned.texts == ("nein", "ja")
    for name in ("scores", "class_ids", "boxes", "quads", "masks", "keypoints", "track_ids", "embeddings"):
        assert (getattr(turned, name) == getattr(everything(), name)[::-1]).all()
    assert turned.keypoint_names == ("nose",)
    assert len(first(everything(), 1)) == 1
    assert len(first(everything(), 9)) == 2


@pytest.mark.parametrize("count", [0, 1])
def test_few_rows_stay_arrays(count: int) -> None:
    found = first(everything(), count)
    assert found.boxes is not None
    assert found.boxes.shape == (count, 4)
    assert records(found, IMAGE) == records(everything(), IMAGE)[:count]
