"""EfficientNet-Lite0 from its PyTorch checkpoint to ONNX, without PyTorch.

The architecture is that of EfficientNet-Lite
(https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite): B0 without squeeze
and excitation, ReLU6 throughout. Batch normalisation is folded into the convolutions. The graph has
two outputs: `output`, 1000 logits, and `features`, the 1280 pooled values before them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from nexus.catalog.errors import ConversionFailed
from nexus.catalog.onnx_writer import Array, OnnxWriter
from nexus.catalog.torch_state import read_state

_SIZE: Final = 224
# (blocks, stride of the first) of the seven stages; kernel and channels are read off the weights.
_STAGES: Final = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
_EPSILON: Final = 1e-3


class EfficientNetToOnnx:
    """Convert `efficientnet-lite0.pth` to `model.onnx`."""

    def convert(self, inputs: Path, outputs: Path, options: Mapping[str, Any]) -> None:
        """Read the weights, build the graph, check it, write it."""
        try:
            graph = _Graph(read_state(inputs / str(options.get("weights", "efficientnet-lite0.pth"))))
            graph.build(outputs / "model.onnx")
        except KeyError:
            raise ConversionFailed("The checkpoint is not one of EfficientNet-Lite.") from None


class _Graph:
    def __init__(self, state: Mapping[str, Array]) -> None:
        self.state = state
        self.writer = OnnxWriter()

    def build(self, path: Path) -> None:
        writer = self.writer
        value = self.relu6(self.convolve("input", "_conv_stem", "_bn0", stride=2))
        strides = [first if index == 0 else 1 for blocks, first in _STAGES for index in range(blocks)]
        for index, stride in enumerate(strides):
            value = self.block(value, f"_blocks.{index}.", stride)
        value = self.relu6(self.convolve(value, "_conv_head", "_bn1"))
        features = writer.emit("Flatten", writer.emit("GlobalAveragePool", value), axis=1)
        weight, bias = writer.const(self.state["_fc.weight"]), writer.const(self.state["_fc.bias"])
        writer.output(writer.emit("Gemm", features, weight, bias, transB=1), "output")
        writer.output(features, "features")
        classes, channels = self.state["_fc.weight"].shape
        info, kind = writer.onnx.helper.make_tensor_value_info, writer.onnx.TensorProto.FLOAT
        model = writer.model(
            "efficientnet_lite0",
            [info("input", kind, ["N", 3, _SIZE, _SIZE])],
            [info("output", kind, ["N", classes]), info("features", kind, ["N", channels])],
            opset=17,
        )
        writer.save(model, path)

    def block(self, value: str, prefix: str, stride: int) -> str:
        """Expand, filter each channel, project; add the input where nothing has changed its shape."""
        inner, expand = value, self.state.get(f"{prefix}_expand_conv.weight")
        if expand is not None:
            inner = self.relu6(self.convolve(inner, f"{prefix}_expand_conv", f"{prefix}_bn0"))
        depthwise = f"{prefix}_depthwise_conv"
        channels = self.state[f"{depthwise}.weight"].shape[0]
        inner = self.relu6(self.convolve(inner, depthwise, f"{prefix}_bn1", stride=stride, group=channels))
        inner = self.convolve(inner, f"{prefix}_project_conv", f"{prefix}_bn2")
        entering = channels if expand is None else expand.shape[1]
        leaving = self.state[f"{prefix}_project_conv.weight"].shape[0]
        return self.writer.emit("Add", inner, value) if stride == 1 and entering == leaving else inner

    def convolve(self, value: str, name: str, norm: str, *, stride: int = 1, group: int = 1) -> str:
        """Convolve with the weights of `name`, the normalisation `norm` folded into them."""
        weight = self.state[f"{name}.weight"].astype(np.float64)
        scale = self.state[f"{norm}.weight"] / np.sqrt(self.state[f"{norm}.running_var"].astype(np.float64) + _EPSILON)
        bias = self.state[f"{norm}.bias"] - self.state[f"{norm}.running_mean"] * scale
        kernel = weight.shape[2]
        return self.writer.emit(
            "Conv",
            value,
            self.writer.const(weight * scale[:, None, None, None], np.float32),
            self.writer.const(bias, np.float32),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            group=group,
        )

    def relu6(self, value: str) -> str:
        return self.writer.emit("Clip", value, self.writer.const(0, np.float32), self.writer.const(6, np.float32))


plug = EfficientNetToOnnx()
