"""Read the tensors of a PyTorch checkpoint without PyTorch and without running anything from it.

A checkpoint is a pickle, which can name any function. The unpickler here knows five names, all of
them its own stand-ins: an ordered dict, two tensor makers and the storage types. Both forms are
read: the zip archive of PyTorch 1.6 and later, and the older stream of pickles followed by raw storages
(torch/serialization.py, `_legacy_load`).
"""

from __future__ import annotations

import io
import pickle  # only under the unpickler below, which finds no foreign name
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from nexus.catalog.errors import ConversionFailed

Array = npt.NDArray[Any]

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_DTYPES: Final[dict[str, str]] = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state(path: Path) -> dict[str, Array]:
    """Return the checkpoint's tensors by name. Raises `ConversionFailed` for anything but plain tensors."""
    try:
        with path.open("rb") as file:
            tensors, storages = _read_zip(file) if zipfile.is_zipfile(path) else _read_stream(file)
        return {name: _array(tensor, storages) for name, tensor in tensors.items()}
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        struct.error,
        AttributeError,
    ):
        raise ConversionFailed("The checkpoint is damaged, or holds more than tensors.") from None
    except (zipfile.BadZipFile, OSError):
        raise ConversionFailed("The checkpoint is damaged.") from None


class _Unpickler(pickle.Unpickler):
    """Finds no name but those of tensors."""

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module == "torch" and name in _DTYPES:
            return np.dtype(_DTYPES[name])
        raise ConversionFailed("The checkpoint asks for code to be run; it is refused.")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key = pid[:3]
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise ConversionFailed("The checkpoint is damaged.")
        return _Storage(str(key), dtype)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_rest: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ConversionFailed("The checkpoint is damaged.")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _rebuild_parameter(tensor: Any, *_rest: Any) -> Any:
    return tensor


def _read_zip(file: IO[bytes]) -> tuple[dict[str, _Tensor], Callable[[_Storage], Array]]:
    content = io.BytesIO(file.read())
    archive = zipfile.ZipFile(content)
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ConversionFailed("The checkpoint is damaged.")
    tensors = _Unpickler(io.BytesIO(archive.read(pickles[0]))).load()
    root = pickles[0].removesuffix("data.pkl")
    return tensors, lambda storage: np.frombuffer(archive.read(f"{root}data/{storage.key}"), storage.dtype)


def _read_stream(file: IO[bytes]) -> tuple[dict[str, _Tensor], Callable[[_Storage], Array]]:
    if _Unpickler(file).load() != _MAGIC:
        raise ConversionFailed("The file is no PyTorch checkpoint.")
    _protocol, system = _Unpickler(file).load(), _Unpickler(file).load()
    if not system.get("little_endian", True):
        raise ConversionFailed("The checkpoint was written on a big-endian machine.")
    tensors = _Unpickler(file).load()
    dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in tensors.values()}
    raw: dict[str, Array] = {}
    for key in _Unpickler(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        dtype = dtypes[str(key)]
        raw[str(key)] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    return tensors, lambda storage: raw[storage.key]


def _array(tensor: _Tensor, storages: Callable[[_Storage], Array]) -> Array:
    flat = storages(tensor.storage)
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    if min(tensor.offset, *tensor.shape, *tensor.strides, 0) < 0 or last >= max(len(flat), 1):
        raise ConversionFailed("A tensor of the checkpoint lies outside its storage.")
    strides = tuple(stride * flat.itemsize for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides).copy()
