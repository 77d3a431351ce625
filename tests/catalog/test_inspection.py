"""Models come in; code, half files and surprises do not."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
from tests.catalog.conftest import MakeCatalog, person, tiny_onnx

from nexus.catalog.errors import ModelRefused
from nexus.catalog.gguf import read_head
from nexus.catalog.importing import import_model
from nexus.catalog.inspection import guess_task, inspect_model
from nexus.core.errors import TooLarge
from nexus.storage.db import Database


def gguf(pairs: list[tuple[str, int, bytes]], *, count: int | None = None) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    body = b"".join(text(key) + struct.pack("<I", kind) + raw for key, kind, raw in pairs)
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs) if count is None else count) + body


def string(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


GOOD = gguf(
    [
        ("general.architecture", 8, string("llama")),
        ("tokens", 9, struct.pack("<IQ", 8, 2) + string("a") + string("b")),
        ("scores", 9, struct.pack("<IQ", 6, 3) + b"\0" * 12),
        ("llama.context_length", 4, struct.pack("<I", 2048)),
    ]
)


async def test_onnx_is_understood(tmp_path: Path) -> None:
    found = await inspect_model(tiny_onnx(tmp_path / "m"))
    assert (found.format, found.kind, found.task) == ("onnx", "vision", "classify")
    assert found.meta["decoder"] == {"name": "softmax", "params": {"name": "y"}}
    assert found.meta["input"]["size"] == [8, 8]
    assert found.meta["input"]["layout"] == "nchw"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "task", "decoder"),
    [
        ("detection/yolox_nano.onnx", "detect", "yolox"),
        ("classification/efficientnet_lite0.onnx", "classify", "softmax"),
    ],
)
async def test_real_models_are_guessed_right(shared: Path, file: str, task: str, decoder: str) -> None:
    found = await inspect_model(shared / "data/vision/models" / file)
    assert (found.task, found.meta["decoder"]["name"]) == (task, decoder)


async def test_gguf_is_understood(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(GOOD)
    found = await inspect_model(tmp_path / "m")
    assert (found.kind, found.task) == ("llm", "chat")
    assert found.meta == {"format": "gguf", "family": "llama", "context": 2048}


@pytest.mark.parametrize(
    "content",
    [
        GOOD[:-3],
        GOOD[:20],
        b"GGUF",
        gguf([], count=2**60),
        gguf([("a", 8, struct.pack("<Q", 2**62))]),
        gguf([("a", 9, struct.pack("<IQ", 4, 2**61))]),
        gguf([("a", 99, b"")]),
        b"GGUF" + struct.pack("<IQQ", 9, 0, 0),
    ],
)
def test_damaged_gguf_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(ModelRefused):
        read_head(tmp_path / "m")


class Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
async def test_a_pickle_under_any_name_is_refused_and_runs_nothing(tmp_path: Path, protocol: int) -> None:
    canary = tmp_path / "canary"
    for name in ("m.onnx", "m.gguf", "m.safetensors", "m.json"):
        (tmp_path / name).write_bytes(pickle.dumps(Evil(canary), protocol))
        with pytest.raises(ModelRefused):
            await inspect_model(tmp_path / name)
    assert not canary.exists()


async def test_a_checkpoint_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.onnx", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Evil(tmp_path / "canary")))
    with pytest.raises(ModelRefused):
        await inspect_model(tmp_path / "m.onnx")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("kind", ["external", "custom", "empty", "random", "text", "cut"])
async def test_unsound_onnx_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.onnx"
    if kind == "external":
        tiny_onnx(path, external=True)
    elif kind == "custom":
        tiny_onnx(path, domain="com.evil")
    else:
        whole = tiny_onnx(path).read_bytes()
        path.write_bytes({"empty": b"", "random": os.urandom(2000), "text": b"hello world", "cut": whole[:-100]}[kind])
    with pytest.raises(ModelRefused) as caught:
        await inspect_model(path)
    assert caught.value.field == "file"
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([[1, 3549, 85]], ("detect", "yolox")),
        ([[1, 84, 8400]], ("detect", "yolov8")),
        ([[0, 1000]], ("classify", "softmax")),
        ([[1, 10], [1, 4]], ("custom", "")),
        ([[1]], ("custom", "")),
        ([], ("custom", "")),
    ],
)
def test_tasks_are_guessed_by_shape(shapes: list[list[int]], expected: tuple[str, str]) -> None:
    assert guess_task(shapes) == expected


async def test_an_import_becomes_a_signed_version(
    database: Database, make_catalog: MakeCatalog, tmp_path: Path
) -> None:
    catalog, who = make_catalog(database), person()
    path = tiny_onnx(tmp_path / "upload")
    added = await import_model(catalog, who, "mine", path, meta={"labels": ["a", "b", "c"], "input": {"crop": 1.0}})
    assert added.files["model"].suffix == ".onnx"
    assert added.meta["labels"] == ["a", "b", "c"]
    assert added.meta["input"]["crop"] == 1.0
    assert added.meta["input"]["size"] == [8, 8]
    assert (await catalog.find("mine", principal=who)).digest == added.digest
    assert path.exists()
    tight = make_catalog(database, import_limit=100)
    with pytest.raises(TooLarge):
        await import_model(tight, who, "mine", path)
