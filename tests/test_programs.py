"""The programs that `supervision` starts: what they load, and how they end when they cannot start."""

from __future__ import annotations

import subprocess
import sys

import pytest

# What a process that has been asked for nothing yet has no use for; each is several megabytes.
_LARGE = ("numpy", "scipy", "onnxruntime", "celery", "jsonschema_rs", "json_repair", "httpx2", "rich", "typer")


@pytest.mark.slow
def test_the_api_at_rest_holds_no_large_library() -> None:
    code = f"import sys, nexus.programs, nexus.app; print([name for name in {_LARGE!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("program", ["api", "engine"])
def test_a_wrong_setting_is_one_line_and_its_own_status(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUS_PORT", "no-number")
    command = [sys.executable, "-m", "nexus.programs", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78
    assert done.stderr.startswith("nexus: NEXUS_PORT: "), done.stderr
    assert done.stderr.count("\n") == 1
