"""A MiniLM sentence encoder from safetensors to ONNX, without PyTorch.

The graph is BERT (Devlin et al. 2018) with mean pooling and L2 normalisation inside, as
sentence-transformers runs it: `input_ids` and `attention_mask` (batch, tokens) in, `embedding`
(batch, 384) of unit length out. Layer sizes are read off the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from nexus.catalog.errors import ConversionFailed
from nexus.catalog.onnx_writer import Array, OnnxWriter

_HEADS: Final = 12
_EPSILON: Final = 1e-12
_MASKED: Final = -1e9


class MiniLmToOnnx:
    """Convert `model.safetensors` to `model.onnx` and keep `tokenizer.json`."""

    def convert(self, inputs: Path, outputs: Path, options: Mapping[str, Any]) -> None:
        """Read the weights, build the graph, check it, write it."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            weights = load_file(inputs / "model.safetensors")
            _Graph(weights).build(outputs / "model.onnx")
        except (SafetensorError, KeyError, ValueError):
            raise ConversionFailed("The weights are not those of a MiniLM sentence encoder.") from None
        (outputs / "tokenizer.json").write_bytes((inputs / "tokenizer.json").read_bytes())


class _Graph:
    def __init__(self, weights: Mapping[str, Array]) -> None:
        self.weights = weights
        self.writer = OnnxWriter()
        self.width = weights["embeddings.word_embeddings.weight"].shape[1]
        layers = {name.split(".")[2] for name in weights if name.startswith("encoder.layer.")}
        self.layers = len(layers)

    def build(self, path: Path) -> None:
        writer, kinds = self.writer, self.writer.onnx.TensorProto
        mask = writer.emit("Cast", "attention_mask", to=kinds.FLOAT)
        hidden_away = writer.emit("Mul", writer.emit("Sub", self.number(1), mask), self.number(_MASKED))
        bias = writer.emit("Unsqueeze", hidden_away, writer.ints(1, 2))
        value = self.embed()
        for index in range(self.layers):
            value = self.layer(value, bias, f"encoder.layer.{index}.")
        writer.nodes.append(
            writer.onnx.helper.make_node(
                "LpNormalization", [self.mean(value, mask)], ["embedding"], name="unit_length", axis=-1, p=2
            )
        )
        info = writer.onnx.helper.make_tensor_value_info
        tokens = [info(name, kinds.INT64, ["batch", "tokens"]) for name in ("input_ids", "attention_mask")]
        result = [info("embedding", kinds.FLOAT, ["batch", self.width])]
        writer.save(writer.model("minilm", tokens, result, opset=20), path)

    def embed(self) -> str:
        """Add the embeddings of the word, its position and sentence type 0."""
        writer, prefix = self.writer, "embeddings."
        words = writer.emit("Gather", self.tensor(prefix + "word_embeddings.weight"), "input_ids")
        length = writer.emit("Slice", writer.emit("Shape", "input_ids"), writer.ints(1), writer.ints(2))
        places = self.tensor(prefix + "position_embeddings.weight")
        places = writer.emit("Slice", places, writer.ints(0), length, writer.ints(0))
        kind = writer.const(self.weights[prefix + "token_type_embeddings.weight"][0])
        return self.normalise(writer.emit("Add", writer.emit("Add", words, places), kind), prefix + "LayerNorm")

    def layer(self, value: str, bias: str, prefix: str) -> str:
        """Attend, then feed forward; each with its residual and layer norm."""
        attended = self.dense(self.attend(value, bias, prefix), prefix + "attention.output.dense")
        value = self.normalise(self.writer.emit("Add", value, attended), prefix + "attention.output.LayerNorm")
        inner = self.writer.emit("Gelu", self.dense(value, prefix + "intermediate.dense"))
        fed = self.dense(inner, prefix + "output.dense")
        return self.normalise(self.writer.emit("Add", value, fed), prefix + "output.LayerNorm")

    def attend(self, value: str, bias: str, prefix: str) -> str:
        """Multi-head attention over the words that are not masked."""
        writer, size = self.writer, self.width // _HEADS
        split, joined = writer.ints(0, 0, _HEADS, size), writer.ints(0, 0, self.width)

        def heads(name: str, order: list[int]) -> str:
            projected = self.dense(value, f"{prefix}attention.self.{name}")
            return writer.emit("Transpose", writer.emit("Reshape", projected, split), perm=order)

        scores = writer.emit("MatMul", heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]))
        scores = writer.emit("Add", writer.emit("Mul", scores, self.number(size**-0.5)), bias)
        mixed = writer.emit("MatMul", writer.emit("Softmax", scores, axis=-1), heads("value", [0, 2, 1, 3]))
        return writer.emit("Reshape", writer.emit("Transpose", mixed, perm=[0, 2, 1, 3]), joined)

    def mean(self, value: str, mask: str) -> str:
        """Average over the words that are not masked."""
        writer, axis = self.writer, self.writer.ints(1)
        weight = writer.emit("Unsqueeze", mask, writer.ints(-1))
        total = writer.emit("ReduceSum", writer.emit("Mul", value, weight), axis, keepdims=0)
        return writer.emit("Div", total, writer.emit("ReduceSum", weight, axis, keepdims=0))

    def dense(self, value: str, name: str) -> str:
        weight = self.writer.const(self.weights[f"{name}.weight"].T)
        return self.writer.emit("Add", self.writer.emit("MatMul", value, weight), self.tensor(f"{name}.bias"))

    def normalise(self, value: str, name: str) -> str:
        scale, shift = self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias")
        return self.writer.emit("LayerNormalization", value, scale, shift, axis=-1, epsilon=_EPSILON)

    def tensor(self, name: str) -> str:
        return self.writer.const(self.weights[name])

    def number(self, value: float) -> str:
        return self.writer.const(value, np.float32)


plug = MiniLmToOnnx()
