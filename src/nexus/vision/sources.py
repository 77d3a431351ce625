"""Where a picture comes from: sent with the request, kept as a file, or fetched from an address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request

from nexus.access.types import Principal, Scope
from nexus.core.errors import InvalidInput, TooLarge
from nexus.http.fetch import safe_fetch
from nexus.http.uploads import FileReference, Upload, read_source
from nexus.vision.errors import ImageTooLarge


class Files(Protocol):
    """What is needed of `nexus.files.service.FileService`."""

    async def read(self, principal: Principal, file_id: str, limit: int | None = None) -> bytes:
        """Return the content of a file of the project."""
        ...


@dataclass(frozen=True, slots=True)
class Sent:
    """A picture's bytes and the other fields of the request; `form` says that those are text."""

    image: bytes
    fields: dict[str, Any]
    form: bool


async def receive(request: Request, principal: Principal, files: Files | None, *, limit: int) -> Sent:
    """Read multipart `image`, or JSON `{file_id}`, `{url}` or `{base64}`, `limit` bytes at the most.

    Raises `ImageTooLarge`, what `read_source` and `safe_fetch` raise, and `Forbidden` where the caller
    names a file without the right to read files.
    """
    try:
        source, fields = await read_source(request, "image", limit=limit)
        if isinstance(source, Upload):
            with source.file:
                return Sent(await source.read(), fields, form=True)
        return Sent(await _named(source, principal, files, limit), fields, form=False)
    except TooLarge:
        raise ImageTooLarge(f"The image is larger than {limit} bytes.", field="image") from None


async def _named(source: FileReference, principal: Principal, files: Files | None, limit: int) -> bytes:
    if source.url is not None:
        fetched = await safe_fetch(source.url, limit=limit)
        if not fetched.ok:
            raise InvalidInput("The URL does not answer with an image.", field="url", upstream_status=fetched.status)
        return fetched.body
    if source.file_id is None:
        return source.decode()
    principal.require(Scope.FILES_READ)
    if files is None:
        raise InvalidInput("This installation keeps no files.", field="file_id")
    return await files.read(principal, source.file_id, limit=limit)
