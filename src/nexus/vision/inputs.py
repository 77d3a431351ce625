"""From a picture to the tensor that a network wants, as its row in the catalogue describes it."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from nexus.vision.backend import Array
from nexus.vision.geometry import Fit, Placement, place
from nexus.vision.opencv import opencv
from nexus.vision.types import Pixels

Side = Annotated[int, Field(ge=1, le=8192)]
Channels = float | list[float]


class InputSpec(BaseModel):
    """The `input` table of a vision model.

    The tensor is `(value 0..255 * scale - mean) / std`, channel by channel in the order of `colour`.
    `size` is one side or [height, width]. `crop` is the share of the shorter side that is kept where
    `resize` is "crop"; `pad` the grey of a letterbox's border.
    """

    model_config = ConfigDict(extra="forbid")

    size: Side | tuple[Side, Side]
    layout: Literal["nchw", "nhwc"] = "nchw"
    dtype: Literal["float32", "float16", "uint8", "int32"] = "float32"
    colour: Literal["rgb", "bgr", "grey"] = "rgb"
    resize: Fit = "stretch"
    crop: float = Field(1.0, gt=0, le=1)
    pad: int = Field(0, ge=0, le=255)
    mean: Channels = 0.0
    std: Channels = 1.0
    scale: float = 1.0

    @property
    def width(self) -> int:
        """Return the width in pixels."""
        return self.size if isinstance(self.size, int) else self.size[1]

    @property
    def height(self) -> int:
        """Return the height in pixels."""
        return self.size if isinstance(self.size, int) else self.size[0]


def fit(pixels: Pixels, spec: InputSpec) -> tuple[Pixels, Placement]:
    """Return the picture resized into the input's rectangle, and where it lies there."""
    rows, columns = pixels.shape[:2]
    width, height = spec.width, spec.height
    placed = place((columns, rows), (width, height), spec.resize, crop=spec.crop)
    cv2 = opencv()
    shrinks = placed.width < columns / 2 and placed.height < rows / 2
    # Plain bilinear skips pixels when it halves or more; averaging does not.
    scaled = cv2.resize(
        pixels, (placed.width, placed.height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    if spec.resize == "stretch":
        return scaled, placed
    if spec.resize == "crop":
        top, left = -placed.offset_y, -placed.offset_x
        return scaled[top : top + height, left : left + width], placed
    canvas = np.full((height, width, 3), spec.pad, np.uint8)
    canvas[placed.offset_y : placed.offset_y + placed.height, placed.offset_x : placed.offset_x + placed.width] = scaled
    return canvas, placed


def tensor(pixels: Pixels, spec: InputSpec) -> Array:
    """Return fitted pixels as a batch of one, in the layout, order of colours and range of the network."""
    if spec.colour == "bgr":
        pixels = pixels[..., ::-1]
    elif spec.colour == "grey":
        pixels = opencv().cvtColor(pixels, opencv().COLOR_RGB2GRAY)[..., None]
    values: Array = pixels
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
    if spec.scale != 1 or mean.any() or (std != 1).any():
        values = (pixels.astype(np.float32) * np.float32(spec.scale) - mean) / std
    if spec.layout == "nchw":
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values[None], np.dtype(spec.dtype))
