from __future__ import annotations

import numpy as np
import pytest

from nexus.vision.geometry import (
    Fit,
    Placement,
    area,
    boxes_to_picture,
    centre_to_corners,
    iou,
    nms,
    place,
    to_picture,
)


@pytest.mark.parametrize(
    ("picture", "target", "fit", "crop", "expected"),
    [
        ((640, 480), (416, 416), "letterbox-topleft", 1.0, Placement(0.65, 0.65, 0, 0, 416, 312)),
        ((480, 640), (416, 416), "letterbox-topleft", 1.0, Placement(0.65, 0.65, 0, 0, 312, 416)),
        ((640, 480), (512, 512), "letterbox-centre", 1.0, Placement(0.8, 0.8, 0, 64, 512, 384)),
        ((480, 640), (512, 512), "letterbox-centre", 1.0, Placement(0.8, 0.8, 64, 0, 384, 512)),
        ((100, 50), (200, 200), "stretch", 1.0, Placement(2.0, 4.0, 0, 0, 200, 200)),
        ((400, 200), (100, 100), "crop", 1.0, Placement(0.5, 0.5, -50, 0, 200, 100)),
        ((256, 512), (224, 224), "crop", 0.875, Placement(1.0, 1.0, -16, -144, 256, 512)),
        ((10_000, 1), (416, 416), "letterbox-topleft", 1.0, Placement(0.0416, 0.0416, 0, 0, 416, 1)),
        ((1, 1), (416, 416), "letterbox-centre", 1.0, Placement(416, 416, 0, 0, 416, 416)),
    ],
)
def test_a_picture_lies_where_its_fit_says(
    picture: tuple[int, int], target: tuple[int, int], fit: Fit, crop: float, expected: Placement
) -> None:
    assert place(picture, target, fit, crop=crop) == expected


@pytest.mark.parametrize("fit", ["letterbox-topleft", "letterbox-centre", "stretch", "crop"])
@pytest.mark.parametrize("picture", [(640, 480), (333, 777), (20, 1000)])
def test_points_go_to_the_input_and_back(fit: Fit, picture: tuple[int, int]) -> None:
    placed = place(picture, (416, 320), fit)
    points = np.array([[0, 0], [picture[0], picture[1]], [17.5, 3.25]], np.float32)
    inside = points * [placed.scale_x, placed.scale_y] + [placed.offset_x, placed.offset_y]
    assert to_picture(inside.astype(np.float32), placed) == pytest.approx(points, abs=0.01)


def test_boxes_are_cut_at_the_edges_of_the_picture() -> None:
    placed = place((100, 50), (200, 200), "letterbox-centre")
    boxes = np.array([[-10, 40, 60, 500]], np.float32)
    assert boxes_to_picture(boxes, placed, 100, 50).tolist() == [[0, 0, 30, 50]]


def test_boxes_by_their_centre_become_corners() -> None:
    assert centre_to_corners(np.array([[10, 20, 4, 8]], np.float32)).tolist() == [[8, 16, 12, 24]]


def test_a_box_turned_inside_out_has_no_area() -> None:
    assert area(np.array([[0, 0, 2, 3], [5, 5, 1, 9]], np.float32)).tolist() == [6, 0]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([0, 0, 10, 10], 1.0),
        ([5, 0, 15, 10], 1 / 3),
        ([0, 0, 5, 10], 0.5),
        ([10, 0, 20, 10], 0.0),
        ([30, 30, 20, 20], 0.0),
    ],
)
def test_intersection_over_union(other: list[float], expected: float) -> None:
    one, many = np.array([0, 0, 10, 10], np.float32), np.array([other], np.float32)
    assert iou(one, many)[0] == pytest.approx(expected)


def test_two_empty_boxes_do_not_overlap() -> None:
    empty = np.zeros((1, 4), np.float32)
    assert iou(empty[0], empty)[0] == 0


@pytest.mark.parametrize(
    ("classes", "threshold", "kept"),
    [
        ([0, 0, 0], 0.5, [1, 2]),  # the weaker of two that overlap by 0.82 goes
        ([0, 1, 0], 0.5, [1, 0, 2]),  # but not when it is of another class
        ([0, 0, 0], 0.9, [1, 0, 2]),
    ],
)
def test_doubles_within_a_class_are_suppressed(classes: list[int], threshold: float, kept: list[int]) -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]], np.float32)
    scores = np.array([0.8, 0.9, 0.3], np.float32)
    assert nms(boxes, scores, np.array(classes, np.int64), threshold).tolist() == kept


def test_suppressing_nothing_gives_nothing() -> None:
    assert nms(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), 0.5).tolist() == []
