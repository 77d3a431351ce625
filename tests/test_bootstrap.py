"""What `./nexus` hands on to the program that it becomes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
XDIST = ["-n", "3", "--dist", "loadfile", "--no-loadscope-reorder"]


@pytest.fixture(scope="module")
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "scripts" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ([], ["-m", "not long", *XDIST]),
        (["--quick"], ["-m", "not slow and not long and not browser", *XDIST]),
        (["--long", "-n", "0"], ["-m", "long", "-n", "0"]),
        (["-m", "browser", "tests/browser"], [*XDIST, "-m", "browser", "tests/browser"]),
    ],
)
def test_the_selections_are_pytest_s_own(
    bootstrap: ModuleType, given: list[str], chosen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "cores", lambda: 2)
    got = bootstrap.pytest_arguments(given)
    assert [word for word in got if not word.startswith("-p")] == chosen


@pytest.mark.parametrize(("cores", "processes"), [(1, "2"), (2, "3"), (3, "4"), (64, "4")])
def test_there_is_one_process_more_than_cores(
    bootstrap: ModuleType, cores: int, processes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bootstrap.cores() >= 1
    monkeypatch.setattr(bootstrap, "cores", lambda: cores)
    assert bootstrap.pytest_arguments([])[3] == processes


@pytest.mark.parametrize(
    ("given", "prefix"),
    [
        ({}, None),
        ({"PYTHONDONTWRITEBYTECODE": ""}, None),
        ({"PYTHONDONTWRITEBYTECODE": "1"}, str(ROOT / ".cache" / "bytecode")),
        ({"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": "/elsewhere"}, "/elsewhere"),
    ],
)
def test_bytecode_is_kept_but_not_beside_the_sources_of_who_wants_none_there(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], prefix: str | None
) -> None:
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    environment = bootstrap.tool_environment()
    assert environment.get("PYTHONPYCACHEPREFIX") == prefix
    shown = subprocess.run(
        [sys.executable, "-c", "import sys; print(sys.dont_write_bytecode, sys.pycache_prefix)"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split() == ["False", str(prefix)]
