from __future__ import annotations

import numpy as np
import pytest

from nexus.vision.reading import lines

Boxes = list[tuple[float, float, float, float]]


def quads(boxes: Boxes, degrees: float = 0.0) -> np.ndarray:
    """Boxes x1 y1 x2 y2 as quads, the whole page turned about its origin."""
    corners = np.array([[(a, b), (c, b), (c, d), (a, d)] for a, b, c, d in boxes], np.float32)
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (corners @ turn).astype(np.float32)


RECEIPT: Boxes = [
    (300, 100, 360, 120),
    (10, 102, 120, 121),
    (10, 140, 90, 160),
    (305, 141, 360, 160),
    (100, 20, 250, 50),
]


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([], []),
        ([(0, 0, 10, 10)], [[0]]),
        ([(0, 50, 90, 60), (0, 0, 90, 10), (0, 25, 90, 35)], [[1], [2], [0]]),
        ([(100, 2, 150, 12), (0, 0, 90, 10)], [[1, 0]]),
        (RECEIPT, [[4], [1, 0], [2, 3]]),
        # A tall heading beside two small lines does not swallow both.
        ([(0, 0, 50, 60), (60, 5, 200, 20), (60, 40, 200, 55)], [[1], [0], [2]]),
    ],
)
def test_pieces_are_read_line_by_line(boxes: Boxes, expected: list[list[int]]) -> None:
    assert lines(quads(boxes) if boxes else np.zeros((0, 4, 2), np.float32)) == expected


@pytest.mark.parametrize("degrees", [-12, -3, 2, 8, 20])
def test_a_tilted_page_is_read_as_a_level_one(degrees: float) -> None:
    assert lines(quads(RECEIPT, degrees)) == [[4], [1, 0], [2, 3]]


def test_columns_of_prose_are_read_one_after_the_other() -> None:
    left: Boxes = [(0, y, 200, y + 15) for y in (0, 20, 40)]
    right: Boxes = [(260, y, 460, y + 15) for y in (1, 21, 41)]
    assert lines(quads([*left, *right])) == [[0], [1], [2], [3], [4], [5]]


def test_a_column_of_prices_stays_beside_its_goods() -> None:
    goods: Boxes = [(0, y, 200, y + 15) for y in (0, 20, 40)]
    prices: Boxes = [(260, y, 300, y + 15) for y in (1, 21, 41)]
    assert lines(quads([*goods, *prices])) == [[0, 3], [1, 4], [2, 5]]
