"""The nouns of vision: a picture, what was found in it, and the answer that leaves the house.

Inside, findings are parallel numpy arrays, so that a decoder or a plug works on whole columns.
Outside, they are a list of small records with the names of `design/contract.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:  # processes that only hand these on need no numpy
    import numpy as np
    from numpy.typing import NDArray

Pixels: TypeAlias = "NDArray[np.uint8]"
Floats: TypeAlias = "NDArray[np.float32]"
Integers: TypeAlias = "NDArray[np.int64]"


@dataclass(frozen=True, slots=True)
class Image:
    """A picture as every model sees it: upright, RGB, 8 bits a channel.

    `pixels` is height x width x 3. `width` and `height` are those of the upright picture as it
    was sent; `pixels` may be a smaller copy of it where the model needs no more.
    """

    pixels: Pixels
    width: int
    height: int
    format: str = "raw"

    @property
    def scale(self) -> tuple[float, float]:
        """Return (x, y): multiply a coordinate of `pixels` by this to get one of the picture as sent."""
        rows, columns = self.pixels.shape[:2]
        return self.width / columns, self.height / rows


@dataclass(frozen=True, slots=True)
class Findings:
    """What a model found in one picture: one row each, best first unless a task orders otherwise.

    `scores` (n) 0..1; `class_ids` (n) or None; `boxes` (n, 4) as x1 y1 x2 y2; `quads` (n, 4, 2),
    clockwise from the text's upper left; `masks` (n, h, w) bool; `keypoints` (n, k, 3) as x, y,
    score, named by `keypoint_names`; `track_ids` (n); `embeddings` (n, d); `texts` n strings;
    `text` the whole text; `picture` the answer of tasks that make a picture. Coordinates are
    pixels of the `Image.pixels` they came from.
    """

    scores: Floats
    labels: tuple[str, ...] = ()
    class_ids: Integers | None = None
    boxes: Floats | None = None
    quads: Floats | None = None
    masks: NDArray[np.bool_] | None = None
    keypoints: Floats | None = None
    keypoint_names: tuple[str, ...] = ()
    track_ids: Integers | None = None
    embeddings: Floats | None = None
    texts: tuple[str, ...] = ()
    text: str | None = None
    picture: Pixels | None = None

    def __len__(self) -> int:
        return len(self.scores)


class Keypoint(msgspec.Struct, omit_defaults=True):
    """One named point in pixels of the upright picture."""

    name: str
    x: float
    y: float
    score: float


class Finding(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One result as it leaves the house; what a task does not produce is left out."""

    label: str | None = None
    class_id: int | None = None
    score: float
    box: list[float] | None = None
    mask: dict[str, Any] | None = None
    keypoints: list[Keypoint] | None = None
    track_id: int | None = None
    embedding: list[float] | None = None
    text: str | None = None
    quad: list[list[float]] | None = None


class Size(msgspec.Struct):
    """Width and height in pixels of the upright picture."""

    width: int
    height: int


class Timing(msgspec.Struct):
    """Milliseconds spent in each stage."""

    decode: float = 0.0
    preprocess: float = 0.0
    inference: float = 0.0
    postprocess: float = 0.0


class Result(msgspec.Struct, kw_only=True):
    """The answer to one picture, in the shape of `design/contract.md`."""

    id: str
    task: str
    model: str
    version: int
    image: Size
    results: list[Finding]
    text: str | None = None
    timing_ms: Timing = msgspec.field(default_factory=Timing)
    cached: bool = False
    precision: str = "f32"
    device: str = "cpu"

    def encoded(self) -> bytes:
        """Return the JSON text; `text` is left out where the task reads none."""
        body = msgspec.to_builtins(self)
        if self.text is None:
            body.pop("text")
        return msgspec.json.encode(body)
