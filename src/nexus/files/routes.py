"""The routes of files: /v1/files in the shape of the OpenAI API, and the same at /api/v1/files for browsers.

Sessions are not accepted below /v1, so the dashboard uses the second place.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse

from nexus.access.guard import requires
from nexus.access.types import Principal, Scope
from nexus.core.clock import SystemClock
from nexus.core.errors import InvalidInput
from nexus.core.ids import is_id
from nexus.files.service import FileService
from nexus.files.sniff import is_active
from nexus.files.types import File
from nexus.http.depends import service
from nexus.http.uploads import Upload, read_upload

router = APIRouter(tags=["files"])

Files = Annotated[FileService, service(FileService)]
Reader = Annotated[Principal, requires(Scope.FILES_READ)]
Writer = Annotated[Principal, requires(Scope.FILES_WRITE)]

_PURPOSE_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")
_SHORTEST, _LONGEST = 3600, 30 * 86_400


def file_out(file: File) -> dict[str, Any]:
    """Return a file in the shape of https://platform.openai.com/docs/api-reference/files/object, and its digest."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size,
        "created_at": int(file.created_at.timestamp()),
        "expires_at": int(file.expires_at.timestamp()) if file.expires_at else None,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "content_type": file.content_type,
        "sha256": file.sha256,
    }


async def upload_file(request: Request, who: Writer, files: Files) -> dict[str, Any]:
    """Keep a file: multipart with `file`, `purpose` and, if it shall end, `expires_after[seconds]`."""
    upload = await read_upload(request, "file", limit=files.settings.limit)
    with upload.file:
        purpose, life = _purpose(upload), _life(upload)
        expires_at = SystemClock().now() + life if life else None
        file = await files.add(
            who, upload.chunks(), upload.filename, upload.content_type, purpose, expires_at=expires_at
        )
    return file_out(file)


async def list_files(
    who: Reader,
    files: Files,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    after: Annotated[str | None, Query(max_length=64)] = None,
    order: Literal["asc", "desc"] = "desc",
    purpose: Annotated[str | None, Query(max_length=64)] = None,
) -> dict[str, Any]:
    """List the project's files, newest first."""
    if after is not None and not is_id(after, "file"):
        raise InvalidInput("This is not the id of a file.", field="after")
    rows = await files.page(who, after=after, limit=limit + 1, purpose=purpose, newest_first=order == "desc")
    data = [file_out(file) for file in rows[:limit]]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, "has_more": len(rows) > limit, **ends}


async def get_file(file_id: str, who: Reader, files: Files) -> dict[str, Any]:
    """Show one file."""
    return file_out(await files.get(who, file_id))


async def delete_file(file_id: str, who: Writer, files: Files) -> dict[str, Any]:
    """Remove a file."""
    await files.delete(who, file_id)
    return {"id": file_id, "object": "file", "deleted": True}


async def file_content(file_id: str, who: Reader, files: Files) -> FileResponse:
    """Download a file. A browser never shows it in place, and never runs what is in it."""
    file = await files.get(who, file_id)
    path = await files.path(who, file_id)
    headers = {
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox; default-src 'none'",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "private, no-cache",
    }
    media = "application/octet-stream" if is_active(file.content_type) else file.content_type
    return FileResponse(path, media_type=media, filename=file.filename, headers=headers)


def _purpose(upload: Upload) -> str:
    purpose = upload.fields.get("purpose", "user_data")
    if not 1 <= len(purpose) <= 64 or not set(purpose) <= _PURPOSE_LETTERS:
        raise InvalidInput("The purpose is one word such as user_data, vision, batch or dataset.", field="purpose")
    return purpose


def _life(upload: Upload) -> timedelta | None:
    text = upload.fields.get("expires_after[seconds]")
    anchor = upload.fields.get("expires_after[anchor]", "created_at")
    if anchor != "created_at":
        raise InvalidInput("The anchor can only be created_at.", field="expires_after.anchor")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or not _SHORTEST <= int(text[:12]) <= _LONGEST:
        raise InvalidInput(f"Give {_SHORTEST} to {_LONGEST} seconds.", field="expires_after.seconds")
    return timedelta(seconds=int(text))


for _prefix, _name in (("/v1/files", "files"), ("/api/v1/files", "native_files")):
    router.add_api_route(_prefix, upload_file, methods=["POST"], operation_id=f"{_name}.create")
    router.add_api_route(_prefix, list_files, methods=["GET"], operation_id=f"{_name}.list")
    router.add_api_route(f"{_prefix}/{{file_id}}", get_file, methods=["GET"], operation_id=f"{_name}.get")
    router.add_api_route(f"{_prefix}/{{file_id}}", delete_file, methods=["DELETE"], operation_id=f"{_name}.delete")
    router.add_api_route(
        f"{_prefix}/{{file_id}}/content",
        file_content,
        methods=["GET"],
        operation_id=f"{_name}.content",
        response_class=FileResponse,
    )
