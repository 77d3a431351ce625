"""A file inside a Python package: `{kind = "wheel", package = "rapidocr", version = "3.10.0", member = "..."}`.

A package that is installed here already is read in place. Otherwise it is downloaded, never
installed or imported, by the machine's own pip or uv, with whatever index they are set up for.
With `archive_sha256` the client checks the package before it looks into it; a source distribution
(`sdist = true`) is only taken with one, because its metadata is made by running its code.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nexus.catalog.archives import extract_member
from nexus.catalog.client import run_client
from nexus.catalog.errors import ChecksumMismatch, SourceUnreachable
from nexus.catalog.settings import CatalogSettings
from nexus.catalog.source import Work
from nexus.catalog.types import FileSpec

_log = logging.getLogger("nexus.catalog.wheel")


class WheelSource:
    """Read installed packages, download others."""

    def local(self, wanted: FileSpec, options: Mapping[str, Any], settings: CatalogSettings) -> Path | None:
        """Return the file of the installed distribution, if it is there; nothing is imported."""
        try:
            found = Path(str(importlib.metadata.distribution(str(options["package"])).locate_file(options["member"])))
        except importlib.metadata.PackageNotFoundError:
            return None
        return found if found.is_file() else None

    def fetch(self, wanted: FileSpec, options: Mapping[str, Any], target: Path, work: Work) -> None:
        """Download the package once for each pull and take the file out."""
        folder = work.scratch / f"{options['package']}-{options['version']}"
        if not (folder / ".done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            download_package(options, folder, work)
            (folder / ".done").touch()
        unpacked = folder / str(options["member"])
        if unpacked.is_file():
            shutil.copyfile(unpacked, target)
            return
        archives = [path for path in folder.iterdir() if path.suffix in (".whl", ".gz", ".zip")]
        if len(archives) != 1:
            raise ChecksumMismatch("The package index did not give exactly one package.")
        extract_member(archives[0], str(options["member"]), target, size=wanted.bytes)


def download_package(options: Mapping[str, Any], folder: Path, work: Work) -> None:
    """Bring one package to `folder`: as an archive by pip, or unpacked by uv where there is no pip."""
    wanted = f"{options['package']}=={options['version']}"
    digest = options.get("archive_sha256")
    if options.get("sdist") and not digest:
        raise ChecksumMismatch("A source distribution needs the digest of its archive.")
    requirements = folder / "requirements.txt"
    requirements.write_text(wanted + (f" --hash=sha256:{digest}" if digest else "") + "\n")
    form = [] if options.get("sdist") else ["--only-binary", ":all:"]
    check = ["--require-hashes"] if digest else []
    if importlib.util.find_spec("pip"):
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps", *form, *check]
        argv += ["--dest", str(folder), "--requirement", str(requirements)]
    elif uv := shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent)):
        argv = [uv, "pip", "install", "--quiet", "--no-deps", *form, *check, "--python", sys.executable]
        argv += ["--target", str(folder), "--requirement", str(requirements)]
    else:
        raise SourceUnreachable("Neither pip nor uv is here to fetch the package.")
    _log.info("fetching package %s", wanted)
    run_client(argv, folder, work)


plug = WheelSource()
