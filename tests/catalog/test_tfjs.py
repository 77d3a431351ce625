"""Small TensorFlow.js graphs, converted and run, against numpy."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nexus.catalog.errors import ConversionFailed
from nexus.catalog.tfjs.converter import convert_graph

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(7)
PICTURE = RNG.standard_normal((1, 7, 6, 3)).astype(np.float32)


class Graph:
    """Writes a graph model as tfjs-converter does."""

    def __init__(self, shape: list[int], dtype: str = "DT_FLOAT") -> None:
        size = {"dim": [{"size": str(each)} for each in shape]}
        self.nodes: list[dict[str, Any]] = [
            {"name": "x", "op": "Placeholder", "attr": {"dtype": {"type": dtype}, "shape": {"shape": size}}}
        ]
        self.manifest: list[dict[str, Any]] = []
        self.data = b""

    def weight(self, name: str, values: Any, *, store: str | None = None) -> str:
        array = np.asarray(values)
        array = array.astype({"float64": np.float32, "int64": np.int32}.get(array.dtype.name, array.dtype))
        entry: dict[str, Any] = {"name": name, "shape": list(array.shape), "dtype": array.dtype.name}
        if store == "float16":
            entry["quantization"] = {"dtype": "float16", "original_dtype": "float32"}
            array = array.astype(np.float16)
        elif store:
            low, high = float(array.min()), float(array.max())
            scale = (high - low) / np.iinfo(store).max
            entry["quantization"] = {"dtype": store, "scale": scale, "min": low, "original_dtype": "float32"}
            array = np.rint((array - low) / scale).astype(store)
        self.manifest.append(entry)
        self.data += array.tobytes()
        self.nodes.append({"name": name, "op": "Const", "attr": {}})
        return name

    def node(self, name: str, op: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(
            {"name": name, "op": op, "input": list(inputs), "attr": {k: attribute(v) for k, v in attributes.items()}}
        )
        return name

    def write(self, folder: Path, *outputs: str, paths: tuple[str, ...] = ("w.bin",)) -> Path:
        signature = {"outputs": {name.partition(":")[0] + ":0": {"name": name} for name in outputs}}
        document = {
            "format": "graph-model",
            "signature": signature,
            "modelTopology": {"node": self.nodes},
            "weightsManifest": [{"paths": list(paths), "weights": self.manifest}],
        }
        (folder / "m.json").write_text(json.dumps(document))
        (folder / "w.bin").write_bytes(self.data)
        return folder / "m.json"


def attribute(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"b": value}
    if isinstance(value, int):
        return {"i": str(value)}
    if isinstance(value, float):
        return {"f": value}
    if isinstance(value, str):
        return {"type": value} if value.startswith("DT_") else {"s": base64.b64encode(value.encode()).decode()}
    if value and isinstance(value[0], str):
        return {"list": {"s": [base64.b64encode(each.encode()).decode() for each in value]}}
    return {"list": {"i": [str(each) for each in value]}}


def run(graph: Graph, folder: Path, x: Array, *outputs: str, half: bool = False) -> list[Array]:
    import onnxruntime

    convert_graph(graph.write(folder, *outputs), folder / "m.onnx", weights=["w.bin"], half=half)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "m.onnx"), options, providers=["CPUExecutionProvider"])
    names = [name.partition(":")[0] for name in outputs]
    return session.run(names, {"x": x})  # type: ignore[no-any-return]


def convolve(x: Array, kernel: Array, stride: int, *, same: bool, depthwise: bool = False) -> Array:
    """NHWC convolution by its definition, with TensorFlow's padding."""
    size, sides = kernel.shape[0], x.shape[1:3]
    out = [-(-side // stride) if same else (side - size) // stride + 1 for side in sides]
    total = [max((o - 1) * stride + size - side, 0) if same else 0 for o, side in zip(out, sides, strict=True)]
    x = np.pad(x, [(0, 0), *((t // 2, t - t // 2) for t in total), (0, 0)])
    channels = kernel.shape[2] * kernel.shape[3] if depthwise else kernel.shape[3]
    result = np.zeros((x.shape[0], *out, channels), np.float32)
    for row in range(out[0]):
        for column in range(out[1]):
            patch = x[:, row * stride : row * stride + size, column * stride : column * stride + size]
            if depthwise:
                values = np.einsum("nhwc,hwcm->ncm", patch, kernel).reshape(x.shape[0], -1)
            else:
                values = np.einsum("nhwc,hwco->no", patch, kernel)
            result[:, row, column] = values
    return result


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 4])
def test_convolution(tmp_path: Path, depthwise: bool, padding: str, stride: int, size: int) -> None:
    kernel = RNG.standard_normal((size, size, 3, 2)).astype(np.float32)
    graph = Graph([1, 7, 6, 3])
    op = "DepthwiseConv2dNative" if depthwise else "Conv2D"
    graph.node("y", op, "x", graph.weight("k", kernel), strides=[1, stride, stride, 1], padding=padding)
    (found,) = run(graph, tmp_path, PICTURE, "y")
    expected = convolve(PICTURE, kernel, stride, same=padding == "SAME", depthwise=depthwise)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_small_network_with_fused_layers_and_a_way_around(tmp_path: Path) -> None:
    kernel = RNG.standard_normal((3, 3, 3, 3)).astype(np.float32)
    bias, dense = RNG.standard_normal(3), RNG.standard_normal((3, 5)).astype(np.float32)
    graph = Graph([1, 7, 6, 3])
    graph.weight("k", kernel), graph.weight("b", bias), graph.weight("w", dense), graph.weight("axes", [1, 2])
    graph.node("c", "_FusedConv2D", "x", "k", "b", strides=[1, 1, 1, 1], padding="SAME", fused_ops=["BiasAdd", "Relu6"])
    graph.node("sum", "AddV2", "c", "x")
    graph.node("mean", "Mean", "sum", "axes", keep_dims=False)
    graph.node("fc", "MatMul", "mean", "w")
    graph.node("p", "Softmax", "fc")
    found, picture = run(graph, tmp_path, PICTURE, "p", "sum")
    total = np.clip(convolve(PICTURE, kernel, 1, same=True) + bias, 0, 6) + PICTURE
    logits = total.mean((1, 2)) @ dense
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(picture, total, rtol=1e-4, atol=1e-4)


VECTOR = np.array([[3, -1, 2.5, 0, 7, -4]], np.float32)
PLAIN: list[tuple[str, Callable[[Graph], Any], Callable[[Array], Any]]] = [
    ("relu", lambda g: g.node("y", "Relu", "x"), lambda x: np.maximum(x, 0)),
    ("relu then min is one clip", lambda g: g.node("y", "Minimum", g.node("r", "Relu", "x"), g.weight("c", 2.0)),
     lambda x: np.clip(x, 0, 2)),
    ("clip keeps what others read", lambda g: g.node(
        "y", "AddV2", g.node("r", "Relu", "x"), g.node("m", "Minimum", "r", g.weight("c", 2.0))),
     lambda x: np.maximum(x, 0) + np.clip(x, 0, 2)),
    ("maximum with a vector", lambda g: g.node("y", "Maximum", "x", g.weight("c", [1.0, 2, 3, 4, 5, 6])),
     lambda x: np.maximum(x, [1, 2, 3, 4, 5, 6])),
    ("leaky relu", lambda g: g.node("y", "LeakyRelu", "x", alpha=0.1), lambda x: np.where(x < 0, x * 0.1, x)),
    ("floor mod", lambda g: g.node("y", "FloorMod", "x", g.weight("c", 2.0), T="DT_FLOAT"), lambda x: x % 2),
    ("floor div", lambda g: g.node("y", "FloorDiv", "x", g.weight("c", 2.0), T="DT_FLOAT"), lambda x: x // 2),
    ("squared difference", lambda g: g.node("y", "SquaredDifference", "x", g.weight("c", 1.0)), lambda x: (x - 1) ** 2),
    ("sum", lambda g: g.node("y", "Sum", "x", g.weight("c", [1]), keep_dims=True), lambda x: x.sum(1, keepdims=True)),
    ("max", lambda g: g.node("y", "Max", "x", g.weight("c", [1]), keep_dims=False), lambda x: x.max(1)),
    ("reshape", lambda g: g.node("y", "Reshape", "x", g.weight("c", [3, -1])), lambda x: x.reshape(3, 2)),
    ("transpose", lambda g: g.node("y", "Transpose", "x", g.weight("c", [1, 0])), lambda x: x.T),
    ("expand", lambda g: g.node("y", "ExpandDims", "x", g.weight("c", 0)), lambda x: x[None]),
    ("squeeze", lambda g: g.node("y", "Squeeze", "x", squeeze_dims=[0]), lambda x: x[0]),
    ("concat", lambda g: g.node("y", "ConcatV2", "x", "x", g.weight("c", 1)), lambda x: np.concatenate([x, x], 1)),
    ("pack", lambda g: g.node("y", "Pack", "x", "x", axis=1), lambda x: np.stack([x, x], 1)),
    ("slice", lambda g: g.node("y", "Slice", "x", g.weight("b", [0, 2]), g.weight("s", [1, -1])), lambda x: x[:, 2:]),
    ("strided slice backwards", lambda g: g.node(
        "y", "StridedSlice", "x", g.weight("b", [0, 0]), g.weight("e", [0, 0]), g.weight("s", [1, -2]),
        begin_mask=3, end_mask=3), lambda x: x[:, ::-2]),
    ("strided slice that drops an axis", lambda g: g.node(
        "y", "StridedSlice", "x", g.weight("b", [0, -1]), g.weight("e", [0, 0]), g.weight("s", [1, 1]),
        begin_mask=1, end_mask=1, shrink_axis_mask=2), lambda x: x[:, -1]),
    ("gather", lambda g: g.node("y", "GatherV2", "x", g.weight("i", [4, 0]), g.weight("a", 1)), lambda x: x[:, [4, 0]]),
    ("argmax", lambda g: g.node("y", "ArgMax", "x", g.weight("c", 1)), lambda x: x.argmax(1).astype(np.int32)),
    ("cast", lambda g: g.node("y", "Cast", "x", DstT="DT_INT32"), lambda x: x.astype(np.int32)),
    ("fill", lambda g: g.node("y", "AddV2", "x", g.node("f", "Fill", g.weight("s", [1, 6]), g.weight("v", 5.0))),
     lambda x: x + 5),
    ("select", lambda g: g.node("y", "SelectV2", g.node("c", "Greater", "x", g.weight("t", 1.0)), "x", "t"),
     lambda x: np.where(x > 1, x, 1)),
    ("shape", lambda g: g.node("y", "Shape", "x"), lambda x: np.array(x.shape, np.int32)),
]  # fmt: skip


@pytest.mark.parametrize(("build", "expected"), [case[1:] for case in PLAIN], ids=[case[0] for case in PLAIN])
def test_operations(tmp_path: Path, build: Callable[[Graph], Any], expected: Callable[[Array], Any]) -> None:
    graph = Graph([1, 6])
    build(graph)
    (found,) = run(graph, tmp_path, VECTOR, "y")
    np.testing.assert_allclose(found, expected(VECTOR), rtol=1e-6)


@pytest.mark.parametrize("op", ["FloorDiv", "FloorMod"])
def test_integers_divide_towards_minus_infinity(tmp_path: Path, op: str) -> None:
    x = np.array([[-7, 7, -6, 5, -1, 0]], np.int32)
    graph = Graph([1, 6], "DT_INT32")
    graph.node("y", op, "x", graph.weight("c", np.array(4, np.int32)), T="DT_INT32")
    (found,) = run(graph, tmp_path, x, "y")
    np.testing.assert_array_equal(found, x // 4 if op == "FloorDiv" else x % 4)


def test_several_outputs(tmp_path: Path) -> None:
    graph = Graph([1, 6])
    graph.node("top", "TopKV2", "x", graph.weight("k", 3))
    graph.node("i", "Identity", "top:1")
    graph.node("v", "Identity", "top:0")
    values, indices = run(graph, tmp_path, VECTOR, "v", "i")
    np.testing.assert_array_equal(values, [[7, 3, 2.5]])
    np.testing.assert_array_equal(indices, [[4, 0, 2]])


def test_pictures_keep_their_meaning_through_pads_resizes_and_pools(tmp_path: Path) -> None:
    graph = Graph([1, 7, 6, 3])
    graph.node("big", "ResizeNearestNeighbor", "x", graph.weight("size", [14, 12]))
    graph.node("pad", "Pad", "big", graph.weight("p", [[0, 0], [1, 2], [0, 3], [0, 0]]))
    graph.node("pool", "MaxPool", "pad", ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="VALID")
    graph.node("joined", "ConcatV2", "pool", "pool", graph.weight("axis", 3))
    graph.node("y", "Mul", "joined", graph.weight("scale", [1.0, 2, 3, 4, 5, 6]))
    (found,) = run(graph, tmp_path, PICTURE, "y")
    big = PICTURE.repeat(2, 1).repeat(2, 2)
    padded = np.pad(big, [(0, 0), (1, 2), (0, 3), (0, 0)])[:, :16, :14]
    pooled = padded.reshape(1, 8, 2, 7, 2, 3).max((2, 4))
    np.testing.assert_allclose(found, np.concatenate([pooled, pooled], 3) * [1, 2, 3, 4, 5, 6], rtol=1e-6)


@pytest.mark.parametrize(
    ("store", "tolerance"), [("float16", 1e-3), ("uint8", 2e-2), ("uint16", 1e-4), (None, 1e-6)], ids=str
)
def test_stored_weights_come_back(tmp_path: Path, store: str | None, tolerance: float) -> None:
    weight = RNG.standard_normal((6, 20)).astype(np.float32)
    graph = Graph([1, 6])
    graph.node("y", "MatMul", "x", graph.weight("w", weight, store=store))
    (found,) = run(graph, tmp_path, VECTOR, "y", half=store == "float16")
    np.testing.assert_allclose(found, VECTOR @ weight, atol=tolerance * 20)


def broken(tmp_path: Path, how: str) -> Path:
    graph = Graph([1, 6])
    graph.node("y", "Frobnicate" if how == "unknown" else "AddV2", "x", graph.weight("w", np.ones(6)))
    if how == "missing input":
        graph.node("y2", "AddV2", "x", "nobody")
    if how == "long":
        graph.data += b"\0"
    if how == "short":
        graph.data = graph.data[:-1]
    if how == "type":
        graph.manifest[0]["dtype"] = "complex64"
    if how == "no constant":
        graph.node("y2", "Reshape", "x", "x")
        graph.node("y3", "ExpandDims", "x", "x")
    if how == "size":
        graph.nodes[0]["attr"]["shape"]["shape"]["dim"][1]["size"] = "-1"
    paths = ("../../secret",) if how == "path" else ("w.bin",)
    out = {"missing input": ["y2"], "no constant": ["y3"], "no outputs": []}.get(how, ["y"])
    path = graph.write(tmp_path, *out, paths=paths)
    if how == "json":
        path.write_text("{")
    return path


@pytest.mark.parametrize(
    "how",
    ["unknown", "missing input", "long", "short", "type", "no constant", "size", "path", "no outputs", "json"],
)
def test_broken_graphs_are_refused_with_a_reason(tmp_path: Path, how: str) -> None:
    path = broken(tmp_path, how)
    with pytest.raises(ConversionFailed) as caught:
        convert_graph(path, tmp_path / "out.onnx", weights=["w.bin"])
    assert caught.value.message
    assert "secret" not in caught.value.message
    assert not (tmp_path / "out.onnx").exists()
    if how == "unknown":
        assert "Frobnicate" in caught.value.message


def test_a_graph_can_be_cut(tmp_path: Path) -> None:
    graph = Graph([1, 6])
    graph.node("strange", "Frobnicate", "x")
    graph.node("y", "Relu", "strange")
    path = graph.write(tmp_path, "y")
    convert_graph(path, tmp_path / "m.onnx", weights=["w.bin"], inputs={"strange": [1, 6]}, outputs=["y"])
    assert (tmp_path / "m.onnx").exists()
