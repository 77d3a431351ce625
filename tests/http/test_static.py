from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from nexus.http.static import Dashboard

SCRIPT = "console.log('nexus');" * 200


@pytest.fixture
def built(tmp_path: Path) -> Path:
    folder = tmp_path / "ui"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><html><head><title>NEXUS</title></head><body></body></html>")
    (folder / "assets" / "app-1a2b.js").write_text(SCRIPT)
    (folder / "assets" / "pre-1a2b.css").write_text("a{}")
    (folder / "assets" / "pre-1a2b.css.br").write_bytes(b"brotli bytes")
    (folder / "assets" / "app-1a2b.js.map").write_text("{}")
    (folder / "favicon.svg").write_text("<svg/>")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    return folder


def get(folder: Path, path: str, *, root_path: str = "", method: str = "GET", **headers: str) -> Any:
    client = TestClient(Dashboard(folder), root_path=root_path)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.request(method, root_path + path, headers={"accept-encoding": "", **named})


@pytest.mark.parametrize("path", ["/", "/models/yolox-nano", "/index.html", "/a/b/c?d=e"])
def test_deep_links_lead_to_the_index(built: Path, path: str) -> None:
    answer = get(built, path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert '<head><base href="/">' in answer.text


def test_below_a_sub_path_links_stay_there(built: Path) -> None:
    assert '<base href="/nexus/">' in get(built, "/models", root_path="/nexus").text
    assert get(built, "/assets/app-1a2b.js", root_path="/nexus").text == SCRIPT
    assert "<script" not in get(built, "/x", root_path='/"><script>').text


def test_hashed_assets_are_for_ever_and_others_are_not(built: Path) -> None:
    asset = get(built, "/assets/app-1a2b.js")
    assert asset.text == SCRIPT
    assert asset.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "immutable" in asset.headers["cache-control"]
    assert get(built, "/favicon.svg").headers["cache-control"] == "no-cache"
    again = get(built, "/assets/app-1a2b.js", if_none_match=asset.headers["etag"])
    assert (again.status_code, again.content) == (304, b"")


def test_compressed_forms_are_used_where_taken(built: Path) -> None:
    zipped = get(built, "/assets/app-1a2b.js", accept_encoding="gzip, deflate")
    assert zipped.headers["content-encoding"] == "gzip"
    assert zipped.text == SCRIPT
    assert int(zipped.headers["content-length"]) == len(gzip.compress(SCRIPT.encode(), 6))
    small = get(built, "/assets/pre-1a2b.css", accept_encoding="gzip")
    assert "content-encoding" not in small.headers
    client = TestClient(Dashboard(built))
    with client.stream("GET", "/assets/pre-1a2b.css", headers={"accept-encoding": "br"}) as answer:
        assert b"".join(answer.iter_raw()) == b"brotli bytes"
        assert answer.headers["content-encoding"] == "br"


@pytest.mark.parametrize(
    "path",
    [
        "/assets/gone-9z.js",
        "/assets/",
        "/assets/app-1a2b.js.map",
        "/assets/../../secret.txt",
        "/assets/%2e%2e/%2e%2e/secret.txt",
        "/assets/..%5c..%5csecret.txt",
    ],
)
def test_missing_assets_are_404_and_never_html(built: Path, path: str) -> None:
    answer = get(built, path)
    assert "secret" not in answer.text
    if answer.status_code == 200:
        # The client itself resolved the dots; what is left is a deep link.
        assert "<base" in answer.text
    else:
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/link.txt", "/../secret.txt", "/%2e%2e/secret.txt", "//etc/passwd"])
def test_nothing_outside_the_listing_is_opened(built: Path, path: str) -> None:
    assert "<base" in get(built, path).text


def test_heads_have_no_body_and_other_methods_are_refused(built: Path) -> None:
    answer = get(built, "/", method="HEAD")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 50
    refused = get(built, "/", method="POST")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


def test_without_a_build_a_page_says_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    dashboard = Dashboard(folder)
    client = TestClient(dashboard)
    for path in ("/", "/models"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "./nexus ui" in answer.text
    assert client.get("/assets/x.js").status_code == 404
    folder.mkdir()
    (folder / "index.html").write_text("<head></head>one")
    assert client.get("/").text.endswith("one")
    (folder / "index.html").write_text("<head></head>two")
    os.utime(folder / "index.html", ns=(1, 1))
    assert client.get("/").text.endswith("two")
