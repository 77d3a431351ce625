"""The text reader: PP-OCR networks (detection, direction, recognition) with RapidOCR's code around them.

The networks run in our own sessions, so that threads, spinning and memory are set as for every other
network. The page is brought to a size of our choosing first: the library's own scaling lets a thin
strip of 40 x 2000 pixels grow to 27 million.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nexus.vision.backend import Runtime
from nexus.vision.backends.onnx import open_session
from nexus.vision.errors import ModelNotRunnable
from nexus.vision.opencv import opencv
from nexus.vision.types import Floats, Pixels

_SHORT_SIDE = 736
_LONG_SIDE = 1984
_BUCKET = 64
_MOST_PIECES = 1000
_ROLES = {"det": "Det", "cls": "Cls", "rec": "Rec"}


@dataclass(frozen=True, slots=True)
class Page:
    """What was read, in no order: `quads` (n, 4, 2) clockwise from the upper left, `texts`, `scores` 0..1."""

    quads: Floats
    texts: tuple[str, ...]
    scores: Floats


_EMPTY = Page(np.zeros((0, 4, 2), np.float32), (), np.zeros(0, np.float32))


class TextReader:
    """Three loaded networks that read a page. Safe to use from many threads at once."""

    def __init__(self, files: Mapping[str, Path], runtime: Runtime) -> None:
        """Load `det` and `rec`, and `cls` (upside-down text) where it is given.

        Raises `ModelNotRunnable`, `ModelBroken`, `DeviceUnavailable`.
        """
        import logging

        if "det" not in files or "rec" not in files:
            raise ModelNotRunnable("A text reader needs the files `det` and `rec`.", field="model")
        from rapidocr.ch_ppocr_cls import TextClassifier
        from rapidocr.ch_ppocr_det import TextDetector
        from rapidocr.ch_ppocr_rec import TextRecognizer

        # The library's logger writes paths to the console, and sets its own level when it is imported.
        logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)
        sections = _sections(files, runtime)
        self.device = "cuda" if sections["Det"].session.get_providers()[0].startswith("CUDA") else "cpu"
        self._detect: Any = TextDetector(sections["Det"])
        self._turn: Any = TextClassifier(sections["Cls"]) if "Cls" in sections else None
        self._recognise: Any = TextRecognizer(sections["Rec"])

    def find(self, pixels: Pixels) -> Floats:
        """Return the quads (n, 4, 2) of pieces of text in an RGB page, in its own pixels."""
        sheet, scale = fit_page(pixels)
        found = self._detect(np.ascontiguousarray(sheet[..., ::-1]))
        if found.boxes is None or not len(found.boxes):
            return _EMPTY.quads
        quads = np.asarray(found.boxes[:_MOST_PIECES], np.float32) / np.float32(scale)
        limit = np.array([pixels.shape[1], pixels.shape[0]], np.float32)
        quads = np.clip(quads, 0, limit).astype(np.float32)
        # What lay wholly in the border has no area left.
        sides = quads.max(axis=1) - quads.min(axis=1)
        kept: Floats = quads[(sides >= 2).all(axis=1)]
        return kept

    def read(self, pixels: Pixels, quads: Floats) -> Page:
        """Return what stands in each quad; quads that turn out to hold nothing are left out."""
        from rapidocr.ch_ppocr_rec import TextRecInput
        from rapidocr.utils.process_img import get_rotate_crop_image

        if not len(quads):
            return _EMPTY
        page = np.ascontiguousarray(pixels[..., ::-1])
        strips = [_strip(get_rotate_crop_image(page, quad.copy())) for quad in quads]
        if self._turn is not None:
            strips = self._turn(strips).img_list
        read = self._recognise(TextRecInput(img=strips))
        rows = [row for row, text in enumerate(read.txts) if text.strip()]
        scores = np.array([read.scores[row] for row in rows], np.float32)
        return Page(quads[rows], tuple(read.txts[row].strip() for row in rows), scores)

    def close(self) -> None:
        """Let go of the memory."""
        self._detect = self._turn = self._recognise = None


def fit_page(pixels: Pixels) -> tuple[Pixels, float]:
    """Return the page scaled for detection and padded to a multiple of 64, and the scale.

    Small pages grow until their short side has 736 pixels, but never beyond 1984 on the long side;
    few different sizes keep the memory of the network's buffers bounded (RapidAI/RapidOCR#187).
    """
    height, width = pixels.shape[:2]
    scale = min(max(_SHORT_SIDE / min(height, width), 1.0), _LONG_SIDE / max(height, width))
    columns, rows = max(round(width * scale), 1), max(round(height * scale), 1)
    cv2 = opencv()
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = pixels if scale == 1 else cv2.resize(pixels, (columns, rows), interpolation=how)
    right, below = -columns % _BUCKET, -rows % _BUCKET
    sheet = cv2.copyMakeBorder(scaled, 0, below, 0, right, cv2.BORDER_REPLICATE)
    return np.asarray(sheet, np.uint8), scale


def _strip(strip: Pixels) -> Pixels:
    """Bound a cut-out piece: no wider than 40 times its height, which is more than 60 characters a strip can hold."""
    height, width = strip.shape[:2]
    if width <= 40 * height:
        return strip
    return np.asarray(opencv().resize(strip, (40 * height, height)), np.uint8)


def _sections(files: Mapping[str, Path], runtime: Runtime) -> dict[str, Any]:
    """Return RapidOCR's own default configuration for each network, with our session in it."""
    from omegaconf import OmegaConf
    from rapidocr.main import DEFAULT_CFG_PATH
    from rapidocr.utils.parse_parameters import ParseParams

    config = ParseParams.load(DEFAULT_CFG_PATH)
    OmegaConf.update(config, "Det.limit_type", "max")
    OmegaConf.update(config, "Det.limit_side_len", _LONG_SIDE + _BUCKET)
    OmegaConf.update(config, "Rec.font_path", None, force_add=True)
    sections = {}
    for role, section in _ROLES.items():
        if role in files:
            part = config[section]
            part._set_flag("allow_objects", True)  # noqa: SLF001  OmegaConf's documented way to hold an object
            part.session = open_session(files[role], runtime)
            sections[section] = part
    return sections
