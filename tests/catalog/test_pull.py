"""A pull ends with a whole model or with none, whatever happens on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.catalog.conftest import FileServer, row_of, spec_of
from tests.clock import until

from nexus.catalog.disk import Manifest, ModelFolders
from nexus.catalog.errors import (
    ChecksumMismatch,
    ConversionFailed,
    LicenceRefused,
    ModelDamaged,
    Offline,
    PullCancelled,
    SourceUnreachable,
)
from nexus.catalog.pull import Puller, Watch
from nexus.catalog.settings import CatalogSettings
from nexus.catalog.types import ConversionSpec
from nexus.core.clock import SystemClock

CONTENT = os.urandom(2_000_000)
OTHER = os.urandom(50_000)


def puller(settings: CatalogSettings, **changes: object) -> Puller:
    changed = settings.model_copy(update=changes)
    return Puller(settings=changed, folders=ModelFolders(changed.models_dir), clock=SystemClock())


def url(server: FileServer, path: str) -> dict[str, str]:
    return {"kind": "url", "url": server.url + path}


def everything(settings: CatalogSettings) -> list[str]:
    root = settings.models_dir
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_a_pull_brings_all_files_and_says_what_they_are(server: FileServer, settings: CatalogSettings) -> None:
    server.files |= {"/a": CONTENT, "/b": OTHER}
    row = row_of(spec_of(CONTENT, "model.bin", url(server, "/a")), spec_of(OTHER, "labels.txt", url(server, "/b")))
    reports: list[tuple[int, int]] = []
    manifest = puller(settings).pull(row, Watch(lambda done, total: reports.append((done, total))))
    folder = settings.models_dir / "tiny" / "1"
    assert everything(settings) == ["tiny/1/labels.txt", "tiny/1/manifest.json", "tiny/1/model.bin"]
    assert (folder / "model.bin").read_bytes() == CONTENT
    assert Manifest.from_json((folder / "manifest.json").read_bytes()) == manifest
    assert manifest.digest == row.fetch[0].sha256
    assert reports[-1] == (row.download_bytes, row.download_bytes)
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)


def test_a_second_pull_asks_nobody(server: FileServer, settings: CatalogSettings) -> None:
    server.files["/a"] = CONTENT
    row = row_of(spec_of(CONTENT, "model.bin", url(server, "/a")))
    first = puller(settings).pull(row)
    asked = len(server.seen)
    assert puller(settings, offline=True).pull(row) == first
    assert len(server.seen) == asked


def test_the_next_source_is_tried_when_one_fails_or_lies(server: FileServer, settings: CatalogSettings) -> None:
    server.files |= {"/wrong": b"\0" * len(CONTENT), "/right": CONTENT}
    sources = [url(server, "/missing"), url(server, "/wrong"), url(server, "/right")]
    puller(settings).pull(row_of(spec_of(CONTENT, "model.bin", *sources)))
    assert (settings.models_dir / "tiny/1/model.bin").read_bytes() == CONTENT


def test_a_wrong_file_is_never_kept(server: FileServer, settings: CatalogSettings) -> None:
    server.files["/a"] = b"\0" * len(CONTENT)
    with pytest.raises(ChecksumMismatch):
        puller(settings).pull(row_of(spec_of(CONTENT, "model.bin", url(server, "/a"))))
    assert everything(settings) == []


@pytest.mark.parametrize(
    ("changes", "row_changes", "error"),
    [
        ({"offline": True}, {}, Offline),
        ({}, {}, SourceUnreachable),
        ({}, {"commercial_ok": False, "licence": "CC-BY-NC-4.0"}, LicenceRefused),
    ],
)
def test_what_cannot_be_had_is_told(
    settings: CatalogSettings, changes: dict[str, object], row_changes: dict[str, object], error: type[Exception]
) -> None:
    row = row_of(spec_of(CONTENT, "model.bin", {"kind": "url", "url": "http://127.0.0.1:9/a"}), **row_changes)
    with pytest.raises(error):
        puller(settings, **changes).pull(row)
    assert everything(settings) == []


def test_folders_come_before_the_network_and_serve_offline(settings: CatalogSettings, tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "whatever").write_bytes(CONTENT)
    row = row_of(spec_of(CONTENT, "model.bin", {"kind": "url", "url": "http://127.0.0.1:9/a"}))
    mine = puller(settings, offline=True, model_sources=[str(tmp_path / "mirror")])
    assert mine.is_local(row)
    assert not puller(settings).is_local(row)
    assert mine.pull(row).size == len(CONTENT)


def test_a_cancelled_pull_stops_and_the_next_one_goes_on(server: FileServer, settings: CatalogSettings) -> None:
    server.files["/a"], server.slowly = CONTENT, 0.005
    row = row_of(spec_of(CONTENT, "model.bin", url(server, "/a")))
    had: list[int] = []

    def check() -> None:
        if had:
            raise PullCancelled

    with pytest.raises(PullCancelled):
        puller(settings).pull(row, Watch(lambda done, total: had.append(done) if done else None, check))
    puller(settings).pull(row)
    assert server.seen[-1][2]["Range"].startswith("bytes=")


def test_two_pulls_at_once_are_one_download(server: FileServer, settings: CatalogSettings) -> None:
    server.files["/a"], server.slowly = CONTENT, 0.01
    row = row_of(spec_of(CONTENT, "model.bin", url(server, "/a")))
    results: list[Manifest] = []
    threads = [threading.Thread(target=lambda: results.append(puller(settings).pull(row))) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: ModelFolders(settings.models_dir).is_pulling("tiny", 1))
    for thread in threads:
        thread.join(60)
    assert len(results) == 4
    assert all(result == results[0] for result in results)
    assert len(server.seen) == 1
    assert not ModelFolders(settings.models_dir).is_pulling("tiny", 1)


_PULL = """
import json, sys
from pathlib import Path
from nexus.catalog.catalogue import read_rows
from nexus.catalog.disk import ModelFolders
from nexus.catalog.pull import Puller, Watch
from nexus.catalog.settings import CatalogSettings
from nexus.core.clock import SystemClock
settings = CatalogSettings(data_dir=Path(sys.argv[1]))
def progress(done, total):
    print(done, flush=True)
puller = Puller(settings=settings, folders=ModelFolders(settings.models_dir), clock=SystemClock())
puller.pull(read_rows(sys.argv[2])[0], Watch(progress))
"""


@pytest.mark.slow
def test_kill_in_the_middle_leaves_nothing_half_and_the_next_pull_goes_on(
    server: FileServer, settings: CatalogSettings
) -> None:
    server.files["/a"], server.slowly = CONTENT, 0.02
    spec = spec_of(CONTENT, "model.bin", url(server, "/a"))
    toml = f"""
[[model]]
name = "tiny"
version = 1
kind = "vision"
task = "classify"
family = "test"
licence = "MIT"
commercial_ok = true
files = {{ model = "model.bin" }}
[[model.fetch]]
path = "model.bin"
sha256 = "{spec.sha256}"
bytes = {spec.bytes}
sources = [{{ kind = "url", url = "{server.url}/a" }}]
"""
    child = subprocess.Popen(
        [sys.executable, "-c", _PULL, str(settings.data_dir), toml], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert int(child.stdout.readline()) > 0
    child.send_signal(signal.SIGKILL)
    child.wait(60)
    child.stdout.close()
    folders = ModelFolders(settings.models_dir)
    assert folders.read("tiny", 1) is None
    assert not (settings.models_dir / "tiny").exists()
    assert not folders.is_pulling("tiny", 1)
    server.slowly = 0.0
    manifest = puller(settings).pull(row_of(spec))
    folders.verify(folders.folder("tiny", 1), manifest.files)
    assert server.seen[-1][2]["Range"].startswith("bytes=")
    assert everything(settings) == ["tiny/1/manifest.json", "tiny/1/model.bin"]


def test_a_folder_without_a_manifest_is_replaced(server: FileServer, settings: CatalogSettings) -> None:
    server.files["/a"] = CONTENT
    half = settings.models_dir / "tiny" / "1"
    half.mkdir(parents=True)
    (half / "junk").write_text("half")
    puller(settings).pull(row_of(spec_of(CONTENT, "model.bin", url(server, "/a"))))
    assert sorted(path.name for path in half.iterdir()) == ["manifest.json", "model.bin"]


def test_a_changed_file_is_noticed(server: FileServer, settings: CatalogSettings) -> None:
    server.files["/a"] = CONTENT
    manifest = puller(settings).pull(row_of(spec_of(CONTENT, "model.bin", url(server, "/a"))))
    folders = ModelFolders(settings.models_dir)
    path = folders.folder("tiny", 1) / "model.bin"
    folders.verify(path.parent, manifest.files)
    raw = bytearray(CONTENT)
    raw[1000] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ModelDamaged):
        folders.verify(path.parent, manifest.files)
    (path.parent / "manifest.json").write_text(json.dumps({"files": 3}))
    with pytest.raises(ModelDamaged):
        folders.read("tiny", 1)


def test_a_conversion_that_fails_leaves_nothing(server: FileServer, settings: CatalogSettings) -> None:
    server.files["/a"] = OTHER
    spec = spec_of(OTHER, "efficientnet-lite0.pth", url(server, "/a"))
    row = row_of(spec, conversion=ConversionSpec("efficientnet_to_onnx"), files={"model": "model.onnx"})
    with pytest.raises(ConversionFailed):
        puller(settings).pull(row)
    assert ModelFolders(settings.models_dir).read("tiny", 1) is None
    assert not (settings.models_dir / "tiny").exists()
