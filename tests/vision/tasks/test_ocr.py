from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nexus.catalog.types import ModelVersion
from nexus.testing.images import gradient, page
from nexus.vision.backend import Runtime
from nexus.vision.images import decode
from nexus.vision.settings import VisionSettings
from nexus.vision.stopwatch import Stopwatch
from nexus.vision.task import Loaded
from nexus.vision.tasks.ocr import OcrParameters, plug
from nexus.vision.types import Findings, Image


@pytest.fixture(scope="module")
def loaded(ppocr: ModelVersion) -> Loaded[Any]:
    return Loaded(plug.load(ppocr, Runtime(device="cpu", threads=2)), ppocr)


def read(loaded: Loaded[Any], data: bytes, **parameters: Any) -> Findings:
    return plug.run(loaded, decode(data, VisionSettings()), OcrParameters(**parameters), Stopwatch())


def words_of(path: Path) -> list[str]:
    """The words of a receipt: eight corners and the text of each line, comma-separated."""
    rows = path.read_text("utf-8").splitlines()
    return " ".join(row.split(",", 8)[8] for row in rows if row).upper().split()


def word_scores(images: Path, loaded: Loaded[Any], every: int) -> tuple[float, float]:
    right = wanted = given = 0
    for path in sorted((images / "ocr").glob("00*.jpg"))[::every]:
        words, got = words_of(path.with_suffix(".csv")), (read(loaded, path.read_bytes()).text or "").upper().split()
        right += sum((Counter(words) & Counter(got)).values())
        wanted, given = wanted + len(words), given + len(got)
    print(f"recall {right / wanted:.3f}, precision {right / given:.3f} of {wanted} words")
    return right / wanted, right / given


@pytest.mark.slow
def test_receipts_are_read(images: Path, loaded: Loaded[Any]) -> None:
    recall, precision = word_scores(images, loaded, every=2)
    assert recall >= 0.88
    assert precision >= 0.86


@pytest.mark.long
def test_every_receipt_is_read(images: Path, loaded: Loaded[Any]) -> None:
    """Word recall of the library itself on the same three, measured: .874."""
    recall, precision = word_scores(images, loaded, every=1)
    assert recall >= 0.85
    assert precision >= 0.88


@pytest.mark.slow
def test_a_printed_page_is_read_in_order(loaded: Loaded[Any]) -> None:
    lines = ["NEXUS reads this page", "Invoice No. 4711", "Total 128.50 EUR"]
    found = read(loaded, page(lines))
    assert (found.text or "").split("\n") == lines
    assert found.quads is not None
    assert found.boxes is not None
    tops = found.quads[:, 0, 1]
    assert tops.tolist() == sorted(tops.tolist())
    assert (found.boxes[:, 2] > found.boxes[:, 0]).all()
    assert len(found.texts) == len(found.scores) == len(found.quads)
    assert (found.scores > 0.8).all()


@pytest.mark.slow
def test_upside_down_lines_are_turned(loaded: Loaded[Any]) -> None:
    image = decode(page(["Turn me around"]), VisionSettings())
    turned = Image(np.ascontiguousarray(image.pixels[::-1, ::-1]), image.width, image.height)
    assert plug.run(loaded, turned, OcrParameters(), Stopwatch()).text == "Turn me around"


@pytest.mark.slow
def test_words_cut_out_of_photographs_are_read(images: Path, loaded: Loaded[Any]) -> None:
    wanted = {"demo_1.png": "available", "demo_5.png": "toast"}
    got = {name: (read(loaded, (images / "ocr" / name).read_bytes()).text or "").lower() for name in wanted}
    assert got == wanted


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (3000, 4), (4, 3000), (300, 200)])
def test_any_shape_of_picture_can_be_read(loaded: Loaded[Any], size: tuple[int, int]) -> None:
    pixels = np.full_like(gradient(*size), 200)
    found = plug.run(loaded, Image(pixels, *size), OcrParameters(), Stopwatch())
    assert (len(found), found.text) == (0, "")


@pytest.mark.slow
def test_weak_readings_are_left_out(images: Path, loaded: Loaded[Any]) -> None:
    receipt = decode((images / "ocr" / "000.jpg").read_bytes(), VisionSettings())
    part = Image(np.ascontiguousarray(receipt.pixels[40:240]), receipt.width, 200)
    everything, sure = (plug.run(loaded, part, OcrParameters(threshold=t), Stopwatch()) for t in (0.0, 0.97))
    assert 0 < len(sure) < len(everything)
    assert (sure.scores >= 0.97).all()
