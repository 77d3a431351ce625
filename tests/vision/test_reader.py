from __future__ import annotations

import gc
from typing import Any

import numpy as np
import psutil
import pytest

from nexus.catalog.types import ModelVersion
from nexus.testing.images import gradient, page
from nexus.vision.backend import Runtime
from nexus.vision.errors import ModelNotRunnable
from nexus.vision.images import decode
from nexus.vision.memory import give_back
from nexus.vision.opencv import opencv
from nexus.vision.reader import TextReader, fit_page
from nexus.vision.settings import VisionSettings


@pytest.mark.parametrize(
    ("size", "sheet", "scale"),
    [
        ((1000, 800), (1024, 832), 1.0),
        ((500, 368), (1024, 768), 2.0),
        ((3968, 1984), (1984, 1024), 0.5),
        ((40, 2000), (64, 1984), 0.992),
        ((1, 1), (768, 768), 736.0),
        ((100, 20), (1984, 448), 19.84),
    ],
)
def test_a_page_is_brought_to_one_of_few_sizes(size: tuple[int, int], sheet: tuple[int, int], scale: float) -> None:
    fitted, factor = fit_page(gradient(*size))
    assert (fitted.shape[1], fitted.shape[0]) == sheet
    assert factor == pytest.approx(scale, rel=1e-3)
    assert fitted.shape[0] * fitted.shape[1] <= 1984 * 1984


@pytest.mark.parametrize("missing", ["det", "rec"])
def test_a_reader_needs_its_networks(ppocr: ModelVersion, missing: str) -> None:
    files = {role: path for role, path in ppocr.files.items() if role != missing}
    with pytest.raises(ModelNotRunnable):
        TextReader(files, Runtime(device="cpu"))


@pytest.mark.slow
def test_a_reader_without_the_direction_network_reads_upright_text(ppocr: ModelVersion) -> None:
    files = {role: path for role, path in ppocr.files.items() if role != "cls"}
    reader = TextReader(files, Runtime(device="cpu", threads=2))
    pixels = decode(page(["Plain text"]), VisionSettings()).pixels
    assert reader.read(pixels, reader.find(pixels)).texts == ("Plain text",)


@pytest.mark.slow
def test_pages_of_many_sizes_do_not_pile_up_memory(ppocr: ModelVersion) -> None:
    """RapidAI/RapidOCR#187: memory grew with every new shape. Loaded: 160 MB above nothing; without trimming 640."""
    reader = TextReader(ppocr.files, Runtime(device="cpu", threads=2))
    pixels = decode(page(["One line of text", "and another one"]), VisionSettings()).pixels
    process, sizes = psutil.Process(), []
    for scale in (1.0, 0.7, 1.3, 0.9, 1.6, 1.1):
        shape: Any = opencv().resize(pixels, None, fx=scale, fy=1 / scale)
        reader.read(np.asarray(shape), reader.find(shape))
        give_back()
        sizes.append(process.memory_info().rss / 2**20)
    print("MB after each page:", [round(size) for size in sizes])
    assert sizes[-1] - sizes[0] < 60
    before = process.memory_info().rss
    reader.close()
    del reader
    gc.collect()
    give_back()
    assert process.memory_info().rss < before
