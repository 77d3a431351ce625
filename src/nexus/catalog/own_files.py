"""A project's own model versions: kept as they were made, signed, and checked before every use.

The files lie in `<models>/.own/<project>/<version id>/`. What they are (digests, roles, meta) is one
canonical JSON document in the database, signed with a key of this installation; neither a changed
file nor a changed row passes `check`. Names given by users are never part of a path.
"""

from __future__ import annotations

import hmac
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nexus.catalog.checksums import Checksums, sha256_of
from nexus.catalog.disk import sync_to_disk
from nexus.catalog.errors import ModelDamaged, ModelRefused
from nexus.catalog.storage import OwnVersion
from nexus.catalog.types import ModelVersion, State
from nexus.core.ids import new_id
from nexus.core.secrets import Keyring

_USE: Final = "catalog.version"
_ROLE: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")


class OwnFiles:
    """Stores and checks the files of own versions. Its methods block; call them from a thread."""

    def __init__(self, root: Path, keyring: Keyring) -> None:
        """Keep everything below `root`, which need not exist yet."""
        self._root = root
        self._keyring = keyring
        self._checksums = Checksums()

    def store(self, project_id: str, files: Mapping[str, Path]) -> tuple[str, dict[str, dict[str, Any]]]:
        """Copy `files` (role -> file) into a new folder; return the version's id and what is there by role."""
        version_id = new_id("mdv")
        folder, staging = self._folder(project_id, version_id), self._root / ".staging" / version_id
        staging.mkdir(parents=True)
        stored: dict[str, dict[str, Any]] = {}
        try:
            for role, path in files.items():
                target = staging / f"{_role(role)}{path.suffix.lower()}"
                shutil.copyfile(path, target)
                sync_to_disk(target)
                stored[role] = {"name": target.name, "sha256": sha256_of(target), "bytes": target.stat().st_size}
            folder.parent.mkdir(parents=True, exist_ok=True)
            staging.rename(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return version_id, stored

    def seal(self, document: Mapping[str, Any]) -> tuple[str, str]:
        """Return the canonical text of a version's document and its signature."""
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
        return text, self._keyring.sign(_USE, text.encode()).hex()

    def check(self, project_id: str, version: OwnVersion) -> ModelVersion:
        """Return the version if everything of it is as it was stored, else raise `ModelDamaged`."""
        expected = self._keyring.sign(_USE, version.document.encode()).hex()
        if not hmac.compare_digest(expected, version.signature):
            raise ModelDamaged("The version's signature does not fit; it is not loaded.")
        document: dict[str, Any] = json.loads(version.document)
        if document["project_id"] != project_id or document["id"] != version.id:
            raise ModelDamaged("The version's signature belongs to another version; it is not loaded.")
        folder, files = self._folder(project_id, version.id), {}
        for role, file in document["files"].items():
            files[role] = folder / file["name"]
            if not self._checksums.matches(files[role], file["sha256"], file["bytes"]):
                raise ModelDamaged(file=role)
        return ModelVersion(
            model=document["model"],
            task=document["task"],
            kind=document["kind"],
            version=document["version"],
            state=State.READY,
            files=files,
            meta=document["meta"],
            licence=document["licence"],
            commercial_ok=True,
            family=str(document["meta"].get("family", "")),
            digest=max(document["files"].values(), key=lambda file: file["bytes"])["sha256"],
            size=version.size,
            memory=int(document["meta"].get("memory") or version.size * 2),
            project_id=project_id,
            created_at=version.created_at,
        )

    def remove(self, project_id: str, version_id: str) -> None:
        """Delete a version's files."""
        shutil.rmtree(self._folder(project_id, version_id), ignore_errors=True)

    def _folder(self, project_id: str, version_id: str) -> Path:
        return self._root / project_id / version_id


def _role(role: str) -> str:
    if not _ROLE.fullmatch(role):
        raise ModelRefused("The role of a file is a short word in lower case.", field="files")
    return role
