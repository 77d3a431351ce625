"""Boxes, and where a picture came to lie inside a network's input. Pure functions on arrays.

A box is x1 y1 x2 y2 in pixels, the second corner outside the box, so width is x2 - x1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from nexus.vision.types import Floats, Integers

Fit = Literal["letterbox-topleft", "letterbox-centre", "stretch", "crop"]


@dataclass(frozen=True, slots=True)
class Placement:
    """How a picture lies in the network's input: `input = picture * scale + offset` on each axis.

    `width` and `height` are of the scaled picture in whole pixels; for `crop` it is larger than
    the input and the offsets are negative.
    """

    scale_x: float
    scale_y: float
    offset_x: int
    offset_y: int
    width: int
    height: int


def place(picture: tuple[int, int], target: tuple[int, int], fit: Fit, *, crop: float = 1.0) -> Placement:
    """Return where a picture of (width, height) lies in an input of (width, height).

    Letterboxes keep the shape and leave a border, below and right or all round; `stretch` fills
    the input; `crop` fills it and cuts off what hangs over, the input being the share `crop` of
    the shorter side.
    """
    width, height = picture
    target_width, target_height = target
    if fit == "stretch":
        return Placement(target_width / width, target_height / height, 0, 0, target_width, target_height)
    if fit == "crop":
        ratio = max(target_width / crop / width, target_height / crop / height)
        scaled = max(round(width * ratio), target_width), max(round(height * ratio), target_height)
        offset_x, offset_y = (target_width - scaled[0]) // 2, (target_height - scaled[1]) // 2
        return Placement(scaled[0] / width, scaled[1] / height, offset_x, offset_y, *scaled)
    ratio = min(target_width / width, target_height / height)
    scaled = max(int(width * ratio), 1), max(int(height * ratio), 1)
    if fit == "letterbox-topleft":
        return Placement(ratio, ratio, 0, 0, *scaled)
    scaled = max(round(width * ratio), 1), max(round(height * ratio), 1)
    return Placement(ratio, ratio, (target_width - scaled[0]) // 2, (target_height - scaled[1]) // 2, *scaled)


def to_picture(points: Floats, placed: Placement) -> Floats:
    """Map x, y pairs (..., 2) from pixels of the network's input back to pixels of the picture."""
    offset = np.array([placed.offset_x, placed.offset_y], np.float32)
    scale = np.array([placed.scale_x, placed.scale_y], np.float32)
    return ((points - offset) / scale).astype(np.float32)


def boxes_to_picture(boxes: Floats, placed: Placement, width: int, height: int) -> Floats:
    """Map boxes (n, 4) back to the picture and cut them at its edges."""
    mapped = to_picture(boxes.reshape(-1, 2, 2), placed).reshape(-1, 4)
    return np.clip(mapped, 0, np.array([width, height, width, height], np.float32)).astype(np.float32)


def centre_to_corners(boxes: Floats) -> Floats:
    """Turn cx cy w h into x1 y1 x2 y2."""
    half = boxes[:, 2:4] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1).astype(np.float32)


def area(boxes: Floats) -> Floats:
    """Return the area of each box; 0 for one turned inside out."""
    sides: Floats = np.clip(boxes[..., 2:4] - boxes[..., :2], 0, None)
    return np.asarray(sides[..., 0] * sides[..., 1], np.float32)


def iou(one: Floats, many: Floats) -> Floats:
    """Return intersection over union of one box (4) with each of many (n, 4); 0 where both are empty."""
    corner = np.maximum(one[:2], many[:, :2])
    overlap = area(np.concatenate([corner, np.minimum(one[2:4], many[:, 2:4])], axis=1))
    union = area(one[None])[0] + area(many) - overlap
    shares: Floats = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return shares


def nms(boxes: Floats, scores: Floats, class_ids: Integers, threshold: float) -> Integers:
    """Return the indices that survive greedy non-maximum suppression within each class, best first."""
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        doubles = (iou(boxes[best], boxes[rest]) > threshold) & (class_ids[rest] == class_ids[best])
        order = rest[~doubles]
    return np.array(kept, np.int64)
