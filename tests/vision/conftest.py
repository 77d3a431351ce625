"""A tiny catalogue over the measured models, and a service over it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from nexus.access.types import Principal, Scope
from nexus.catalog.catalogue import shipped_catalogue
from nexus.catalog.errors import ModelNotFound
from nexus.catalog.pool import ModelPool
from nexus.catalog.types import ModelInfo, ModelVersion, State
from nexus.ledger.service import Ledger
from nexus.storage.caches.memory import MemoryCache
from nexus.storage.db import Database
from nexus.vision.service import VisionService
from nexus.vision.settings import VisionSettings

WHO = Principal("key", "key_1", "prj_1", frozenset({Scope.VISION_INVOKE, Scope.FILES_READ}), key_id="key_1")


def meta_of(name: str) -> dict[str, Any]:
    """What the shipped catalogue says of a model: the tests hold it to that."""
    return dict(shipped_catalogue().versions(name)[1].meta)


def version_of(name: str, task: str, files: dict[str, Path], meta: dict[str, Any]) -> ModelVersion:
    """Describe files as the catalogue would."""
    size = sum(path.stat().st_size for path in files.values())
    return ModelVersion(name, task, "vision", 1, State.READY, files, meta, "Apache-2.0", True, digest=name, size=size)


class SmallCatalogue:
    """Three models; the first of a task is its default."""

    def __init__(self, versions: list[ModelVersion]) -> None:
        self.versions = versions

    async def find(
        self, name: str, *, version: int | None = None, alias: str | None = None, principal: Principal | None = None
    ) -> ModelVersion:
        found = [v for v in self.versions if v.model == name and version in (None, v.version)]
        if not found:
            raise ModelNotFound
        return found[0]

    async def default_for(self, task: str) -> ModelVersion:
        found = [v for v in self.versions if v.task == task]
        if not found:
            raise ModelNotFound
        return found[0]

    async def list(self, principal: Principal, *, kind: str | None = None, task: str | None = None) -> list[ModelInfo]:
        return [
            ModelInfo(v.model, v.kind, v.task, "", v.licence, True, 1, (1,), v.state, "", False, v.size, 0)
            for v in self.versions
            if task in (None, v.task)
        ]


@pytest.fixture(scope="session")
def images(shared: Path) -> Path:
    return shared / "data" / "vision" / "images"


@pytest.fixture(scope="session")
def yolox(shared: Path) -> ModelVersion:
    path = shared / "data/vision/models/detection/yolox_nano.onnx"
    return version_of("yolox-nano", "detect", {"model": path}, meta_of("yolox-nano"))


@pytest.fixture(scope="session")
def lite0(shared: Path) -> ModelVersion:
    path = shared / "data/vision/models/classification/efficientnet_lite0.onnx"
    return version_of("efficientnet-lite0", "classify", {"model": path}, meta_of("efficientnet-lite0"))


@pytest.fixture(scope="session")
def centernet(models: Path) -> ModelVersion:
    path = models / "centernet" / "1" / "model.onnx"
    return version_of("centernet", "detect", {"model": path}, meta_of("centernet"))


@pytest.fixture(scope="session")
def ppocr() -> ModelVersion:
    spec = find_spec("rapidocr")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "models"
    names = {"det": "PP-OCRv6_det_small", "rec": "PP-OCRv6_rec_small", "cls": "ch_ppocr_mobile_v2.0_cls_mobile"}
    files = {role: folder / f"{name}.onnx" for role, name in names.items()}
    return version_of("ppocrv6-small", "ocr", files, {})


@pytest.fixture(scope="session")
def catalogue(yolox: ModelVersion, lite0: ModelVersion, ppocr: ModelVersion) -> SmallCatalogue:
    return SmallCatalogue([yolox, lite0, ppocr])


@pytest.fixture(scope="session")
def pool() -> Iterator[ModelPool]:
    """One pool for the whole session, so that each network is loaded once."""
    pool = ModelPool()
    yield pool
    pool.close()


@pytest.fixture
def ledger(database: Database, tmp_path: Path) -> Ledger:
    return Ledger(database=database, folder=tmp_path / "ledger")


@pytest.fixture
async def vision(catalogue: SmallCatalogue, pool: ModelPool, ledger: Ledger) -> AsyncIterator[VisionService]:
    service = VisionService(
        settings=VisionSettings(), catalog=catalogue, pool=pool, ledger=ledger, cache=MemoryCache(), device="cpu"
    )
    yield service
    await service.stop()
