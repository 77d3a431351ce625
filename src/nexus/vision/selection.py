"""Choosing rows of findings: every column at once, so that none is forgotten."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nexus.vision.types import Findings, Integers

_ARRAYS = ("scores", "class_ids", "boxes", "quads", "masks", "keypoints", "track_ids", "embeddings")
_TUPLES = ("labels", "texts")


def pick(findings: Findings, rows: Integers) -> Findings:
    """Return the findings at these indices, in this order."""
    columns: dict[str, Any] = {}
    for name in _ARRAYS:
        if (values := getattr(findings, name)) is not None:
            columns[name] = values[rows]
    for name in _TUPLES:
        if values := getattr(findings, name):
            columns[name] = tuple(values[row] for row in rows.tolist())
    return replace(findings, **columns)


def first(findings: Findings, count: int) -> Findings:
    """Return the first `count` findings."""
    return pick(findings, np.arange(min(count, len(findings))))
