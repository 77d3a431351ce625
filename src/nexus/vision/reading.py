"""In which order a person reads the pieces of text on a page. Pure functions on quads.

Pieces whose middles lie on one height make a line, read from the left. Two or more columns of running
text are read one after the other; a column of prices beside a column of goods is not one, so that
receipts and tables stay in rows.
"""

from __future__ import annotations

import numpy as np

from nexus.vision.types import Floats, Integers

_GUTTER = 1.0
_PROSE = 8.0


def lines(quads: Floats) -> list[list[int]]:
    """Return the indices of quads (n, 4, 2; clockwise from upper left) line by line, in reading order."""
    if not len(quads):
        return []
    level = _levelled(quads)
    low, high = level.min(axis=1), level.max(axis=1)
    boxes = np.concatenate([low, high], axis=1).astype(np.float32)
    return _in_order(np.arange(len(quads)), boxes)


def _levelled(quads: Floats) -> Floats:
    """Turn the page so that its text runs level: by the median slope of the upper edges, longer ones counting more."""
    edges = quads[:, 1] - quads[:, 0]
    lengths = np.hypot(edges[:, 0], edges[:, 1])
    long = lengths >= np.median(lengths)
    angle = float(np.median(np.arctan2(edges[long, 1], edges[long, 0])))
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]], np.float32)
    return np.asarray(quads @ turn, np.float32)


def _in_order(rows: Integers, boxes: Floats) -> list[list[int]]:
    columns = _columns(rows, boxes)
    if len(columns) > 1:
        return [line for column in columns for line in _in_order(column, boxes)]
    return _rows(rows, boxes)


def _columns(rows: Integers, boxes: Floats) -> list[Integers]:
    """Cut at every gutter of clear paper, as long as each side is prose: at least three long pieces."""
    heights = boxes[rows, 3] - boxes[rows, 1]
    unit = float(np.median(heights)) or 1.0
    by_left = rows[np.argsort(boxes[rows, 0], kind="stable")]
    reach = np.maximum.accumulate(boxes[by_left, 2])
    cuts = np.flatnonzero(boxes[by_left[1:], 0] - reach[:-1] > _GUTTER * unit) + 1
    parts = [np.asarray(part, np.int64) for part in np.split(by_left, cuts)]
    widths = [np.median(boxes[part, 2] - boxes[part, 0]) / unit for part in parts]
    if all(len(part) >= 3 and width >= _PROSE for part, width in zip(parts, widths, strict=True)):
        return parts
    return [rows]


def _rows(rows: Integers, boxes: Floats) -> list[list[int]]:
    """Group by height on the page: middles less than half a height apart are on one line."""
    middles = (boxes[:, 1] + boxes[:, 3]) / 2
    heights = boxes[:, 3] - boxes[:, 1]
    found: list[list[int]] = []
    for row in rows[np.argsort(middles[rows], kind="stable")].tolist():
        if found:
            line = found[-1]
            middle, height = float(np.mean(middles[line])), float(np.mean(heights[line]))
            if abs(middles[row] - middle) < 0.5 * min(heights[row], height):
                line.append(row)
                continue
        found.append([row])
    return [sorted(line, key=lambda row: float(boxes[row, 0])) for line in found]
