"""The command line: every command explains itself, and wrong use is one line and a status."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from nexus import __version__
from nexus.cli.main import app
from nexus.cli.output import fail

runner = CliRunner()


@pytest.fixture(scope="module", autouse=True)
def made_once() -> Iterator[None]:
    """The runner would make all commands anew for each call, which takes ten times as long as the call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", cache(get_command))
        yield


def _all_commands() -> list[list[str]]:
    found: list[list[str]] = []

    def walk(command: object, path: list[str]) -> None:
        found.append(path)
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, [*path, name])

    walk(get_command(app), [])
    return found


@pytest.mark.parametrize("path", _all_commands(), ids=lambda path: " ".join(path) or "nexus")
def test_every_command_has_help(path: list[str]) -> None:
    result = runner.invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_says_its_version() -> None:
    assert runner.invoke(app, ["--version"]).output.strip() == __version__


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["bench", "no-such"], 2, "no benchmark"),
        (["forecast", "missing.csv", "--horizon", "3"], 2, "does not exist"),
        (["doctor", "--no-such-option"], 2, "No such option"),
        (["vision", "ocr", "missing.png"], 2, "does not exist"),
    ],
)
def test_wrong_use_is_said_in_a_line(arguments: list[str], status: int, words: str) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == status
    assert words in result.output.replace("\n", " ")
    assert "Traceback" not in result.output


def test_doctor_speaks_to_machines(tmp_path: Path) -> None:
    result = runner.invoke(app, ["doctor", "--json", "--data-dir", str(tmp_path)])
    found = json.loads(result.stdout)
    assert (found["nexus"], found["running"], found["database"]) == (__version__, "no", "sqlite")


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [("NEXUS_PORT", "many", "NEXUS_PORT"), ("NEXUS_DEVICE", "abacus", "NEXUS_DEVICE"),
     ("NEXUS_TRUSTED_PROXIES", "*", "NEXUS_"), ("NEXUS_CONFIG", "/no/such/file.yaml", "no settings file")],
)  # fmt: skip
def test_wrong_settings_name_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(variable, value)
    result = runner.invoke(app, ["doctor", "--data-dir", str(tmp_path)])
    assert result.exit_code == 78
    assert words in result.output


@pytest.mark.slow
def test_a_public_address_is_refused_without_an_admin(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nexus", "serve", "--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78
    assert "admin" in done.stderr


def test_failing_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exception, match="3"):
        fail("it [bold]broke[/bold]", 3)
    assert capsys.readouterr().err.strip() == "nexus: it [bold]broke[/bold]"
