"""Tensors come out of checkpoints; code does not."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nexus.catalog.errors import ConversionFailed
from nexus.catalog.torch_state import read_state

MAGIC = 0x1950A86A20F9469CFC6C


class Global:
    """Pickles as a bare name, as PyTorch's own classes do."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Call:
    """Pickles as a call of a name with arguments."""

    def __init__(self, function: Global, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments


class Stored:
    """Pickles as a persistent id."""

    def __init__(self, *content: Any) -> None:
        self.content = content


class Writer(pickle._Pickler):
    """Writes pickles that name PyTorch without having it."""

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Global):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(b"R")
        elif isinstance(obj, Stored):
            self.save(obj.content)
            self.write(b"Q")
        else:
            super().save(obj, save_persistent_id)


def dump(value: Any) -> bytes:
    out = io.BytesIO()
    Writer(out, protocol=2).dump(value)
    return out.getvalue()


def tensor(key: str, kind: str, count: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> Call:
    storage = Stored("storage", Global("torch", kind), key, "cpu", count)
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), storage, offset, shape, strides, False, OrderedDict())


def write_zip(path: Path, state: Any, storages: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", dump(state))
        for key, raw in storages.items():
            archive.writestr(f"archive/data/{key}", raw)
    return path


def write_stream(path: Path, state: Any, storages: dict[str, tuple[int, bytes]]) -> Path:
    head = [MAGIC, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, state, sorted(storages)]
    raw = b"".join(struct.pack("<q", storages[key][0]) + storages[key][1] for key in sorted(storages))
    path.write_bytes(b"".join(map(dump, head)) + raw)
    return path


VALUES = np.arange(6, dtype="<f4")


@pytest.mark.parametrize("form", ["zip", "stream"])
def test_both_forms_give_the_tensors(tmp_path: Path, form: str) -> None:
    state = {
        "whole": tensor("0", "FloatStorage", 6, (2, 3), (3, 1)),
        "turned": tensor("0", "FloatStorage", 6, (3, 2), (1, 3)),
        "part": tensor("0", "FloatStorage", 6, (2,), (1,), offset=4),
        "count": tensor("1", "LongStorage", 1, (), ()),
    }
    counts = np.array([7], "<i8").tobytes()
    if form == "zip":
        path = write_zip(tmp_path / "x.pth", state, {"0": VALUES.tobytes(), "1": counts})
    else:
        path = write_stream(tmp_path / "x.pth", state, {"0": (6, VALUES.tobytes()), "1": (1, counts)})
    found = read_state(path)
    np.testing.assert_array_equal(found["whole"], VALUES.reshape(2, 3))
    np.testing.assert_array_equal(found["turned"], VALUES.reshape(2, 3).T)
    np.testing.assert_array_equal(found["part"], [4, 5])
    assert found["count"] == 7


class Evil:
    """Runs a command when an ordinary unpickler reads it."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("form", ["zip", "stream", "bare", "first"])
def test_a_checkpoint_with_code_is_refused_and_runs_nothing(tmp_path: Path, form: str) -> None:
    canary, path = tmp_path / "canary", tmp_path / "x.pth"
    state = {"a": Evil(canary)}
    if form == "zip":
        write_zip(path, state, {})
    elif form == "stream":
        write_stream(path, state, {})
    else:
        path.write_bytes(pickle.dumps(state if form == "bare" else Evil(canary)))
    with pytest.raises(ConversionFailed):
        read_state(path)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [((7,), (1,), 0), ((2,), (6,), 0), ((1,), (1,), 6), ((2, 2), (-1, 1), 0), ((6,), (1,), -1), ((-6,), (1,), 0)],
)
def test_a_tensor_outside_of_its_storage_is_refused(
    tmp_path: Path, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    state = {"a": tensor("0", "FloatStorage", 6, shape, strides, offset)}
    with pytest.raises(ConversionFailed):
        read_state(write_zip(tmp_path / "x.pth", state, {"0": VALUES.tobytes()}))


@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"hello", b"PK\x03\x04", dump(MAGIC), dump(MAGIC) + dump(1001)])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(ConversionFailed):
        read_state(path)


def test_a_short_storage_is_refused(tmp_path: Path) -> None:
    state = {"a": tensor("0", "FloatStorage", 6, (6,), (1,))}
    with pytest.raises(ConversionFailed):
        read_state(write_stream(tmp_path / "x.pth", state, {"0": (6, VALUES.tobytes()[:-4])}))
