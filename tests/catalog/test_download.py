"""Large files over HTTP, with servers that cut, change their mind, lie and refuse."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.catalog.conftest import FileServer

from nexus.catalog.download import download
from nexus.catalog.errors import ChecksumMismatch, SourceRefused, SourceUnreachable
from nexus.catalog.settings import CatalogSettings
from nexus.catalog.source import Work

CONTENT = os.urandom(3_000_000)


@pytest.fixture
def work(settings: CatalogSettings, tmp_path: Path) -> Work:
    reports: list[int] = []
    return Work(settings, tmp_path / "scratch", reports.append, lambda: None)


def ranges_of(server: FileServer) -> list[str | None]:
    return [headers.get("Range") for _, _, headers in server.seen]


def test_a_file_comes_whole(server: FileServer, work: Work, tmp_path: Path) -> None:
    server.files["/m"] = CONTENT
    download(server.url + "/m", tmp_path / "m", len(CONTENT), work)
    assert (tmp_path / "m").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_cut_connections_are_resumed_where_they_broke_off(server: FileServer, work: Work, tmp_path: Path) -> None:
    server.files["/m"], server.cut_after["/m"] = CONTENT, [1_000_000, 700_000]
    download(server.url + "/m", tmp_path / "m", len(CONTENT), work)
    assert (tmp_path / "m").read_bytes() == CONTENT
    asked = ranges_of(server)
    assert asked[0] is None
    assert len(asked) == 3
    starts = [int(str(asked_range)[6:-1]) for asked_range in asked[1:]]
    assert 0 < starts[0] < starts[1] <= 1_700_000


def test_a_later_process_goes_on_with_the_half(server: FileServer, work: Work, tmp_path: Path) -> None:
    server.files["/m"] = CONTENT
    (tmp_path / "m.part").write_bytes(CONTENT[:2_000_000])
    (tmp_path / "m.part.tag").write_text(server.etag("/m"))
    download(server.url + "/m", tmp_path / "m", len(CONTENT), work)
    assert (tmp_path / "m").read_bytes() == CONTENT
    assert ranges_of(server) == ["bytes=2000000-"]


def test_the_half_of_another_file_is_thrown_away(server: FileServer, work: Work, tmp_path: Path) -> None:
    server.files["/m"] = CONTENT
    (tmp_path / "m.part").write_bytes(b"x" * 2_000_000)
    (tmp_path / "m.part.tag").write_text('"of another file"')
    download(server.url + "/m", tmp_path / "m", len(CONTENT), work)
    assert (tmp_path / "m").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(server: FileServer, work: Work, tmp_path: Path) -> None:
    server.files["/m"], server.ranges, server.cut_after["/m"] = CONTENT, False, [1_000_000]
    download(server.url + "/m", tmp_path / "m", len(CONTENT), work)
    assert (tmp_path / "m").read_bytes() == CONTENT


def test_more_than_was_promised_is_refused_early(server: FileServer, work: Work, tmp_path: Path) -> None:
    server.files["/m"] = CONTENT
    with pytest.raises(ChecksumMismatch):
        download(server.url + "/m", tmp_path / "m", 100_000, work)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("status", "error", "attempts"),
    [(404, SourceRefused, 1), (403, SourceRefused, 1), (500, SourceUnreachable, 4), (429, SourceUnreachable, 4)],
)
def test_refusals_are_final_and_outages_are_retried(
    server: FileServer, work: Work, tmp_path: Path, status: int, error: type[Exception], attempts: int
) -> None:
    server.files["/m"], server.status["/m"] = CONTENT, status
    with pytest.raises(error) as caught:
        download(server.url + "/m", tmp_path / "m", len(CONTENT), work)
    assert len(server.seen) == attempts
    assert server.url not in str(caught.value)


def test_nobody_there(work: Work, tmp_path: Path) -> None:
    with pytest.raises(SourceUnreachable):
        download("http://127.0.0.1:9/m", tmp_path / "m", 10, work)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "/etc/passwd"])
def test_only_http_is_spoken(work: Work, tmp_path: Path, url: str) -> None:
    with pytest.raises(SourceUnreachable):
        download(url, tmp_path / "m", 10, work)


def test_a_redirect_to_a_file_is_refused(server: FileServer, work: Work, tmp_path: Path) -> None:
    server.redirects["/m"] = "file:///etc/passwd"
    with pytest.raises(SourceUnreachable):
        download(server.url + "/m", tmp_path / "m", 10, work)


def test_a_secret_stays_with_the_first_host(server: FileServer, work: Work, tmp_path: Path) -> None:
    server.files["/real"] = CONTENT
    server.redirects["/m"] = server.url.replace("127.0.0.1", "localhost") + "/real"
    download(server.url + "/m", tmp_path / "m", len(CONTENT), work, secret="s3cret")
    first, second = (headers for _, _, headers in server.seen)
    assert first["Authorization"] == "Bearer s3cret"
    assert "Authorization" not in second


def test_a_cancelled_download_stops_and_keeps_its_half(server: FileServer, work: Work, tmp_path: Path) -> None:
    server.files["/m"] = CONTENT

    class Stop(Exception):
        pass

    def check() -> None:
        if (tmp_path / "m.part").exists() and (tmp_path / "m.part").stat().st_size:
            raise Stop

    with pytest.raises(Stop):
        download(
            server.url + "/m", tmp_path / "m", len(CONTENT), Work(work.settings, work.scratch, lambda _: None, check)
        )
    assert 0 < (tmp_path / "m.part").stat().st_size < len(CONTENT)
