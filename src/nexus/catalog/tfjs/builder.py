"""The ONNX graph in the making: values, the layouts they exist in, and constants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from nexus.catalog.onnx_writer import OnnxWriter
from nexus.catalog.tfjs.graph import Node, canonical

Array = npt.NDArray[Any]
Layout = Literal["NHWC", "NCHW"]
Value: TypeAlias = dict[Layout, str]
"""One tensor: the ONNX name that it has in each layout it exists in. Tensors that are no pictures are "NHWC"."""

TO_NCHW: Final = (0, 3, 1, 2)
TO_NHWC: Final = (0, 2, 3, 1)
INTEGERS: Final = frozenset({"DT_INT32", "DT_INT64", 3, 9})


def plain(name: str) -> Value:
    """Return a value in TensorFlow's own layout."""
    return {"NHWC": name}


class Builder(OnnxWriter):
    """Writes nodes for TensorFlow values, transposing as little as can be."""

    def __init__(self, nodes: Mapping[str, Node], weights: Mapping[str, Array]) -> None:
        """Convert against these nodes and weights."""
        super().__init__()
        self.tf_nodes = nodes
        self.weights = weights
        self.values: dict[str, Value] = {}
        self._bounds: dict[str, tuple[float, float]] = {}

    def is_const(self, name: str) -> bool:
        """Tell whether a value is a weight."""
        return canonical(name) in self.weights

    def array(self, node: Node, index: int, what: str) -> Array:
        """Return an input that has to be known now, looking through Identity. Raises `ConversionFailed`."""
        name = canonical(node.inputs[index])
        while (source := self.tf_nodes.get(name)) is not None and source.op == "Identity":
            name = canonical(source.inputs[0])
        if name not in self.weights:
            raise node.fail(f"its {what} is not a constant")
        return self.weights[name]

    def get(self, name: str, layout: Layout = "NHWC") -> str:
        """Return the ONNX name of a value in a layout, transposing it where it is not there yet."""
        name = canonical(name)
        if name in self.weights:
            array = self.weights[name]
            if layout == "NHWC" or array.ndim == 0:
                return self.const(array)
            return self.const(array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(TO_NCHW))
        value = self.values[name]
        if layout not in value:
            order = TO_NCHW if layout == "NCHW" else TO_NHWC
            value[layout] = self.emit("Transpose", next(iter(value.values())), perm=order)
        return value[layout]

    def layout_of(self, *names: str) -> Layout:
        """Return the layout to compute in: NCHW where every input is there or constant, and not all are constant."""
        picture = ["NCHW" in self.values.get(canonical(name), {}) for name in names]
        fits = all(there or self.is_const(name) for there, name in zip(picture, names, strict=True))
        return "NCHW" if fits and any(picture) else "NHWC"

    def int64(self, name: str) -> str:
        """Return a value as ONNX wants shapes and indices."""
        if self.is_const(name):
            return self.const(self.weights[canonical(name)], np.int64)
        return self.emit("Cast", self.get(name), to=self.onnx.TensorProto.INT64)

    def relu(self, value: str) -> str:
        """Cut off what is negative, remembering so for a clip that follows."""
        result = self.emit("Relu", value)
        self._bounds[result] = (0.0, np.inf)
        return result

    def clip(self, value: str, low: float = -np.inf, high: float = np.inf) -> str:
        """Bound a value; one with the relu or clip just before it becomes a single node, which runtimes fuse."""
        last = self.nodes[-1] if self.nodes else None
        if last is not None and last.output[0] == value and value in self._bounds:
            before = self._bounds[value]
            if low <= before[1] and high >= before[0]:
                low, high, value = max(low, before[0]), min(high, before[1]), last.input[0]
        ends = [self.const(end, np.float32) if np.isfinite(end) else "" for end in (low, high)]
        result = self.emit("Clip", value, *ends)
        self._bounds[result] = (low, high)
        return result
