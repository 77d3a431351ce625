"""Every row of the shipped catalogue is complete, clean and permissive."""

from __future__ import annotations

import pytest
from tests.catalog.conftest import row_of, spec_of

from nexus.catalog.catalogue import (
    BY_NAME_ONLY,
    Catalogue,
    CatalogueBroken,
    read_collections,
    read_rows,
    shipped_catalogue,
)
from nexus.catalog.conversion import CONVERSIONS, Conversion
from nexus.catalog.disk import check_model_name
from nexus.catalog.pull import SOURCES
from nexus.catalog.types import CatalogueRow, Kind

ROWS = shipped_catalogue().rows
PERMISSIVE = {"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC0-1.0"}
# Not open source, but free for commerce below a number of users; only rows that nobody gets unasked.
COMMUNITY = {f"LicenseRef-Llama-{version}-Community" for version in ("2", "3.1", "3.2")}
NEEDED = {
    "wheel": {"package", "version", "member"},
    "npm": {"package", "version", "member", "archive_sha256"},
    "url": {"url"},
    "hub": {"repo", "file"},
    "file": {"path"},
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_is_complete(row: CatalogueRow) -> None:
    assert check_model_name(row.name) == row.name
    assert row.kind in set(Kind)
    assert row.licence in PERMISSIVE or (row.licence in COMMUNITY and row.rank >= BY_NAME_ONLY and row.note)
    assert row.commercial_ok
    assert row.origin
    assert row.fetch
    assert row.files
    assert (row.conversion is not None) or set(row.files.values()) <= {spec.path for spec in row.fetch}
    assert row.conversion is None or isinstance(CONVERSIONS.get(row.conversion.uses), Conversion)
    for spec in row.fetch:
        assert "/" not in spec.path
        assert len(spec.sha256) == 64
        assert int(spec.sha256, 16)
        assert spec.bytes > 0
        assert spec.sources
        for options in spec.sources:
            assert options["kind"] in SOURCES
            assert NEEDED[options["kind"]] <= set(options)
            assert not str(options.get("url", "https://")).startswith("http://")


def test_the_starters_cover_the_tasks_that_work_at_once() -> None:
    starters = shipped_catalogue().starters()
    assert {"chat", "embed", "ocr", "classify", "detect"} <= {row.task for row in starters}
    assert [row.name for row in starters if row.task == "detect"] == ["yolox-nano", "centernet"]
    assert sum(row.download_bytes for row in starters) < 300_000_000


def test_defaults_are_in_order_and_leave_out_what_is_for_callers_by_name() -> None:
    shipped = shipped_catalogue()
    assert [row.name for row in shipped.defaults("detect")] == ["yolox-nano", "centernet", "nanodet-m"]
    assert [row.name for row in shipped.defaults("classify")] == ["efficientnet-lite0"]
    assert shipped.has_task("face-embed")
    assert not shipped.defaults("face-embed")


@pytest.mark.parametrize(
    "text",
    ["[[model]]\nname = 3", "[[model]", '[[model]]\nname = "x"\nversion = "one"', '[[model]]\nname = "x"\nversion = 1'],
)
def test_a_broken_row_is_named(text: str) -> None:
    with pytest.raises(CatalogueBroken):
        read_rows(text)


def test_one_version_stands_once() -> None:
    row = row_of(spec_of(b"x"))
    with pytest.raises(CatalogueBroken):
        Catalogue((row, row))


def test_a_collection_becomes_rows() -> None:
    (row,) = read_collections(
        """
[[collection]]
origin = "a/b@c"
url = "https://example.org/{path}"
kind = "vision"
models = [{ name = "m", task = "t", family = "f", licence = "MIT", path = "sub/m.onnx", sha256 = "00", bytes = 5 }]
"""
    )
    assert row.files == {"model": "m.onnx"}
    assert [dict(options) for options in row.fetch[0].sources] == [
        {"kind": "file", "path": "sub/m.onnx"},
        {"kind": "url", "url": "https://example.org/sub/m.onnx"},
    ]
