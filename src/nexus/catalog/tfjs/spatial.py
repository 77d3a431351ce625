"""Operations on pictures: convolution, pooling, padding, resizing; and dense layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from nexus.catalog.tfjs.builder import TO_NCHW, Builder, Layout, Value, plain
from nexus.catalog.tfjs.graph import Node


def _window(node: Node) -> dict[str, Any]:
    """Return strides and padding of a convolution or pooling; SAME is made explicit by the converter."""
    attributes = node.attributes
    if attributes.get("data_format", "NHWC") != "NHWC":
        raise node.fail("its layout is not NHWC")
    window: dict[str, Any] = {"strides": attributes["strides"][1:3]}
    if attributes["padding"] == "EXPLICIT":
        explicit = attributes["explicit_paddings"]
        window["pads"] = [explicit[2], explicit[4], explicit[3], explicit[5]]
    elif attributes["padding"] == "SAME":
        window["auto_pad"] = "SAME_UPPER"
    return window


def _convolve(builder: Builder, node: Node) -> Value:
    kernel = builder.array(node, 1, "kernel")
    options = _window(node)
    options["dilations"] = (node.attributes.get("dilations") or [1, 1, 1, 1])[1:3]
    options["kernel_shape"] = list(kernel.shape[:2])
    if "Depthwise" in node.op:  # (height, width, channels, multiplier)
        options["group"] = kernel.shape[2]
        kernel = kernel.transpose(2, 3, 0, 1).reshape(-1, 1, *kernel.shape[:2])
    else:
        kernel = kernel.transpose(3, 2, 0, 1)
    fused = node.attributes.get("fused_ops") or []
    bias = [builder.const(builder.array(node, 2, "bias").reshape(-1))] if "BiasAdd" in fused else []
    result = builder.emit("Conv", builder.get(node.inputs[0], "NCHW"), builder.const(kernel), *bias, **options)
    return {"NCHW": _activate(builder, node, result, "NCHW")}


def _activate(builder: Builder, node: Node, value: str, layout: Layout) -> str:
    """Apply what TensorFlow has fused into a layer, apart from its bias."""
    for name in node.attributes.get("fused_ops") or []:
        if name == "Relu":
            value = builder.relu(value)
        elif name == "Relu6":
            value = builder.clip(value, 0.0, 6.0)
        elif name in ("Elu", "Sigmoid", "Tanh"):
            value = builder.emit(name, value)
        elif name == "Prelu":
            value = builder.emit("PRelu", value, builder.get(node.inputs[3], layout))
        elif name == "LeakyRelu":
            value = builder.emit("LeakyRelu", value, alpha=float(node.attributes["leakyrelu_alpha"]))
        elif name != "BiasAdd":
            raise node.fail("something unknown is fused into it")
    return value


def _pool(builder: Builder, node: Node) -> Value:
    op = "MaxPool" if node.op == "MaxPool" else "AveragePool"
    size = node.attributes["ksize"][1:3]
    return {"NCHW": builder.emit(op, builder.get(node.inputs[0], "NCHW"), kernel_shape=size, **_window(node))}


def _matmul(builder: Builder, node: Node) -> Value:
    sides = [
        builder.emit("Transpose", builder.get(name), perm=(1, 0)) if node.attributes.get(flag) else builder.get(name)
        for name, flag in zip(node.inputs[:2], ("transpose_a", "transpose_b"), strict=True)
    ]
    result = builder.emit("MatMul", *sides)
    if "BiasAdd" in (node.attributes.get("fused_ops") or []):
        result = builder.emit("Add", result, builder.get(node.inputs[2]))
    return plain(_activate(builder, node, result, "NHWC"))


def _pad(builder: Builder, node: Node) -> Value:
    mode = "constant"
    if node.op == "MirrorPad":
        mode = "reflect"
        if node.attributes["mode"] != "REFLECT":
            raise node.fail("only REFLECT is known")
    sizes, layout = builder.array(node, 1, "padding"), builder.layout_of(node.inputs[0])
    if layout == "NCHW":
        sizes = sizes[list(TO_NCHW)]
    fill = [builder.get(node.inputs[2])] if len(node.inputs) > 2 else []
    padding = builder.const(sizes.T.reshape(-1), np.int64)
    return {layout: builder.emit("Pad", builder.get(node.inputs[0], layout), padding, *fill, mode=mode)}


def _resize(builder: Builder, node: Node) -> Value:
    value = builder.get(node.inputs[0], "NCHW")
    kept = builder.emit("Slice", builder.emit("Shape", value), builder.ints(0), builder.ints(2))
    size = builder.emit("Concat", kept, builder.int64(node.inputs[1]), axis=0)
    if node.attributes.get("align_corners"):
        where = "align_corners"
    else:
        where = "half_pixel" if node.attributes.get("half_pixel_centers") else "asymmetric"
    options: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": where}
    if node.op == "ResizeNearestNeighbor":
        options |= {"mode": "nearest", "nearest_mode": "floor"}
    return {"NCHW": builder.emit("Resize", value, "", "", size, **options)}


OPERATIONS: Final[Mapping[str, Callable[[Builder, Node], Value]]] = {
    "AvgPool": _pool,
    "Conv2D": _convolve,
    "DepthwiseConv2dNative": _convolve,
    "FusedDepthwiseConv2dNative": _convolve,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "MirrorPad": _pad,
    "Pad": _pad,
    "PadV2": _pad,
    "ResizeBilinear": _resize,
    "ResizeNearestNeighbor": _resize,
    "_FusedConv2D": _convolve,
    "_FusedMatMul": _matmul,
}
