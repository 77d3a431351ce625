"""The contract of a conversion: one module in `conversions/` for each way from foreign files to ours.

A conversion runs in a process of its own (`conversion_child`), after the SHA-256 of every input has
been checked, and sees two folders: what was fetched, and what will become the version's folder.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from nexus.catalog.errors import ConversionFailed
from nexus.core.plugins import PluginFolder

_LONGEST: Final = 900.0


@runtime_checkable
class Conversion(Protocol):
    """One way of converting."""

    def convert(self, inputs: Path, outputs: Path, options: Mapping[str, Any]) -> None:
        """Write the model into `outputs`. Raises `ConversionFailed` when the input does not fit."""
        ...


CONVERSIONS: PluginFolder[Conversion] = PluginFolder(
    "nexus.catalog.conversions",
    Conversion,  # type: ignore[type-abstract]  # a protocol is what plugs are checked against
    noun="conversion",
)


def convert_apart(
    name: str, inputs: Path, outputs: Path, options: Mapping[str, Any], check: Callable[[], None]
) -> None:
    """Run the conversion `name` in a child process, so that its memory goes when it ends.

    Raises `ConversionFailed` with the child's own reason, or when it dies or takes too long.
    """
    argv = [sys.executable, "-m", "nexus.catalog.conversion_child"]
    argv += [name, str(inputs), str(outputs), json.dumps(dict(options))]
    deadline = time.monotonic() + _LONGEST
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            check()
            if time.monotonic() > deadline:
                raise ConversionFailed("The conversion took too long.")
            time.sleep(0.05)
        said = process.stdout.read(4000) if process.stdout else b""
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
    if process.returncode:
        raise ConversionFailed(said.decode(errors="replace").strip() or None)
