"""A file server that cuts connections on request, tiny models, and a catalogue service on a real database."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nexus.access.types import Principal, Scope
from nexus.catalog.catalogue import Catalogue
from nexus.catalog.pool import ModelPool
from nexus.catalog.service import CatalogService
from nexus.catalog.settings import CatalogSettings
from nexus.catalog.types import CatalogueRow, FileSpec
from nexus.core.clock import SystemClock
from nexus.core.secrets import Keyring
from nexus.storage.db import Database


@dataclass
class FileServer:
    """Serves bytes by path; knows Range, If-Range, ETag, and how to misbehave."""

    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    cut_after: dict[str, list[int]] = field(default_factory=dict)
    """Bytes after which the next answers for a path break off, one entry for each answer."""
    ranges: bool = True
    slowly: float = 0.0
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def etag(self, path: str) -> str:
        return f'"{hashlib.sha256(self.files[path]).hexdigest()[:16]}"'


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    shelf: FileServer

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        shelf, path = self.shelf, self.path
        shelf.seen.append((self.command, path, dict(self.headers)))
        if path in shelf.redirects:
            self.send_response(302)
            self.send_header("Location", shelf.redirects[path])
            self.finish_head(path, 0)
            return
        if shelf.status.get(path) or path not in shelf.files:
            self.send_response(shelf.status.get(path, 404))
            self.finish_head(path, 0)
            return
        content, begin = shelf.files[path], 0
        wanted = self.headers.get("Range", "")
        fresh = self.headers.get("If-Range") in (None, shelf.etag(path))
        if shelf.ranges and wanted.startswith("bytes=") and fresh:
            begin = int(wanted[6:].rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("ETag", shelf.etag(path))
        self.finish_head(path, len(content) - begin)
        if body:
            self.pour(path, content[begin:])

    def finish_head(self, path: str, length: int) -> None:
        self.send_header("Content-Length", str(length))
        for name, value in self.shelf.headers.get(path, {}).items():
            self.send_header(name, value)
        self.end_headers()

    def pour(self, path: str, content: bytes) -> None:
        cuts = self.shelf.cut_after.get(path)
        until = cuts.pop(0) if cuts else len(content)
        for start in range(0, until, 64 * 1024):
            if self.shelf.slowly:
                threading.Event().wait(self.shelf.slowly)
            self.wfile.write(content[start : min(start + 64 * 1024, until)])
        if until < len(content):
            self.close_connection = True

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[FileServer]:
    shelf = FileServer()
    handler = type("Handler", (_Handler,), {"shelf": shelf})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that go away are the point
        shelf.url = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield shelf
        running.shutdown()
        thread.join()


@pytest.fixture
def settings(tmp_path: Path) -> CatalogSettings:
    return CatalogSettings(data_dir=tmp_path / "data", connect_timeout=5)


def spec_of(content: bytes, path: str = "model.bin", *sources: dict[str, Any]) -> FileSpec:
    return FileSpec(path, hashlib.sha256(content).hexdigest(), len(content), sources)


def row_of(*specs: FileSpec, name: str = "tiny", **changes: Any) -> CatalogueRow:
    """A row of the catalogue whose first file is the model."""
    values: dict[str, Any] = {
        "name": name,
        "version": 1,
        "kind": "vision",
        "task": "classify",
        "family": "test",
        "licence": "Apache-2.0",
        "commercial_ok": True,
        "fetch": specs,
        "files": {"model": specs[0].path},
    }
    return CatalogueRow(**(values | changes))


def person(project: str = "prj_a", *scopes: Scope) -> Principal:
    rights = scopes or (Scope.MODELS_READ, Scope.MODELS_MANAGE)
    return Principal(kind="key", id=f"key_of_{project}", project_id=project, scopes=frozenset(rights))


MakeCatalog = Callable[..., CatalogService]


@pytest.fixture
def make_catalog(settings: CatalogSettings) -> Iterator[MakeCatalog]:
    """`make_catalog(database, row, row, setting=value)`: a service over these rows."""
    pools: list[ModelPool] = []

    def make(database: Database, *rows: CatalogueRow, **changes: Any) -> CatalogService:
        pools.append(ModelPool(budget=1 << 30, minimum_idle=0))
        return CatalogService(
            settings=settings.model_copy(update=changes),
            database=database,
            keyring=Keyring(b"k" * 48),
            clock=SystemClock(),
            pool=pools[-1],
            catalogue=Catalogue(rows),
        )

    yield make
    for pool in pools:
        pool.close()


def tiny_onnx(path: Path, *, domain: str = "", external: bool = False) -> Path:
    """A classifier of 8x8 pictures into three classes."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((192, 3), np.float32), "w")
    if external:
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        entry = weights.external_data.add()
        entry.key, entry.value = "location", "../../etc/passwd"
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["f"], axis=1),
            helper.make_node("MatMul" if not domain else "Evil", ["f", "w"], ["y"], domain=domain),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [weights],
    )
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    assert onnx.__version__
    return path
