"""A TensorFlow.js graph model to `model.onnx`; options: graph, weights, and optionally outputs, inputs, half."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nexus.catalog.tfjs.converter import convert_graph


class TfjsToOnnx:
    """Convert by `nexus.catalog.tfjs`."""

    def convert(self, inputs: Path, outputs: Path, options: Mapping[str, Any]) -> None:
        """Read the graph and its weights, write `model.onnx`."""
        convert_graph(
            inputs / str(options["graph"]),
            outputs / "model.onnx",
            weights=options["weights"],
            outputs=options.get("outputs", ()),
            inputs=options.get("inputs"),
            half=bool(options.get("half", False)),
        )


plug = TfjsToOnnx()
