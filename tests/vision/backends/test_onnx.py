from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from nexus.vision.backend import BACKENDS, Backend, Runtime
from nexus.vision.backends.onnx import plug, providers, session_options
from nexus.vision.errors import DeviceUnavailable, ModelBroken

CPU = Runtime(device="cpu")


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    """A network with two outputs: twice its input, and its sum."""
    node = onnx.helper.make_node
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node("Add", ["x", "x"], ["twice"]), node("ReduceSum", ["x"], ["sum"], keepdims=0)],
        "doubling",
        [value("x", onnx.TensorProto.FLOAT, ["N", 3])],
        [value("twice", onnx.TensorProto.FLOAT, ["N", 3]), value("sum", onnx.TensorProto.FLOAT, [])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "doubling.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("name", BACKENDS.names())
def test_every_backend_keeps_the_contract(name: str, tmp_path: Path) -> None:
    backend = BACKENDS.get(name)
    assert isinstance(backend, Backend)
    assert all(suffix.startswith(".") for suffix in backend.suffixes)
    broken = tmp_path / f"broken{backend.suffixes[0]}"
    broken.write_bytes(b"not a network")
    with pytest.raises(ModelBroken) as caught:
        backend.open(broken, CPU)
    assert str(tmp_path) not in caught.value.message


def test_a_network_answers_by_name(doubling: Path) -> None:
    session = plug.open(doubling, CPU)
    assert session.device == "cpu"
    assert [(each.name, each.shape, each.dtype) for each in session.inputs] == [("x", (0, 3), np.dtype("float32"))]
    outputs = session.run({"x": np.array([[1, 2, 3]], np.float32)})
    assert outputs["twice"].tolist() == [[2, 4, 6]]
    assert outputs["sum"] == 6


@pytest.mark.parametrize(
    "tensors", [{}, {"y": np.zeros((1, 3), np.float32)}, {"x": np.zeros((1, 4), np.float32)}, {"x": np.zeros((1, 3))}]
)
def test_a_wrong_input_is_the_models_fault(doubling: Path, tensors: dict[str, np.ndarray]) -> None:
    with pytest.raises(ModelBroken):
        plug.open(doubling, CPU).run(tensors)


def test_threads_are_set_and_do_not_spin() -> None:
    options = session_options(3)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert not options.enable_cpu_mem_arena


def test_the_device_chooses_the_provider() -> None:
    assert providers("cpu") == ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        assert providers("cuda:1")[0] == ("CUDAExecutionProvider", {"device_id": 1})
        assert providers("auto")[0] == ("CUDAExecutionProvider", {"device_id": 0})
    else:
        assert providers("auto") == ["CPUExecutionProvider"]
        with pytest.raises(DeviceUnavailable):
            providers("cuda")
