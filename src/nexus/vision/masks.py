"""Masks as run-length text, the way COCO's tools read and write them (cocodataset/cocoapi, `maskApi.c`).

Runs go down the columns and begin with one of zeros; each count, from the third on as the difference
to the one two before, is written in groups of five bits, least first, as characters from "0".
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray


class Rle(TypedDict):
    """`size` is [height, width], `counts` the compressed runs."""

    size: list[int]
    counts: str


def to_rle(mask: NDArray[np.bool_]) -> Rle:
    """Return a mask (height, width) as compressed runs."""
    flat = np.asarray(mask, np.bool_).ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    bounds = np.concatenate([[0], edges, [len(flat)]])
    runs = np.diff(bounds).tolist()
    if len(flat) and flat[0]:
        runs.insert(0, 0)
    text = "".join(_packed(run - runs[i - 2] if i > 2 else run) for i, run in enumerate(runs))
    return Rle(size=[int(mask.shape[0]), int(mask.shape[1])], counts=text)


def from_rle(rle: Rle) -> NDArray[np.bool_]:
    """Return the mask of compressed runs. Raises `ValueError` when they do not fill `size`."""
    height, width = rle["size"]
    runs: list[int] = []
    value = shift = 0
    for character in rle["counts"]:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if sum(runs) != height * width or any(run < 0 for run in runs):
        raise ValueError("the runs do not fill the mask")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape((height, width), order="F")


def _packed(value: int) -> str:
    characters = []
    while True:
        bits, value = value & 31, value >> 5
        done = value == (-1 if bits & 16 else 0)
        characters.append(chr(48 + (bits if done else bits | 32)))
        if done:
            return "".join(characters)
