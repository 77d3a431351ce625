"""Virtual environments of peers, below `<data dir>/bench`: made when first needed, kept for the next time."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def own_environment(folder: Path, requirements: Sequence[str]) -> Path | None:
    """Return the `bin` of a virtual environment with these packages; None where they cannot be installed."""
    programs = folder / "bin"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", *requirements]
        if subprocess.run(pip, check=False, stdout=subprocess.DEVNULL).returncode:
            return None
        (folder / "complete").touch()
    return programs
