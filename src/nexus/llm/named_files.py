"""The files that requests name by our ids, read for the caller's project and put into the request as data.

A provider gets what a file holds, never our id. An id that is not of our form may be the provider's own and stays.
What takes long (base64, reading the request again with it) is done in a thread, so that other calls go on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from nexus.access.types import Principal
from nexus.files.errors import FileNotFound, FileTooLarge
from nexus.files.service import FileService
from nexus.llm.forms.named_files import NamedFile, Naming, Opened, has_mark
from nexus.llm.types import Call

R = TypeVar("R")

# What takes less than a millisecond is not worth a thread.
_AT_ONCE: Final = 256 * 1024


class NamedFiles:
    """Puts files into requests. One for each process."""

    def __init__(self, files: FileService | None, *, limit: int) -> None:
        """Let the files of one request have `limit` bytes together; without `files` there are none."""
        self._files = files
        self._limit = limit

    async def put_into(
        self, principal: Principal, call: Call, naming: Naming | None, read: Callable[[bytes], Call]
    ) -> Call:
        """Return the call with the files that it names, `read` again with them in it, or the very same.

        Raises as `filled` does, and what `read` raises.
        """
        body = await self.filled(principal, call.body, naming) if naming is not None else call.body
        if body is call.body:
            return call
        return msgspec.structs.replace(await _aside(len(body), lambda: read(body)), given=call.body)

    async def filled(self, principal: Principal, body: bytes, naming: Naming, *, field: str | None = None) -> bytes:
        """Return a body with files in the place of their ids, or the very same where it names none.

        Raises `FileNotFound` for what is not the project's, `FileTooLarge`, or `InvalidRequest` for a file that
        cannot stand there. Errors name the place in the body, or `field`.
        """
        if self._files is None or not has_mark(body):
            return body
        opened = await _aside(len(body), lambda: Opened(body, naming))
        if not opened.spots:
            return body
        found: dict[str, NamedFile] = {}
        left = self._limit
        for spot in opened.spots:
            place = field or spot.field
            if spot.file_id not in found:
                found[spot.file_id] = await self._file(principal, spot.file_id, left, place)
            left -= len(found[spot.file_id].content)
            if left < 0:
                raise self._too_large(place)
        size = len(body) + sum(len(found[spot.file_id].content) for spot in opened.spots)
        return await _aside(size, lambda: opened.filled(found))

    async def _file(self, principal: Principal, file_id: str, limit: int, field: str) -> NamedFile:
        assert self._files is not None
        try:
            file = await self._files.get(principal, file_id)
            if file.size > limit:
                raise self._too_large(field)
            content = await self._files.content(file)
        except FileNotFound:
            raise FileNotFound(f"There is no file {file_id} in this project ({field}).", field=field) from None
        return NamedFile(file.filename, file.content_type.partition(";")[0].strip(), content)

    def _too_large(self, field: str) -> FileTooLarge:
        text = f"The files of one request may have {self._limit} bytes together ({field})."
        return FileTooLarge(text, field=field, limit=self._limit)


async def _aside(size: int, work: Callable[[], R]) -> R:
    """Return what `work` on so many bytes makes, off the event loop where that would hold it up."""
    return await asyncio.to_thread(work) if size > _AT_ONCE else work()
