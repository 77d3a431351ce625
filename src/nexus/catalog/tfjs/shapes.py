"""Operations on shapes and indices. Apart from concat they run in TensorFlow's own layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from nexus.catalog.tfjs.builder import Builder, Value, plain
from nexus.catalog.tfjs.graph import Node

_END: Final = 2**31 - 1


def _concat(builder: Builder, node: Node) -> Value:
    parts = node.inputs[:-1]
    axis, layout = int(builder.array(node, len(parts), "axis")), builder.layout_of(*parts)
    if layout == "NCHW":
        axis = (0, 2, 3, 1)[axis]
    return {layout: builder.emit("Concat", *(builder.get(name, layout) for name in parts), axis=axis)}


def _reshape(builder: Builder, node: Node) -> Value:
    return plain(builder.emit("Reshape", builder.get(node.inputs[0]), builder.int64(node.inputs[1])))


def _squeeze(builder: Builder, node: Node) -> Value:
    axes = node.attributes.get("squeeze_dims") or node.attributes.get("axis")
    return plain(builder.emit("Squeeze", builder.get(node.inputs[0]), *([builder.ints(*axes)] if axes else [])))


def _expand_dims(builder: Builder, node: Node) -> Value:
    axes = builder.const(np.atleast_1d(builder.array(node, 1, "axis")), np.int64)
    return plain(builder.emit("Unsqueeze", builder.get(node.inputs[0]), axes))


def _transpose(builder: Builder, node: Node) -> Value:
    order = [int(axis) for axis in builder.array(node, 1, "order")]
    return plain(builder.emit("Transpose", builder.get(node.inputs[0]), perm=order))


def _pack(builder: Builder, node: Node) -> Value:
    axis = node.attributes.get("axis") or 0
    parts = [builder.emit("Unsqueeze", builder.get(name), builder.ints(axis)) for name in node.inputs]
    return plain(builder.emit("Concat", *parts, axis=axis))


def _unpack(builder: Builder, node: Node) -> list[Value]:
    axis, count = node.attributes.get("axis") or 0, node.attributes["num"]
    value = builder.get(node.inputs[0])
    parts = builder.emit_many("Split", count, value, axis=axis) if count > 1 else [value]
    return [plain(builder.emit("Squeeze", part, builder.ints(axis))) for part in parts]


def _split(builder: Builder, node: Node) -> list[Value]:
    axis, count = int(builder.array(node, 0, "axis")), node.attributes["num_split"]
    return [plain(name) for name in builder.emit_many("Split", count, builder.get(node.inputs[1]), axis=axis)]


def _slice(builder: Builder, node: Node) -> Value:
    begin = builder.array(node, 1, "begin").astype(np.int64)
    size = builder.array(node, 2, "size").astype(np.int64)
    end = np.where(size < 0, _END, begin + size)
    return plain(builder.emit("Slice", builder.get(node.inputs[0]), builder.const(begin), builder.const(end)))


def _strided_slice(builder: Builder, node: Node) -> Value:
    if node.attributes.get("ellipsis_mask") or node.attributes.get("new_axis_mask"):
        raise node.fail("it has an ellipsis or a new axis")
    begin, end, step = (builder.array(node, index, "bound").astype(np.int64) for index in (1, 2, 3))

    def marked(mask: str, axis: int) -> bool:
        return bool(int(node.attributes.get(mask) or 0) >> axis & 1)

    dropped = [axis for axis in range(len(begin)) if marked("shrink_axis_mask", axis)]
    for axis in range(len(begin)):
        if axis in dropped:
            end[axis], step[axis] = (begin[axis] + 1) or _END, 1
            continue
        forward = step[axis] > 0
        if marked("begin_mask", axis):
            begin[axis] = 0 if forward else _END
        if marked("end_mask", axis):
            end[axis] = _END if forward else -(2**31)
    bounds = [builder.const(array) for array in (begin, end, np.arange(len(begin), dtype=np.int64), step)]
    result = builder.emit("Slice", builder.get(node.inputs[0]), *bounds)
    return plain(builder.emit("Squeeze", result, builder.ints(*dropped)) if dropped else result)


def _gather(builder: Builder, node: Node) -> Value:
    if node.attributes.get("batch_dims"):
        raise node.fail("it gathers by batch")
    axis = int(builder.array(node, 2, "axis")) if len(node.inputs) > 2 else 0
    return plain(builder.emit("Gather", builder.get(node.inputs[0]), builder.get(node.inputs[1]), axis=axis))


def _gather_nd(builder: Builder, node: Node) -> Value:
    return plain(builder.emit("GatherND", builder.get(node.inputs[0]), builder.int64(node.inputs[1])))


def _arg_max(builder: Builder, node: Node) -> Value:
    found = builder.emit("ArgMax", builder.get(node.inputs[0]), axis=int(builder.array(node, 1, "axis")), keepdims=0)
    return plain(builder.emit("Cast", found, to=builder.onnx.TensorProto.INT32))


def _top_k(builder: Builder, node: Node) -> list[Value]:
    count = builder.const(np.atleast_1d(builder.array(node, 1, "k")), np.int64)
    values, indices = builder.emit_many("TopK", 2, builder.get(node.inputs[0]), count)
    return [plain(values), plain(builder.emit("Cast", indices, to=builder.onnx.TensorProto.INT32))]


def _shape(builder: Builder, node: Node) -> Value:
    shape = builder.emit("Shape", builder.get(node.inputs[0]))
    return plain(builder.emit("Cast", shape, to=builder.onnx.TensorProto.INT32))


def _fill(builder: Builder, node: Node) -> Value:
    return plain(builder.emit("Expand", builder.get(node.inputs[1]), builder.int64(node.inputs[0])))


OPERATIONS: Final[Mapping[str, Callable[[Builder, Node], Value | list[Value]]]] = {
    "ArgMax": _arg_max,
    "ConcatV2": _concat,
    "ExpandDims": _expand_dims,
    "Fill": _fill,
    "Gather": _gather,
    "GatherNd": _gather_nd,
    "GatherV2": _gather,
    "Pack": _pack,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "StridedSlice": _strided_slice,
    "TopKV2": _top_k,
    "Transpose": _transpose,
    "Unpack": _unpack,
}
