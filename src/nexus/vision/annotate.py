"""A picture of a result: boxes, quads, masks, key points and names drawn over the image."""

from __future__ import annotations

from typing import Any

import numpy as np

from nexus.vision.masks import from_rle
from nexus.vision.opencv import opencv
from nexus.vision.types import Finding, Pixels, Result

Colour = tuple[int, int, int]

# Okabe and Ito, "Color Universal Design": told apart by the colour-blind too.
PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_SURE_POINT = 0.3


def annotate(pixels: Pixels, result: Result) -> Pixels:
    """Return a copy of the upright picture with every finding drawn on it, the best on top.

    Coordinates of `result` are those of `pixels`. What has no place in the picture (the classes of a
    whole picture) is listed in the upper left corner.
    """
    canvas = np.ascontiguousarray(pixels.copy())
    width = max(round(min(canvas.shape[:2]) / 250), 1)
    listed = []
    for number, finding in reversed(list(enumerate(result.results))):
        colour = _colour(finding, number)
        if finding.mask is not None:
            _draw_mask(canvas, finding, colour)
        if finding.quad is not None:
            points = np.round(np.array(finding.quad)).astype(np.int32)
            opencv().polylines(canvas, [points], True, colour, width, opencv().LINE_AA)
        elif finding.box is not None:
            x1, y1, x2, y2 = (round(value) for value in finding.box)
            opencv().rectangle(canvas, (x1, y1), (x2, y2), colour, width)
        else:
            listed.append((_caption(finding), colour))
        if finding.keypoints is not None:
            _draw_points(canvas, finding, colour, width)
    for number, finding in reversed(list(enumerate(result.results))):
        if finding.box is not None and finding.quad is None:
            _draw_caption(canvas, _caption(finding), finding.box[0], finding.box[1], _colour(finding, number))
    _draw_list(canvas, listed[::-1])
    return canvas


def _colour(finding: Finding, number: int) -> Colour:
    """Colour by track where there is one, else by class, else by turn."""
    key = finding.track_id if finding.track_id is not None else finding.class_id
    return PALETTE[(number if key is None else key) % len(PALETTE)]


def _caption(finding: Finding) -> str:
    name = finding.label or finding.text or ""
    track = f"#{finding.track_id} " if finding.track_id is not None else ""
    return f"{track}{name} {finding.score:.2f}".strip()


def _draw_mask(canvas: Pixels, finding: Finding, colour: Colour) -> None:
    assert finding.mask is not None
    covered = from_rle(finding.mask["rle"])
    canvas[covered] = (canvas[covered] * 0.5 + np.array(colour) * 0.5).astype(np.uint8)


def _draw_points(canvas: Pixels, finding: Finding, colour: Colour, width: int) -> None:
    for point in finding.keypoints or []:
        if point.score >= _SURE_POINT:
            opencv().circle(canvas, (round(point.x), round(point.y)), width * 2, colour, -1, opencv().LINE_AA)


def _draw_list(canvas: Pixels, listed: list[tuple[str, Colour]]) -> None:
    height = round(_font(canvas)[1] * 1.6)
    for row, (caption, colour) in enumerate(listed):
        _draw_caption(canvas, caption, 0, (row + 1) * height, colour)


def _draw_caption(canvas: Pixels, caption: str, x: float, y: float, colour: Colour) -> None:
    """Write on a filled strip whose lower left corner is x, y, moved so that it stays inside the picture."""
    cv2 = opencv()
    scale, tall = _font(canvas)
    face, weight = cv2.FONT_HERSHEY_SIMPLEX, max(round(scale * 1.5), 1)
    # The built-in font has no letters beyond ASCII and would print "?" for each byte.
    plain = caption.encode("ascii", "replace").decode()
    (wide, _), below = cv2.getTextSize(plain, face, scale, weight)
    strip = tall + below + 2
    left = int(min(max(round(x), 0), max(canvas.shape[1] - wide - 4, 0)))
    bottom = int(min(max(round(y), strip), canvas.shape[0]))
    cv2.rectangle(canvas, (left, bottom - strip), (left + wide + 4, bottom), colour, -1)
    cv2.putText(canvas, plain, (left + 2, bottom - below), face, scale, _ink(colour), weight, cv2.LINE_AA)


def _font(canvas: Pixels) -> tuple[float, int]:
    """Return the scale and the height in pixels of letters that suit this size of picture."""
    scale = min(max(min(canvas.shape[:2]) / 1000, 0.4), 2.0)
    height: Any = opencv().getTextSize("Ag", opencv().FONT_HERSHEY_SIMPLEX, scale, 1)[0][1]
    return scale, int(height)


def _ink(colour: Colour) -> Colour:
    """Return black on light colours, white on dark ones (ITU-R BT.601 luma)."""
    light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 128
    return (0, 0, 0) if light else (255, 255, 255)
