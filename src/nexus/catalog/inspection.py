"""What an imported file is, found out without trusting it.

Only formats that hold numbers and a graph are taken: ONNX and GGUF. Nothing that can carry code
(pickles, PyTorch checkpoints, archives) is opened at all. ONNX is read in a child process with limits
on memory and time (`inspection_child`).
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nexus.catalog.errors import ModelRefused
from nexus.catalog.gguf import MAGIC, read_head

_LONGEST: Final = 120.0
_CODE_CARRIERS: Final = (b"\x80", b"PK", b"\x1f\x8b", b"(dp", b"(lp", b"cos\n", b"\x89HDF", b"ustar")


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a file turned out to be; `meta` is our guess at what its runner needs, for the user to correct."""

    format: str
    kind: str
    task: str
    meta: dict[str, Any]


async def inspect_model(path: Path) -> Inspection:
    """Return what the file is. Raises `ModelRefused` for everything but sound ONNX and GGUF models."""
    with path.open("rb") as file:
        first = file.read(8)
    if first.startswith(MAGIC):
        return _gguf(await asyncio.to_thread(read_head, path))
    if first.startswith(_CODE_CARRIERS):
        raise ModelRefused("Files that can carry code (pickles, checkpoints, archives) are not taken.", field="file")
    return _onnx(await _in_child(path))


async def _in_child(path: Path) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "nexus.catalog.inspection_child",
        str(path),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), _LONGEST)
    except TimeoutError:
        raise ModelRefused("Reading the model took too long.", field="file") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        answer: dict[str, Any] = json.loads(said)
    except ValueError:
        raise ModelRefused("The file is no ONNX model that can be read within the limits.", field="file") from None
    if "refused" in answer:
        raise ModelRefused(answer["refused"], field="file")
    return answer


def _gguf(head: dict[str, Any]) -> Inspection:
    family = str(head.get("general.architecture", ""))
    meta = {
        "format": "gguf",
        "family": family,
        "title": head.get("general.name"),
        "context": head.get(f"{family}.context_length"),
        "embedding_length": head.get(f"{family}.embedding_length"),
    }
    embeds = bool(head.get(f"{family}.pooling_type")) or "bert" in family
    kind, task = ("embedding", "embed") if embeds else ("llm", "chat")
    return Inspection("gguf", kind, task, {key: value for key, value in meta.items() if value is not None})


def _onnx(found: dict[str, Any]) -> Inspection:
    meta: dict[str, Any] = {"format": "onnx", "inputs": found["inputs"], "outputs": found["outputs"]}
    task, decoder = guess_task([output["shape"] for output in found["outputs"]])
    if picture := _picture(found["inputs"]):
        meta["input"] = picture
    if decoder:
        meta["decoder"] = {"name": decoder, "params": {"name": found["outputs"][0]["name"]}}
    if decoder == "softmax":
        # What most classifiers of ImageNet were trained with; the user corrects it where it does not fit.
        usual = {"resize": "crop", "crop": 0.875, "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
        meta["input"] = picture | usual
    elif picture:
        meta["input"] = picture | {"resize": "letterbox-topleft", "pad": 114}
    return Inspection("onnx", "vision", task, meta)


def guess_task(outputs: list[list[int]]) -> tuple[str, str]:
    """Guess task and decoder by the shapes of the outputs, 0 being a size that varies; ("custom", "") if unsure."""
    if len(outputs) != 1:
        return "custom", ""
    shape = outputs[0]
    if len(shape) == 3 and shape[2] == 85:
        return "detect", "yolox"
    if len(shape) == 3 and 5 <= shape[1] < shape[2]:
        return "detect", "yolov8"
    if len(shape) == 2 and shape[1] > 1:
        return "classify", "softmax"
    return "custom", ""


def _picture(inputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Describe the input if there is one and it is a picture of a fixed size with three channels."""
    if len(inputs) != 1 or len(inputs[0]["shape"]) != 4:
        return {}
    shape = inputs[0]["shape"]
    layout, sides = ("nchw", shape[2:]) if shape[1] == 3 else ("nhwc", shape[1:3])
    if 0 in sides or 3 not in (shape[1], shape[3]):
        return {}
    dtype = inputs[0]["dtype"] if inputs[0]["dtype"] in ("float32", "float16", "uint8", "int32") else "float32"
    return {"size": list(sides), "layout": layout, "dtype": dtype, "colour": "rgb"}
