"""The contract of a decoder: what the numbers that a network puts out mean.

A plug is one module in `decoders/` whose `plug` is a `Decoder`: pure numpy, no state. It is named in
the `decoder` table of a model's row, with the parameters that are the model's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nexus.core.plugins import PluginFolder
from nexus.vision.backend import Array
from nexus.vision.errors import ModelBroken
from nexus.vision.types import Findings


@dataclass(frozen=True, slots=True)
class Scene:
    """What a decoder may know beyond the outputs: size of the input in pixels, the threshold, the row's params."""

    width: int
    height: int
    threshold: float
    params: Mapping[str, Any]


def main_output(outputs: Mapping[str, Array], params: Mapping[str, Any]) -> Array:
    """Return the output that the params call `output`, or the first where it names none. Raises `ModelBroken`."""
    name = str(params.get("output") or next(iter(outputs), ""))
    if name not in outputs:
        raise ModelBroken("The network has no output of the name in its description.")
    return outputs[name]


class Decoder(ABC):
    """Turns the outputs of one picture into findings."""

    task: str
    """The task whose models may name this decoder."""
    threshold: float = 0.0
    """The lowest score worth showing, for models of this family whose row states none."""

    @abstractmethod
    def decode(self, outputs: Mapping[str, Array], scene: Scene) -> Findings:
        """Return what scores at least `scene.threshold`, in pixels of the network's input.

        `outputs` are by name, the batch axis taken off, so that shapes are those of one picture.
        Overlapping doubles may remain: suppressing them is the task's part. Raises `ModelBroken`
        when the outputs do not have the shape of this family.
        """


DECODERS: PluginFolder[Decoder] = PluginFolder("nexus.vision.decoders", Decoder, noun="vision decoder")  # type: ignore[type-abstract]
