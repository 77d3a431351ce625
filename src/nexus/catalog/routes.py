"""`/api/v1/models`: every kind of model in one list."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Query, Request, Response

from nexus.access.guard import requires
from nexus.access.types import Principal, Scope
from nexus.catalog.errors import ModelRefused
from nexus.catalog.importing import import_model
from nexus.catalog.schemas import (
    AliasChangeOut,
    AliasIn,
    AliasOut,
    ImportedOut,
    LoadIn,
    ModelOut,
    VersionIn,
    VersionOut,
)
from nexus.catalog.service import CatalogService
from nexus.core.errors import InvalidInput
from nexus.http.depends import service
from nexus.http.paging import Paged, page_of
from nexus.http.uploads import Upload, read_upload

router = APIRouter(prefix="/api/v1/models", tags=["models"])

Catalog = Annotated[CatalogService, service(CatalogService)]
Reader = Annotated[Principal, requires(Scope.MODELS_READ)]
Manager = Annotated[Principal, requires(Scope.MODELS_MANAGE)]
IfMatch = Annotated[str | None, Header(max_length=64, description="The alias's ETag; it must still be this one.")]
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "name"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "name": {"type": "string"},
                        "task": {"type": "string"},
                        "licence": {"type": "string"},
                        "alias": {"type": "string"},
                        "meta": {"type": "string", "description": "JSON that corrects what was guessed"},
                    },
                }
            }
        },
    }
}


@router.get("", operation_id="models.list")
async def list_models(
    page: Paged,
    who: Reader,
    catalog: Catalog,
    kind: Annotated[str | None, Query(max_length=20)] = None,
    task: Annotated[str | None, Query(max_length=40)] = None,
) -> dict[str, Any]:
    """List own models and those of the catalogue, by name."""
    found = sorted(await catalog.list(who, kind=kind, task=task), key=lambda info: info.model)
    rest = [info for info in found if page.after_id is None or info.model > page.after_id]
    return page_of(rest[: page.fetch], page, key=lambda info: (info.model,), render=ModelOut.of)


@router.post("/import", status_code=201, operation_id="models.import", openapi_extra=_FORM)
async def import_file(request: Request, response: Response, who: Manager, catalog: Catalog) -> ImportedOut:
    """Take an ONNX or GGUF file as the next version of an own model."""
    upload = await read_upload(request, "file", limit=catalog.settings.import_limit)
    with tempfile.TemporaryDirectory() as folder:
        path = await asyncio.to_thread(_saved, upload, Path(folder))
        fields = upload.fields
        added = await import_model(
            catalog,
            who,
            _field(fields, "name"),
            path,
            task=fields.get("task"),
            meta=_meta(fields.get("meta")),
            licence=fields.get("licence", "unknown"),
            alias=fields.get("alias", "champion") or None,
        )
    response.headers["location"] = f"/api/v1/models/{added.model}"
    return ImportedOut.of(added)


@router.get("/{name}", operation_id="models.get")
async def show_model(name: str, who: Reader, catalog: Catalog) -> ModelOut:
    """Return one model."""
    return ModelOut.of(await catalog.show(who, name))


@router.delete("/{name}", status_code=204, operation_id="models.delete")
async def delete_model(
    name: str, who: Manager, catalog: Catalog, version: Annotated[int | None, Query(ge=1)] = None
) -> None:
    """Delete a version of an own model (the newest, if none is named), or the pulled files of a catalogue model."""
    await catalog.delete(who, name, version)


@router.get("/{name}/versions", operation_id="models.versions")
async def list_versions(name: str, who: Reader, catalog: Catalog) -> dict[str, list[VersionOut]]:
    """List the versions of a model, newest first."""
    states = await catalog.versions(who, name)
    aliases = await catalog.aliases.of_project(who, name)
    rows = [
        VersionOut(version=number, state=state, aliases=[a.alias for a in aliases if a.version == number])
        for number, state in states.items()
    ]
    return {"data": rows}


@router.get("/{name}/aliases", operation_id="models.aliases")
async def list_aliases(name: str, who: Reader, catalog: Catalog) -> dict[str, list[AliasOut]]:
    """List the project's aliases of a model."""
    await catalog.versions(who, name)
    return {"data": [AliasOut.of(alias) for alias in await catalog.aliases.of_project(who, name)]}


@router.put("/{name}/aliases/{alias}", operation_id="models.set_alias")
async def set_alias(
    name: str,
    alias: str,
    body: AliasIn,
    response: Response,
    who: Manager,
    catalog: Catalog,
    if_match: IfMatch = None,
    if_none_match: Annotated[str | None, Header(max_length=64)] = None,
) -> AliasOut:
    """Point an alias at a version; with If-Match only if nobody has moved it since."""
    expected = 0 if if_none_match == "*" else _revision(if_match)
    among = await catalog.versions(who, name)
    moved = await catalog.aliases.set(who, name, alias, body.version, among=among, expected=expected)
    response.headers["etag"] = f'"{moved.revision}"'
    return AliasOut.of(moved)


@router.delete("/{name}/aliases/{alias}", status_code=204, operation_id="models.delete_alias")
async def delete_alias(name: str, alias: str, who: Manager, catalog: Catalog, if_match: IfMatch = None) -> None:
    """Remove an alias."""
    await catalog.aliases.delete(who, name, alias, expected=_revision(if_match))


@router.get("/{name}/aliases/{alias}/history", operation_id="models.alias_history")
async def alias_history(name: str, alias: str, who: Reader, catalog: Catalog) -> dict[str, list[AliasChangeOut]]:
    """List the moves of an alias, newest first."""
    return {"data": [AliasChangeOut.of(change) for change in await catalog.aliases.history(who, name, alias)]}


@router.post("/{name}/pull", status_code=202, operation_id="models.pull")
async def pull_model(
    name: str, response: Response, who: Manager, catalog: Catalog, body: VersionIn | None = None
) -> dict[str, Any]:
    """Start a run that brings the model's files here."""
    run = await catalog.pull_later(who, name, body.version if body else None)
    response.headers["location"] = f"/api/v1/runs/{run['id']}"
    return run


@router.post("/{name}/load", operation_id="models.load")
async def load_model(name: str, who: Manager, catalog: Catalog, body: LoadIn | None = None) -> ModelOut:
    """Bring the model into memory, and keep it there with `pin`."""
    asked = body or LoadIn(version=None)
    await catalog.load(who, name, asked.version, pin=asked.pin)
    return ModelOut.of(await catalog.show(who, name))


@router.post("/{name}/unload", operation_id="models.unload")
async def unload_model(name: str, who: Manager, catalog: Catalog, body: VersionIn | None = None) -> ModelOut:
    """Let the model go as soon as its present users are done."""
    await catalog.unload(who, name, body.version if body else None)
    return ModelOut.of(await catalog.show(who, name))


def _saved(upload: Upload, folder: Path) -> Path:
    path = folder / "model"
    upload.file.seek(0)
    with path.open("wb") as file:
        shutil.copyfileobj(upload.file, file, 1 << 20)
    upload.close()
    return path


def _field(fields: dict[str, str], name: str) -> str:
    if not fields.get(name):
        raise InvalidInput(f"{name} is missing.", field=name)
    return fields[name]


def _meta(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    try:
        value = orjson.loads(text)
    except ValueError:
        raise InvalidInput("meta is not valid JSON.", field="meta") from None
    if not isinstance(value, dict):
        raise ModelRefused("meta is a JSON object.", field="meta")
    return value


def _revision(etag: str | None) -> int | None:
    """Return the revision that an ETag such as `"3"` stands for; None for no condition."""
    if etag is None or etag == "*":
        return None
    bare = etag.strip().removeprefix("W/").strip('"')
    return int(bare) if bare.isdecimal() and len(bare) < 10 else -1
