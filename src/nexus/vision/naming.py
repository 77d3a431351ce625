"""The names of classes: lists shipped in `labels/`, or the model's own.

`coco80` and `imagenet1000` have the order and wording of torchvision (BSD-3-Clause).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from nexus.vision.errors import ModelNotRunnable


def labels_of(described: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names for a row's `labels`: a list as it is, the shipped list of that name, none for None.

    Raises `ModelNotRunnable` for an unknown list.
    """
    if described is None:
        return ()
    return _shipped(described) if isinstance(described, str) else tuple(described)


@cache
def _shipped(name: str) -> tuple[str, ...]:
    file = files("nexus.vision").joinpath("labels", f"{name}.txt")
    if not name.isidentifier() or not file.is_file():
        raise ModelNotRunnable("The model's description names a label list that is not there.", field="model")
    return tuple(file.read_text("utf-8").splitlines())
