"""Operations on each element, and reductions: they run in whatever layout their input is in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from nexus.catalog.tfjs.builder import INTEGERS, Builder, Layout, Value, plain
from nexus.catalog.tfjs.graph import Node

_UNARY: Final[Mapping[str, str]] = {
    "Abs": "Abs",
    "Elu": "Elu",
    "Exp": "Exp",
    "Floor": "Floor",
    "Log": "Log",
    "LogicalNot": "Not",
    "Neg": "Neg",
    "Reciprocal": "Reciprocal",
    "Sigmoid": "Sigmoid",
    "Sqrt": "Sqrt",
    "Tanh": "Tanh",
}
_SEVERAL: Final[Mapping[str, str]] = {
    "Add": "Add",
    "AddN": "Sum",
    "AddV2": "Add",
    "BiasAdd": "Add",
    "Equal": "Equal",
    "Greater": "Greater",
    "GreaterEqual": "GreaterOrEqual",
    "Less": "Less",
    "LessEqual": "LessOrEqual",
    "LogicalAnd": "And",
    "LogicalOr": "Or",
    "Mul": "Mul",
    "Pow": "Pow",
    "Prelu": "PRelu",
    "RealDiv": "Div",
    "Select": "Where",
    "SelectV2": "Where",
    "Sub": "Sub",
}
_REDUCE: Final[Mapping[str, str]] = {
    "Max": "ReduceMax",
    "Mean": "ReduceMean",
    "Min": "ReduceMin",
    "Prod": "ReduceProd",
    "Sum": "ReduceSum",
}


def _same_layout(builder: Builder, node: Node) -> Value:
    layout = builder.layout_of(*node.inputs)
    op = _UNARY.get(node.op) or _SEVERAL[node.op]
    return {layout: builder.emit(op, *(builder.get(name, layout) for name in node.inputs))}


def _relu(builder: Builder, node: Node) -> Value:
    layout = builder.layout_of(*node.inputs)
    return {layout: builder.relu(builder.get(node.inputs[0], layout))}


def _relu6(builder: Builder, node: Node) -> Value:
    layout = builder.layout_of(*node.inputs)
    return {layout: builder.clip(builder.get(node.inputs[0], layout), 0.0, 6.0)}


def _leaky_relu(builder: Builder, node: Node) -> Value:
    layout = builder.layout_of(*node.inputs)
    slope = float(node.attributes.get("alpha", 0.2))
    return {layout: builder.emit("LeakyRelu", builder.get(node.inputs[0], layout), alpha=slope)}


def _bound(builder: Builder, node: Node) -> Value:
    """Minimum and Maximum: with a constant number they are a clip."""
    layout = builder.layout_of(*node.inputs)
    if builder.is_const(node.inputs[1]) and builder.array(node, 1, "bound").ndim == 0:
        bound, value = builder.array(node, 1, "bound"), builder.get(node.inputs[0], layout)
        if bound.dtype == np.float32:
            low, high = (-np.inf, float(bound)) if node.op == "Minimum" else (float(bound), np.inf)
            return {layout: builder.clip(value, low, high)}
    op = "Min" if node.op == "Minimum" else "Max"
    return {layout: builder.emit(op, *(builder.get(name, layout) for name in node.inputs))}


def _reduce(builder: Builder, node: Node) -> Value:
    axes = [int(axis) for axis in np.atleast_1d(builder.array(node, 1, "axes"))]
    keep = int(bool(node.attributes.get("keep_dims")))
    layout: Layout = "NHWC"
    if sorted(axes) == [1, 2] and builder.layout_of(node.inputs[0]) == "NCHW":
        layout, axes = "NCHW", [2, 3]
    value = builder.get(node.inputs[0], layout)
    if node.op == "Sum":  # the one reduction whose axes are an input in opset 17
        result = builder.emit("ReduceSum", value, builder.ints(*axes), keepdims=keep)
    else:
        result = builder.emit(_REDUCE[node.op], value, axes=axes, keepdims=keep)
    return {layout if keep else "NHWC": result}


def _identity(builder: Builder, node: Node) -> Value:
    if builder.is_const(node.inputs[0]):
        return plain(builder.get(node.inputs[0]))
    return builder.values[node.inputs[0].removesuffix(":0")]


def _softmax(builder: Builder, node: Node) -> Value:
    return plain(builder.emit("Softmax", builder.get(node.inputs[0]), axis=-1))


def _squared_difference(builder: Builder, node: Node) -> Value:
    difference = builder.emit("Sub", *(builder.get(name) for name in node.inputs))
    return plain(builder.emit("Mul", difference, difference))


def _floor_mod(builder: Builder, node: Node) -> Value:
    left, right = (builder.get(name) for name in node.inputs)
    if node.attributes["T"] in INTEGERS:
        return plain(builder.emit("Mod", left, right))
    whole = builder.emit("Floor", builder.emit("Div", left, right))
    return plain(builder.emit("Sub", left, builder.emit("Mul", whole, right)))


def _floor_div(builder: Builder, node: Node) -> Value:
    left, right = (builder.get(name) for name in node.inputs)
    if node.attributes["T"] in INTEGERS:  # ONNX truncates integers: take the remainder off first
        left = builder.emit("Sub", left, builder.emit("Mod", left, right))
        return plain(builder.emit("Div", left, right))
    return plain(builder.emit("Floor", builder.emit("Div", left, right)))


def _cast(builder: Builder, node: Node) -> Value:
    kinds = builder.onnx.TensorProto
    known = {
        "DT_FLOAT": kinds.FLOAT,
        1: kinds.FLOAT,
        "DT_INT32": kinds.INT32,
        3: kinds.INT32,
        "DT_INT64": kinds.INT64,
        9: kinds.INT64,
        "DT_BOOL": kinds.BOOL,
        10: kinds.BOOL,
        "DT_UINT8": kinds.UINT8,
        4: kinds.UINT8,
    }
    wanted = node.attributes["DstT"]
    if wanted not in known:
        raise node.fail("its type is not known")
    layout = builder.layout_of(*node.inputs)
    return {layout: builder.emit("Cast", builder.get(node.inputs[0], layout), to=known[wanted])}


OPERATIONS: Final[Mapping[str, Callable[[Builder, Node], Value]]] = {
    **dict.fromkeys([*_UNARY, *_SEVERAL], _same_layout),
    **dict.fromkeys(_REDUCE, _reduce),
    "Cast": _cast,
    "FloorDiv": _floor_div,
    "FloorMod": _floor_mod,
    "Identity": _identity,
    "LeakyRelu": _leaky_relu,
    "Maximum": _bound,
    "Minimum": _bound,
    "Relu": _relu,
    "Relu6": _relu6,
    "Softmax": _softmax,
    "SquaredDifference": _squared_difference,
    "StopGradient": _identity,
}
