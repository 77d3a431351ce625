"""A file at an HTTP address: `{kind = "url", url = "https://..."}`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nexus.catalog.download import download
from nexus.catalog.settings import CatalogSettings
from nexus.catalog.source import Work
from nexus.catalog.types import FileSpec


class UrlSource:
    """Fetch a plain address."""

    def local(self, wanted: FileSpec, options: Mapping[str, Any], settings: CatalogSettings) -> Path | None:
        """An address is never local."""
        return None

    def fetch(self, wanted: FileSpec, options: Mapping[str, Any], target: Path, work: Work) -> None:
        """Download to `target`, resuming an earlier half."""
        download(str(options["url"]), target, wanted.bytes, work)


plug = UrlSource()
