from __future__ import annotations

import numpy as np
import pytest

from nexus.vision.annotate import PALETTE, annotate
from nexus.vision.masks import to_rle
from nexus.vision.types import Finding, Keypoint, Pixels, Result, Size

GREY = np.full((200, 300, 3), 128, np.uint8)


def drawn(*findings: Finding, pixels: Pixels = GREY) -> Pixels:
    size = Size(pixels.shape[1], pixels.shape[0])
    return annotate(pixels, Result(id="x", task="t", model="m", version=1, image=size, results=list(findings)))


def changed(picture: Pixels) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero((picture != 128).any(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def test_a_box_is_drawn_where_it_is_and_its_name_above() -> None:
    picture = drawn(Finding(label="cat", class_id=2, score=0.9, box=[50, 100, 150, 180]))
    left, top, right, bottom = changed(picture)
    assert (left, right, bottom) == (50, 150, 180)
    assert 70 < top < 100
    assert picture[180, 100].tolist() == list(PALETTE[2])
    assert (picture[140, 100] == 128).all()
    assert (GREY == 128).all()


def test_a_name_stays_inside_the_picture() -> None:
    picture = drawn(Finding(label="a long name at the upper right", class_id=0, score=0.9, box=[290, 0, 300, 10]))
    assert (picture[5, 100:280] != 128).any()


def test_quads_key_points_and_masks_are_drawn() -> None:
    quad = [[20.0, 20.0], [120.0, 30.0], [118.0, 60.0], [18.0, 50.0]]
    assert changed(drawn(Finding(score=0.9, text="hi", quad=quad, box=[18, 20, 120, 60])))[1] >= 19
    points = [Keypoint("nose", 40, 40, 0.9), Keypoint("ear", 200, 100, 0.01)]
    picture = drawn(Finding(score=0.9, keypoints=points, box=[10, 30, 250, 190]))
    assert (picture[40, 40] != 128).any()
    assert (picture[100, 200] == 128).all()
    mask = np.zeros((200, 300), np.bool_)
    mask[50:60, 70:90] = True
    picture = drawn(Finding(score=0.9, class_id=1, mask={"rle": to_rle(mask)}, box=[70, 50, 90, 60]))
    assert (picture[55, 80] == (np.array(PALETTE[1]) * 0.5 + 64).astype(int)).all()


def test_classes_of_a_whole_picture_are_listed_best_first() -> None:
    names = [Finding(label=f"class {i}", class_id=i, score=0.9 - i / 10) for i in range(3)]
    picture = drawn(*names)
    rows = [row for row in range(200) if (picture[row, 1] != 128).any()]
    assert rows[0] < 12
    assert picture[rows[0] + 3, 1].tolist() == list(PALETTE[0])
    assert picture[rows[-1] - 3, 1].tolist() == list(PALETTE[2])


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (4000, 3000)])
def test_any_size_of_picture_can_be_drawn_on(size: tuple[int, int]) -> None:
    pixels = np.zeros((*size, 3), np.uint8)
    box = Finding(label="Grüße 你好", class_id=3, score=0.5, box=[0, 0, float(size[1]), float(size[0])])
    assert drawn(box, Finding(label="x", score=0.1), pixels=pixels).shape == (*size, 3)


def test_tracks_keep_their_colour() -> None:
    one = drawn(Finding(label="car", class_id=2, track_id=1, score=0.9, box=[50, 100, 150, 180]))
    assert one[180, 100].tolist() == list(PALETTE[1])
