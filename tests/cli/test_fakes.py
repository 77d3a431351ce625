"""The fakes as commands: they say where they listen, serve, and end when they are told to."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from nexus.cli.main import app

ASK = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}


@contextmanager
def running(*arguments: str) -> Iterator[tuple[str, str]]:
    command = [sys.executable, "-m", "nexus", *arguments, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = ""
        while "base_url" not in said:
            said += process.stdout.readline()
            assert process.poll() is None, said
        try:
            yield re.search(r"http://\S+", said)[0], said  # type: ignore[index]  # a match is certain here
        finally:
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
            assert process.wait(10) == 0


@pytest.mark.slow
def test_the_fake_upstream_serves_until_it_is_stopped() -> None:
    with running("fake-upstream") as (url, _):
        assert httpx.post(f"{url}/chat/completions", json=ASK).json()["choices"][0]["message"]["content"] == "hello"
        assert httpx.post(f"{url}/chat/completions", json=ASK | {"model": "fault-529"}).status_code == 529


@pytest.mark.slow
def test_replay_says_what_it_left_out(tmp_path: Path) -> None:
    told = {
        "request": {"method": "POST", "url": "https://a/v1/chat/completions", "body": "{}"},
        "response": {"body": "yes"},
    }
    (tmp_path / "a.json").write_text(json.dumps(told))
    (tmp_path / "b.json").write_text("{}")
    with running("replay", str(tmp_path), "--cut", "1") as (url, said):
        assert "left out" in said
        assert "b.json has no exchange" in said
        assert httpx.post(f"{url}/chat/completions", json=ASK).text == "yes"


def test_nothing_to_replay_is_said_in_a_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["replay", str(tmp_path)])
    assert result.exit_code == 1
    assert "no recording to replay" in result.output.replace("\n", " ")
