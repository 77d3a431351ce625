from __future__ import annotations

import csv
from pathlib import Path

import pytest

from nexus.catalog.types import ModelVersion
from nexus.vision.backend import Runtime
from nexus.vision.images import decode
from nexus.vision.settings import VisionSettings
from nexus.vision.stopwatch import Stopwatch
from nexus.vision.task import Loaded
from nexus.vision.tasks.classify import ClassifyParameters, plug


@pytest.mark.slow
def test_labelled_photographs_are_named(images: Path, lite0: ModelVersion) -> None:
    """All 60; the published network has .86 on 200 of the same collection."""
    loaded = Loaded(plug.load(lite0, Runtime(device="cpu")), lite0)
    with (images / "classify" / "labels.csv").open() as file:
        wanted = {row["file"]: int(row["class_index"]) for row in csv.DictReader(file)}
    first = five = 0
    for name, index in wanted.items():
        image = decode((images / "classify" / name).read_bytes(), VisionSettings(), enough=plug.enough(lite0))
        found = plug.run(loaded, image, ClassifyParameters(), Stopwatch())
        assert found.class_ids is not None
        assert len(found) == 5
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
        first += found.class_ids[0] == index
        five += index in found.class_ids
    print(f"top-1 {first / len(wanted):.3f}, top-5 {five / len(wanted):.3f} of {len(wanted)}")
    assert first / len(wanted) >= 0.80
    assert five / len(wanted) >= 0.93


def test_names_and_numbers_belong_together(images: Path, lite0: ModelVersion) -> None:
    loaded = Loaded(plug.load(lite0, Runtime(device="cpu")), lite0)
    image = decode((images / "classify" / "n01518878_ostrich.JPEG").read_bytes(), VisionSettings())
    found = plug.run(loaded, image, ClassifyParameters(top_k=1), Stopwatch())
    assert found.class_ids is not None
    assert (found.labels, found.class_ids.tolist()) == (("ostrich",), [9])
    assert 0.5 < found.scores[0] <= 1
