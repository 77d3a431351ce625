"""Walk a TensorFlow.js graph and write it as ONNX."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from nexus.catalog.errors import ConversionFailed
from nexus.catalog.tfjs import elementwise, shapes, spatial
from nexus.catalog.tfjs.builder import Builder, Value, plain
from nexus.catalog.tfjs.graph import Node, read_nodes, visiting_order
from nexus.catalog.tfjs.weights import read_weights

OPSET: Final = 17
_OPERATIONS: Final[Mapping[str, Callable[[Builder, Node], Value | list[Value]]]] = {
    **elementwise.OPERATIONS,
    **spatial.OPERATIONS,
    **shapes.OPERATIONS,
}


def convert_graph(
    graph: Path,
    target: Path,
    *,
    weights: Sequence[str],
    outputs: Sequence[str] = (),
    inputs: Mapping[str, Sequence[int]] | None = None,
    half: bool = False,
) -> None:
    """Write the graph model at `graph` (model.json) as ONNX to `target`.

    `weights` names the files beside it that it may read. `outputs` takes other nodes than the
    signature's, `inputs` cuts the graph at nodes, giving each a shape. `half` stores weights as float16.
    Raises `ConversionFailed` for a damaged model and for operations that are not known.
    """
    try:
        document = json.loads(graph.read_bytes())
        nodes = read_nodes(document["modelTopology"])
        constants = read_weights(graph.parent, document["weightsManifest"], weights)
        wanted = {name: name for name in outputs} or _signature_outputs(document)
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        raise ConversionFailed("The graph model is damaged.") from None
    cuts = dict(inputs or {})
    order = visiting_order(nodes, wanted.values(), cuts)
    _refuse_unknown(order, cuts)
    builder = Builder(nodes, constants)
    graph_inputs = [tensor for node in order if (tensor := _visit(builder, node, cuts)) is not None]
    results = []
    for name, source in wanted.items():
        builder.output(builder.get(source), name)
        results.append(builder.onnx.ValueInfoProto(name=name))
    model = builder.model("tfjs", graph_inputs, results, opset=OPSET, half=half)
    builder.save(_with_shapes(builder, model), target)


def _signature_outputs(document: Mapping[str, Any]) -> dict[str, str]:
    signature = document.get("signature") or (document.get("userDefinedMetadata") or {}).get("signature") or {}
    outputs = {key.removesuffix(":0"): value["name"] for key, value in signature.get("outputs", {}).items()}
    if not outputs:
        raise ConversionFailed("The graph model has no signature, and no outputs were named.")
    return outputs


def _refuse_unknown(order: Sequence[Node], cuts: Mapping[str, Any]) -> None:
    known = {*_OPERATIONS, "Const", "Placeholder"}
    unknown = sorted({node.op for node in order if node.name not in cuts} - known)
    if unknown:
        raise ConversionFailed("The graph has operations that cannot be converted: " + ", ".join(unknown) + ".")


def _visit(builder: Builder, node: Node, cuts: Mapping[str, Sequence[int]]) -> Any:
    """Convert one node; return the graph's input that it stands for, if it does."""
    if node.op == "Placeholder" or node.name in cuts:
        return _input(builder, node, cuts.get(node.name))
    if node.op == "Const":
        if node.name not in builder.weights:
            raise node.fail("its weights are missing")
        return None
    try:
        result = _OPERATIONS[node.op](builder, node)
    except (KeyError, IndexError, ValueError, TypeError):
        raise node.fail("an input or an attribute is missing or wrong") from None
    for index, value in enumerate(result if isinstance(result, list) else [result]):
        builder.values[f"{node.name}:{index}" if index else node.name] = value
    return None


def _input(builder: Builder, node: Node, cut: Sequence[int] | None) -> Any:
    kinds = builder.onnx.TensorProto
    shape = list(cut) if cut is not None else list(node.attributes.get("shape") or [])
    sizes = ["N" if index == 0 and size < 0 else size for index, size in enumerate(shape)]
    if any(isinstance(size, int) and size < 0 for size in sizes):
        raise node.fail("the input has no fixed size")
    known = {"DT_FLOAT": kinds.FLOAT, "DT_INT32": kinds.INT32, "DT_UINT8": kinds.UINT8, "DT_BOOL": kinds.BOOL}
    dtype = "DT_FLOAT" if cut is not None else node.attributes.get("dtype", "DT_FLOAT")
    if dtype not in known:
        raise node.fail("the input's type is not known")
    builder.values[node.name] = plain(node.name)
    return builder.onnx.helper.make_tensor_value_info(node.name, known[dtype], sizes)


def _with_shapes(builder: Builder, model: Any) -> Any:
    """Give the outputs their shapes, and SAME padding its numbers: the odd pixel goes to the end."""
    try:
        inferred = builder.onnx.shape_inference.infer_shapes(model, data_prop=True)
    except builder.onnx.shape_inference.InferenceError:
        raise ConversionFailed("The converted graph is not valid ONNX.") from None
    tensors = [*inferred.graph.value_info, *inferred.graph.input]
    known = {tensor.name: [size.dim_value for size in tensor.type.tensor_type.shape.dim] for tensor in tensors}
    for node in model.graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        size = known.get(node.input[0], [])[2:] if node.input else []
        if "auto_pad" not in attributes or len(size) != 2 or 0 in size:
            continue
        dilations = attributes["dilations"].ints if "dilations" in attributes else (1, 1)
        strides, kernel = attributes["strides"].ints, attributes["kernel_shape"].ints
        total = [
            max((-(-length // stride) - 1) * stride + (width - 1) * dilation + 1 - length, 0)
            for length, width, stride, dilation in zip(size, kernel, strides, dilations, strict=True)
        ]
        pads = [each // 2 for each in total] + [each - each // 2 for each in total]
        node.attribute.remove(attributes["auto_pad"])
        node.attribute.append(builder.onnx.helper.make_attribute("pads", pads))
    del model.graph.output[:]
    model.graph.output.extend(inferred.graph.output)
    return model
