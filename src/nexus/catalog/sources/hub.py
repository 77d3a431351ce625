"""A file of a model hub: `{kind = "hub", repo = "owner/name", revision = "main", file = "model.onnx"}`.

The protocol is that of the Hugging Face hub (https://huggingface.co/docs/hub/en/models-downloading):
`<endpoint>/<repo>/resolve/<revision>/<file>` redirects to the bytes; the first answer's
`X-Linked-Etag` is the SHA-256 of a large file, so a wrong file is refused before it is downloaded.
A mirror with the same protocol is named by `endpoint`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from nexus.catalog.download import download, open_url
from nexus.catalog.errors import ChecksumMismatch
from nexus.catalog.settings import CatalogSettings
from nexus.catalog.source import Work
from nexus.catalog.types import FileSpec

_ENDPOINT: Final = "https://huggingface.co"
_SHA256_LENGTH: Final = 64


class HubSource:
    """Fetch from a hub, with the installation's token where one is set."""

    def local(self, wanted: FileSpec, options: Mapping[str, Any], settings: CatalogSettings) -> Path | None:
        """A hub is never local."""
        return None

    def fetch(self, wanted: FileSpec, options: Mapping[str, Any], target: Path, work: Work) -> None:
        """Ask for the file's digest, then download it."""
        url = resolve_url(options)
        token = work.settings.hub_token
        secret = token.get_secret_value() if token else None
        answer = open_url(url, timeout=work.settings.connect_timeout, secret=secret, method="HEAD")
        answer.close()
        digest = str(answer.first.get("X-Linked-Etag") or answer.first.get("ETag") or "").removeprefix("W/").strip('"')
        if len(digest) == _SHA256_LENGTH and digest != wanted.sha256:
            raise ChecksumMismatch("The hub's file is not the one that the catalogue names.", file=wanted.path)
        download(url, target, wanted.bytes, work, secret=secret)


def resolve_url(options: Mapping[str, Any]) -> str:
    """Return the address that stands for one file of one revision."""
    endpoint = str(options.get("endpoint") or _ENDPOINT).rstrip("/")
    repo, file = quote(str(options["repo"])), quote(str(options["file"]))
    return f"{endpoint}/{repo}/resolve/{quote(str(options.get('revision') or 'main'), safe='')}/{file}"


plug = HubSource()
