"""What is written here? Every piece of text, and the whole page in reading order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import Field

from nexus.catalog.types import ModelVersion
from nexus.vision.backend import Runtime
from nexus.vision.reader import TextReader
from nexus.vision.reading import lines
from nexus.vision.selection import pick
from nexus.vision.settings import VisionSettings
from nexus.vision.stopwatch import Stopwatch
from nexus.vision.task import Loaded, Parameters, VisionTask
from nexus.vision.types import Findings, Image


class OcrParameters(Parameters):
    """Pieces read with less confidence than `threshold` are left out."""

    threshold: float = Field(0.5, ge=0, le=1)


class Ocr(VisionTask[TextReader, OcrParameters]):
    """Reads text."""

    name = "ocr"
    title = "Read the text of a page, a receipt or a sign, line by line, with the place of each piece."
    parameters = OcrParameters

    def runtime(self, settings: VisionSettings, device: str) -> Runtime:
        """Give the long work of one page more threads than a short network gets."""
        return Runtime(device=device, threads=settings.ocr_threads)

    def load(self, version: ModelVersion, runtime: Runtime) -> TextReader:
        """Load the networks `det`, `rec` and `cls` of the version."""
        return TextReader(version.files, runtime)

    def run(self, loaded: Loaded[TextReader], image: Image, parameters: OcrParameters, watch: Stopwatch) -> Findings:
        """Return the pieces of text in reading order; `text` has one line for each line of the page."""
        with watch.stage("inference"):
            quads = loaded.model.find(image.pixels)
            page = loaded.model.read(image.pixels, quads)
        with watch.stage("postprocess"):
            boxes = np.concatenate([page.quads.min(axis=1), page.quads.max(axis=1)], axis=1)
            found = Findings(scores=page.scores, boxes=boxes, quads=page.quads, texts=page.texts)
            found = pick(found, np.flatnonzero(page.scores >= parameters.threshold))
            assert found.quads is not None
            order = lines(found.quads)
            text = "\n".join(" ".join(found.texts[row] for row in line) for line in order)
            rows = np.array([row for line in order for row in line], np.int64)
            return replace(pick(found, rows), text=text)


plug = Ocr()
