"""The weights of a graph: the manifest in the JSON, the numbers in the .bin files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nexus.catalog.errors import ConversionFailed

Array = npt.NDArray[Any]

_TYPES: Final[dict[str, str]] = {"float32": "<f4", "int32": "<i4", "bool": "?", "uint8": "<u1"}
_STORED: Final[dict[str, str]] = {"float16": "<f2", "uint8": "<u1", "uint16": "<u2"}


def read_weights(folder: Path, manifest: Sequence[Mapping[str, Any]], allowed: Sequence[str]) -> dict[str, Array]:
    """Return every weight by name, at full precision.

    Only files whose names are in `allowed` are opened. float16 storage and affine uint8 and uint16
    quantisation are undone. Raises `ConversionFailed` when files and manifest disagree.
    """
    weights: dict[str, Array] = {}
    for group in manifest:
        if not set(group["paths"]) <= set(allowed):
            raise ConversionFailed("The graph wants a weight file that its catalogue row does not name.")
        data = b"".join((folder / path).read_bytes() for path in group["paths"])
        position = 0
        for entry in group["weights"]:
            weight, position = _read(entry, data, position)
            weights[entry["name"]] = weight
        if position != len(data):
            raise ConversionFailed("The weight files hold more than the graph's manifest says.")
    return weights


def _read(entry: Mapping[str, Any], data: bytes, position: int) -> tuple[Array, int]:
    quantisation: Mapping[str, Any] | None = entry.get("quantization")
    known, wanted = (_STORED, quantisation["dtype"]) if quantisation else (_TYPES, entry["dtype"])
    if wanted not in known or entry["dtype"] not in _TYPES:
        raise ConversionFailed(f"Weights of type {wanted} are not known.")
    stored = np.dtype(known[wanted])
    shape = [int(size) for size in entry["shape"]]
    count = int(np.prod(shape, dtype=np.int64))
    end = position + count * stored.itemsize
    if count < 0 or end > len(data):
        raise ConversionFailed("The weight files are shorter than the graph's manifest says.")
    values: Array = np.frombuffer(data, stored, count, position)
    if quantisation and "scale" in quantisation:
        values = values.astype(np.float32) * np.float32(quantisation["scale"]) + np.float32(quantisation["min"])
        if entry["dtype"] == "int32":
            values = np.rint(values)
    return values.astype(_TYPES[entry["dtype"]]).reshape(shape), end
