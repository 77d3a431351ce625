"""Vision over the real catalogue and the real file store."""

from __future__ import annotations

from pathlib import Path

import pytest

from nexus.access.types import Principal, Scope
from nexus.catalog.pool import ModelPool
from nexus.catalog.service import CatalogService
from nexus.catalog.settings import CatalogSettings
from nexus.catalog.types import State
from nexus.core.clock import SystemClock
from nexus.core.secrets import Keyring
from nexus.files.service import FileService
from nexus.ledger.service import Ledger
from nexus.storage.blobs.local import LocalBlobs
from nexus.storage.db import Database
from nexus.testing.images import page
from nexus.vision.decoder import DECODERS
from nexus.vision.network import NetworkSpec
from nexus.vision.service import VisionService
from nexus.vision.settings import VisionSettings
from nexus.vision.task import TASKS

WHO = Principal("key", "key_1", "prj_1", frozenset({Scope.VISION_INVOKE, Scope.FILES_READ, Scope.FILES_WRITE}))


@pytest.fixture
def catalog(shared: Path, database: Database, tmp_path: Path) -> CatalogService:
    sources = [str(shared / "data" / "vision" / "models")]
    settings = CatalogSettings(data_dir=tmp_path, model_sources=sources, offline=True)
    keyring = Keyring(b"k" * 32)
    return CatalogService(settings=settings, database=database, keyring=keyring, clock=SystemClock(), pool=ModelPool())


@pytest.mark.slow
async def test_the_first_pictures_of_a_fresh_installation(
    catalog: CatalogService, images: Path, ledger: Ledger, database: Database, tmp_path: Path
) -> None:
    files = FileService(database=database, blobs=LocalBlobs(tmp_path / "blobs"))
    vision = VisionService(
        settings=VisionSettings(), catalog=catalog, pool=catalog.pool, ledger=ledger, files=files, device="cpu"
    )
    photograph = (images / "detect_voc" / "2007_000762.jpg").read_bytes()
    found = await vision.run(WHO, "detect", photograph)
    assert (found.model, found.version) == ("yolox-nano", 1)
    assert found.results[0].label == "person"
    assert (await vision.run(WHO, "ocr", page(["Hello"]))).text == "Hello"
    kept = await files.add(WHO, photograph, "dinner.jpg", "image/jpeg", "vision")
    assert await vision.files.read(WHO, kept.id, limit=10**6) == photograph
    shown = {task["name"]: task["models"] for task in await vision.tasks(WHO)}
    (nano,) = [model for model in shown["detect"] if model["name"] == "yolox-nano"]
    assert (nano["version"], nano["state"], nano["licence"]) == (1, State.LOADED, "Apache-2.0")
    await vision.load(await catalog.find("yolox-nano"))
    assert {each.key: each.state for each in catalog.pool.states()}["yolox-nano@1/detect"] is State.LOADED
    await vision.stop()


def test_every_row_of_a_task_that_is_here_can_be_used(catalog: CatalogService) -> None:
    """A starter's row names a decoder, labels and an input that exist, without its files being here."""
    for row in catalog.catalogue.starters():
        if row.kind != "vision" or row.task not in TASKS or row.task == "ocr":
            continue
        spec = NetworkSpec.model_validate(row.meta)
        assert DECODERS.get(spec.decoder.name).task == row.task
    assert {row.name for row in catalog.catalogue.starters()} >= {"yolox-nano", "centernet", "efficientnet-lite0"}
