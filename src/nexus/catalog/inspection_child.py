"""The process that reads an imported ONNX file: `python -m nexus.catalog.inspection_child FILE`.

It prints JSON: the inputs and outputs, or `{"refused": why}`. It may use 6 GiB of memory and a minute of
processor time, and writes no files.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
from collections.abc import Iterator
from typing import Any, Final

_MEMORY: Final = 6 << 30
_SECONDS: Final = 60
_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml"})


def main(path: str) -> int:
    """Inspect the file and return the exit status."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    sys.stdout.write(json.dumps(inspect(path)))
    return 0


def inspect(path: str) -> dict[str, Any]:
    """Return the inputs and outputs of a sound model that stands alone, or why it is refused."""
    import onnx

    unreadable = importlib.import_module("google.protobuf.message").DecodeError  # which ships no types
    try:
        model = onnx.load(path, load_external_data=False)
    except (unreadable, ValueError, RuntimeError):
        return {"refused": "The file is no ONNX model."}
    if not model.graph.node:
        return {"refused": "The file is no ONNX model."}
    domains = {entry.domain for entry in [*model.opset_import, *_nodes(model)]}
    if not domains <= _DOMAINS or model.functions:
        return {"refused": "The model uses operators that are not part of ONNX."}
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model)):
        return {"refused": "The model keeps its weights in another file; save it as one file."}
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return {"refused": "The model does not pass the ONNX checker."}
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [_describe(value) for value in model.graph.input if value.name not in weights]
    return {"inputs": inputs, "outputs": [_describe(value) for value in model.graph.output]}


def _graphs(model: Any) -> Iterator[Any]:
    """Yield the graph and every graph inside its nodes."""
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += attribute.graphs


def _nodes(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        yield from graph.node


def _tensors(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                yield from [attribute.t] if attribute.HasField("t") else []
                yield from attribute.tensors


def _describe(value: Any) -> dict[str, Any]:
    from onnx import helper

    tensor = value.type.tensor_type
    dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type)) if tensor.elem_type else "unknown"
    return {"name": value.name, "dtype": dtype, "shape": [size.dim_value for size in tensor.shape.dim]}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
