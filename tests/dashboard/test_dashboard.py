"""The dashboard's own checks: types, unit tests, and that its types still fit the API."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "dashboard"

pytestmark = pytest.mark.slow


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


hatch_build = _module(ROOT / "hatch_build.py")
schema = _module(DASHBOARD / "schema.py")


@pytest.fixture(scope="module")
def node() -> hatch_build.Node:
    """A Node.js with the dashboard's packages beside it."""
    try:
        found = hatch_build.find_node(ROOT)
        with hatch_build.alone(ROOT):
            hatch_build.install_modules(found, DASHBOARD)
    except hatch_build.DashboardBuildError as error:
        pytest.skip(f"no Node.js or npm packages here: {error}")
    return found


def test_types_hold(node: hatch_build.Node) -> None:
    node.run("node_modules/typescript/bin/tsc", "--noEmit", folder=DASHBOARD)


def test_unit_tests_pass(node: hatch_build.Node) -> None:
    node.run("node_modules/vitest/vitest.mjs", "run", folder=DASHBOARD)


def test_types_are_those_of_the_api(node: hatch_build.Node, tmp_path: Path) -> None:
    from nexus.app import openapi

    document = schema.trimmed(openapi(), schema.called(DASHBOARD / "src"))
    schema.write(document, tmp_path / "schema.d.ts")
    assert (tmp_path / "schema.d.ts").read_text() == schema.TARGET.read_text(), "run dashboard/schema.py"


def test_only_called_routes_are_kept() -> None:
    calls = schema.called(DASHBOARD / "src")
    assert ("post", "/api/v1/runs/{run_id}/cancel") in calls
    document = {
        "openapi": "3.1.0",
        "info": {},
        "paths": {path: {method: {"$ref": "#/components/schemas/A"}} for method, path in calls} | {"/other": {}},
        "components": {"schemas": {"A": {"$ref": "#/components/schemas/B"}, "B": {}, "C": {}}},
    }
    kept = schema.trimmed(document, calls)
    assert "/other" not in kept["paths"]
    assert set(kept["components"]["schemas"]) == {"A", "B"}


@pytest.mark.parametrize(
    ("version", "suits"),
    [
        ("v20.18.3", False),
        ("v20.19.0", True),
        ("v20.20.2", True),
        ("v21.7.0", False),
        ("v22.11.0", False),
        ("v22.12.0", True),
        ("v24.19.0", True),
        ("26.0.1", True),
        ("nonsense", False),
        ("", False),
    ],
)
def test_node_versions(version: str, suits: bool) -> None:
    assert hatch_build.suits_vite(version) is suits


def test_stamp_follows_sources_and_not_tests(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.ts").write_text("1")
    before = hatch_build.digest(tmp_path)
    (tmp_path / "src" / "a.test.ts").write_text("test")
    assert hatch_build.digest(tmp_path) == before
    (tmp_path / "src" / "a.ts").write_text("2")
    assert hatch_build.digest(tmp_path) != before


def test_skip_leaves_everything_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dashboard").mkdir()
    (tmp_path / "dashboard" / "package-lock.json").write_text("{}")
    monkeypatch.setenv("NEXUS_SKIP_UI", "1")
    assert hatch_build.build(tmp_path) is False
    assert list(tmp_path.iterdir()) == [tmp_path / "dashboard"]


def test_lock_file_is_pinned_and_names_no_registry() -> None:
    lock = json.loads((DASHBOARD / "package-lock.json").read_text())
    packages = {name: each for name, each in lock["packages"].items() if name}
    assert all("resolved" not in each for each in packages.values())
    assert all(each.get("integrity", "").startswith("sha512-") for each in packages.values())
    wanted = json.loads((DASHBOARD / "package.json").read_text())
    versions = wanted["dependencies"] | wanted["devDependencies"]
    assert [name for name, version in versions.items() if not re.fullmatch(r"\d+\.\d+\.\d+", version)] == []
    mantine = {version for name, version in versions.items() if name.startswith("@mantine/")}
    assert len(mantine) == 1
