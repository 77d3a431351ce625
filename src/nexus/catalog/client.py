"""Run a package client (pip, uv, npm) as the machine has it set up, and give up cleanly."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from nexus.catalog.errors import SourceUnreachable
from nexus.catalog.source import Work

_log = logging.getLogger("nexus.catalog.client")
_LONGEST: Final = 1800.0


def run_client(argv: list[str], folder: Path, work: Work, *, env: Mapping[str, str] | None = None) -> None:
    """Run `argv` in `folder` until it ends. Raises `SourceUnreachable` when it fails or takes too long.

    What it prints goes to our log, not to the caller: it may hold addresses and credentials.
    """
    deadline = time.monotonic() + _LONGEST
    transcript = folder / ".client.log"
    with transcript.open("wb") as output:
        process = subprocess.Popen(
            argv, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                work.check()
                if time.monotonic() > deadline:
                    raise SourceUnreachable("The package client took too long.")
                time.sleep(0.05)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode:
        _log.warning(
            "package client failed (%d): %s", process.returncode, transcript.read_text(errors="replace")[-2000:]
        )
        raise SourceUnreachable("The package could not be fetched from the package index.")
