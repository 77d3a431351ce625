"""Write ONNX graphs node by node: what the conversions have in common.

The onnx package is imported when a writer is made: it is heavy, and only conversions need it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nexus.catalog.errors import ConversionFailed

Array = npt.NDArray[Any]


class OnnxWriter:
    """Collects nodes and constants; equal constants are stored once."""

    def __init__(self) -> None:
        """Start with an empty graph."""
        import onnx

        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: dict[tuple[str, tuple[int, ...], bytes], tuple[str, Array]] = {}
        self._count = 0

    def emit(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return that output's name."""
        return self.emit_many(op, 1, *inputs, **attributes)[0]

    def emit_many(self, op: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node with `count` outputs and return their names."""
        self._count += 1
        names = [f"{op}_{self._count}" + (f"_{index}" if index else "") for index in range(count)]
        self.nodes.append(self.onnx.helper.make_node(op, list(inputs), names, name=names[0], **attributes))
        return names

    def output(self, source: str, name: str) -> None:
        """Give the value `source` the public name `name`."""
        self.nodes.append(self.onnx.helper.make_node("Identity", [source], [name], name=f"output_{name}"))

    def const(self, value: Any, dtype: Any = None) -> str:
        """Return the name of a constant with this value."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            shape = array.shape  # ascontiguousarray makes a scalar one-dimensional
            self.constants[key] = (f"const_{len(self.constants)}", np.ascontiguousarray(array).reshape(shape))
        return self.constants[key][0]

    def ints(self, *values: int) -> str:
        """Return the name of a constant int64 vector: a shape, axes, indices."""
        return self.const(values, np.int64)

    def model(self, name: str, inputs: list[Any], outputs: list[Any], *, opset: int, half: bool = False) -> Any:
        """Return a checked model of what the outputs need.

        `half` stores large float constants as float16 and casts them when the model is loaded.
        Raises `ConversionFailed` when onnx finds the graph invalid.
        """
        helper = self.onnx.helper
        used, live = {value.name for value in outputs}, []
        for node in reversed(self.nodes):
            if used.intersection(node.output):
                used.update(node.input)
                live.append(node)
        live.reverse()
        initializers, casts = [], []
        for constant, array in self.constants.values():
            if constant not in used:
                continue
            shrink = half and array.dtype == np.float32 and array.size > 64
            stored = constant + "_half" if shrink else constant
            content = array.astype(np.float16) if shrink else array
            initializers.append(self.onnx.numpy_helper.from_array(content, stored))
            if shrink:
                to = self.onnx.TensorProto.FLOAT
                casts.append(helper.make_node("Cast", [stored], [constant], name=f"cast_{constant}", to=to))
        graph = helper.make_graph(casts + live, name, inputs, outputs, initializers)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10, producer_name="nexus"
        )

    def save(self, model: Any, path: Path) -> None:
        """Check the model and write it. Raises `ConversionFailed` when it is not valid."""
        try:
            self.onnx.checker.check_model(model, full_check=True)
        except (self.onnx.checker.ValidationError, self.onnx.shape_inference.InferenceError):
            raise ConversionFailed("The converted graph is not valid ONNX.") from None
        self.onnx.save(model, str(path))
