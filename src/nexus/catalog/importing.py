"""Import a user's own model file: inspect it, then keep it as a signed version."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nexus.access.types import Principal
from nexus.catalog.inspection import Inspection, inspect_model
from nexus.catalog.service import CatalogService
from nexus.catalog.types import ModelVersion
from nexus.core.errors import TooLarge


async def import_model(
    catalog: CatalogService,
    principal: Principal,
    name: str,
    path: Path,
    *,
    task: str | None = None,
    meta: Mapping[str, Any] | None = None,
    licence: str = "unknown",
    alias: str | None = "champion",
) -> ModelVersion:
    """Keep the ONNX or GGUF file at `path` as the next version of the project's own model `name`.

    `task` and `meta` correct what was guessed from the file, `meta` key by key. Raises `ModelRefused`,
    `ModelExists`, `TooLarge`.
    """
    if path.stat().st_size > catalog.settings.import_limit:
        raise TooLarge("The file is larger than may be imported.", field="file")
    found = await inspect_model(path)
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"model.{found.format}"  # the stored file's suffix says what it is
        link.symlink_to(path.resolve())
        return await catalog.add_version(
            principal,
            name,
            kind=found.kind,
            task=task or found.task,
            files={"model": link},
            meta=merged(found, meta or {}),
            alias=alias,
            licence=licence,
        )


def merged(found: Inspection, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was found with what the user gives on top, tables joined key by key."""
    result = dict(found.meta)
    for key, value in given.items():
        before = result.get(key)
        result[key] = before | dict(value) if isinstance(before, dict) and isinstance(value, Mapping) else value
    return result
