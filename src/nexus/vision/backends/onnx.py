"""ONNX Runtime, the one back-end that is always there.

Threads are always set explicitly: left to itself the library pins threads to cores that a container
may not have (RapidAI/RapidOCR#144). Spinning is off, since it burns the cores that other requests
need. The memory arena is off, since it never gives back what one large picture took
(triton-inference-server/server#7594).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nexus.vision.backend import Array, Backend, Input, Runtime, Session
from nexus.vision.errors import DeviceUnavailable, ModelBroken

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


def session_options(threads: int) -> Any:
    """Return options with explicit threads, no spinning, no arena."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def providers(device: str) -> list[Any]:
    """Return ONNX Runtime's providers, best first, for `auto`, `cpu`, `cuda` or `cuda:N`.

    `auto` takes CUDA where this build of the library has it, else the CPU. Raises
    `DeviceUnavailable` when CUDA is asked for by name and is not there.
    """
    import onnxruntime

    kind, _, number = device.partition(":")
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if kind == "cuda" and not has_cuda:
        raise DeviceUnavailable("This machine's ONNX Runtime has no CUDA.", device=device)
    if kind == "cpu" or not has_cuda:
        return ["CPUExecutionProvider"]
    return [("CUDAExecutionProvider", {"device_id": int(number or 0)}), "CPUExecutionProvider"]


def open_session(path: Path, runtime: Runtime) -> Any:
    """Return a bare `onnxruntime.InferenceSession`."""
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(
            str(path), session_options(runtime.threads), providers=providers(runtime.device)
        )
    except DeviceUnavailable:
        raise
    except Exception:  # noqa: BLE001  the library's errors share no base class, and their texts hold paths
        raise ModelBroken("The model's network file cannot be loaded.") from None


class OnnxSession:
    """One network in ONNX Runtime."""

    precision = "f32"

    def __init__(self, session: Any) -> None:
        """Wrap an `onnxruntime.InferenceSession`."""
        self._session: Any = session
        self._outputs = [output.name for output in session.get_outputs()]
        self.inputs = tuple(_input(each) for each in session.get_inputs())
        self.device = "cuda" if session.get_providers()[0].startswith("CUDA") else "cpu"

    def run(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output by name."""
        try:
            outputs = self._session.run(self._outputs, dict(tensors))
        except Exception:  # noqa: BLE001  see open_session
            raise ModelBroken("The network refused its input; its description in the catalogue is wrong.") from None
        return dict(zip(self._outputs, outputs, strict=True))

    def close(self) -> None:
        """Let go of the memory once the last running call has ended."""
        self._session = None


def _input(described: Any) -> Input:
    shape = tuple(size if isinstance(size, int) and size > 0 else 0 for size in described.shape)
    return Input(described.name, shape, np.dtype(_DTYPES.get(described.type, np.float32)))


class OnnxBackend(Backend):
    """Opens `.onnx` files."""

    suffixes = (".onnx",)

    def open(self, path: Path, runtime: Runtime) -> Session:
        """Load a network."""
        return OnnxSession(open_session(path, runtime))


plug = OnnxBackend()
