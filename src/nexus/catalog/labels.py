"""The class names that models answer with, one list for each file of `data/`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from nexus.core.errors import NotFound


class LabelsNotFound(NotFound):
    """There is no list of class names of this name."""

    code = "labels_not_found"


def labels_of(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the class names of a version by its `meta`: its own list, or a shipped one by name, or none."""
    labels = meta.get("labels") or ()
    return load_labels(labels) if isinstance(labels, str) else tuple(str(label) for label in labels)


@cache
def load_labels(name: str) -> tuple[str, ...]:
    """Return a shipped list: `imagenet-1k`, `imagenet-1001`, `coco-80`, `coco-90`, `voc-21`, `cifar-10`."""
    file = files("nexus.catalog").joinpath("data", f"{name}.txt")
    if "/" in name or not file.is_file():
        raise LabelsNotFound
    return tuple(file.read_text("utf-8").splitlines())
