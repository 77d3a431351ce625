"""Uploads: multipart/form-data (RFC 7578) read as it arrives, with a cap on everything.

A file comes from a file part of a multipart body and from nowhere else: JSON that looks like an upload never
becomes one (research security_api, flaw 14). JSON may *name* a file instead: `FileReference`.

    source = await read_source(request, "image", limit=...)     # Upload or FileReference
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from dataclasses import field as member
from tempfile import SpooledTemporaryFile
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from nexus.core.errors import InvalidInput, MalformedBody, TooLarge, UnsupportedMedia
from nexus.http.body import json_body
from nexus.http.problem import Issue, ValidationFailed

MEGABYTE: Final = 1024 * 1024
MAX_PARTS: Final = 64
MAX_FIELD: Final = MEGABYTE
_IN_MEMORY: Final = 4 * MEGABYTE
_MAX_HEADER: Final = 16 * 1024
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass
class Upload:
    """One uploaded file, in memory while small and in a nameless temporary file beyond 4 MB."""

    field: str
    filename: str
    content_type: str
    file: SpooledTemporaryFile[bytes]
    size: int = 0
    fields: dict[str, str] = member(default_factory=dict)
    """The text fields of the same form; of a repeated one the last."""
    repeated: dict[str, list[str]] = member(default_factory=dict)
    """Every value of every text field, in order."""

    async def read(self) -> bytes:
        """Return the whole content."""
        self.file.seek(0)
        return await asyncio.to_thread(self.file.read)

    async def chunks(self, size: int = 256 * 1024) -> AsyncIterator[bytes]:
        """Give out the content in pieces of at most `size` bytes."""
        self.file.seek(0)
        while chunk := await asyncio.to_thread(self.file.read, size):
            yield chunk

    def close(self) -> None:
        """Forget the content."""
        self.file.close()


class FileReference(BaseModel):
    """A file that the caller names instead of sending it: exactly one of the three."""

    model_config = ConfigDict(extra="ignore", strict=True)

    file_id: str | None = None
    url: str | None = None
    base64: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> FileReference:
        if sum(value is not None for value in (self.file_id, self.url, self.base64)) != 1:
            raise ValueError("give exactly one of file_id, url and base64")
        return self

    def decode(self) -> bytes:
        """Return the bytes of `base64`, plain or as a data URL. Raises `InvalidInput`."""
        text = self.base64 or ""
        if text.startswith("data:"):
            head, comma, text = text.partition(",")
            if not comma or not head.endswith(";base64"):
                raise InvalidInput("The data URL is not base64.", field="base64")
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            raise InvalidInput("This is not valid base64.", field="base64") from None


@dataclass
class Form:
    """A parsed form."""

    fields: dict[str, str] = member(default_factory=dict)
    repeated: dict[str, list[str]] = member(default_factory=dict)
    uploads: list[Upload] = member(default_factory=list)

    def upload(self, name: str) -> Upload:
        """Return the one file sent as `name`. Raises `InvalidInput` naming the field."""
        found = [upload for upload in self.uploads if upload.field == name]
        if len(found) != 1:
            what = "is missing; send it as a file part" if not found else "was sent more than once"
            raise InvalidInput(f"{name} {what}.", field=name)
        return found[0]

    def close(self) -> None:
        """Forget all files."""
        for upload in self.uploads:
            upload.close()


async def read_upload(request: Request, field: str = "image", *, limit: int = 512 * MEGABYTE) -> Upload:
    """Read a form with exactly one file, called `field`; its text fields are in `Upload.fields`.

    The file is closed when it is garbage collected or by `close()`. Raises as `read_form` does.
    """
    form = await read_form(request, limit=limit)
    try:
        upload = form.upload(field)
    except InvalidInput:
        form.close()
        raise
    for other in form.uploads:
        if other is not upload:
            other.close()
    upload.fields, upload.repeated = form.fields, form.repeated
    return upload


async def read_source(
    request: Request, field: str = "image", *, limit: int = 20 * MEGABYTE
) -> tuple[Upload | FileReference, dict[str, Any]]:
    """Read a file sent (multipart) or named (JSON), and the request's other fields.

    In JSON the name stands at the top (`{"url": ..}`) or below `field` (`{"image": {"url": ..}}`).
    Raises `UnsupportedMedia` for other content types.
    """
    media = _media_type(request)
    if media == "multipart/form-data":
        upload = await read_upload(request, field, limit=limit)
        return upload, dict(upload.fields)
    if media != "application/json" and not media.endswith("+json"):
        raise UnsupportedMedia("Send multipart/form-data or application/json.", field="content-type")
    # Base64 takes four bytes for three.
    body = await json_body(request, limit * 4 // 3 + 64 * 1024)
    if not isinstance(body, dict):
        raise InvalidInput("The body must be a JSON object.")
    nested = body.get(field)
    named = nested if isinstance(nested, dict) else body
    try:
        reference = FileReference.model_validate(named)
    except ValidationError as error:
        issues = [Issue(".".join(map(str, e["loc"])) or field, e["type"], _detail(e)) for e in error.errors()]
        raise ValidationFailed(issues) from None
    others = {key: value for key, value in body.items() if key not in ("file_id", "url", "base64")}
    if named is nested:
        others.pop(field)
    return reference, others


def _detail(error: Any) -> str:
    return str(error["msg"]).removeprefix("Value error, ")


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_form(
    request: Request, *, limit: int = 512 * MEGABYTE, max_parts: int = MAX_PARTS, max_field: int = MAX_FIELD
) -> Form:
    """Parse a multipart form.

    `limit` is the number of bytes that all files together may have, `max_field` that of a text field.
    Raises `UnsupportedMedia`, `MalformedBody`, `TooLarge` or `InvalidInput`; nothing is left behind then.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data":
        raise UnsupportedMedia("Send this as multipart/form-data.", field="content-type")
    # RFC 2046, section 5.1.1.
    if not 1 <= len(boundary) <= 70:
        raise MalformedBody("The multipart boundary is missing or too long.", field="content-type")
    reader = _FormReader(limit, max_parts, max_field)
    try:
        parser = MultipartParser(boundary, reader.callbacks(), max_header_size=_MAX_HEADER, max_header_count=16)
        more = True
        while more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            more = message.get("more_body", False)
            parser.write(message.get("body", b""))
            await reader.store()
        parser.finalize()
        if not reader.ended:
            raise MalformedBody("The multipart body ends too early.")
    except FormParserError:
        reader.form.close()
        raise MalformedBody("The multipart body could not be read.") from None
    except BaseException:
        reader.form.close()
        raise
    return reader.form


class _FormReader:
    """Takes what the parser finds. Its callbacks are synchronous; `store` then writes files in a thread."""

    def __init__(self, limit: int, max_parts: int, max_field: int) -> None:
        self.form = Form()
        self.ended = False
        self._limit, self._max_parts, self._max_field = limit, max_parts, max_field
        self._parts = 0
        self._size = 0
        self._header_name = b""
        self._header_value = b""
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._text = bytearray()
        self._upload: Upload | None = None
        self._waiting: list[tuple[Upload, bytes]] = []

    def callbacks(self) -> Any:
        """What python-multipart calls."""
        names = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end")
        return {f"on_{name}": getattr(self, name) for name in (*names, "headers_finished", "end")}

    async def store(self) -> None:
        """Write what has arrived to its files."""
        waiting, self._waiting = self._waiting, []
        for upload, data in waiting:
            if upload.size > _IN_MEMORY:
                await asyncio.to_thread(upload.file.write, data)
            else:
                upload.file.write(data)

    def part_begin(self) -> None:
        """A part starts."""
        self._parts += 1
        if self._parts > self._max_parts:
            raise TooLarge(f"The form has more than {self._max_parts} parts.", limit=self._max_parts)
        self._headers, self._text, self._upload = {}, bytearray(), None

    def header_field(self, data: bytes, start: int, end: int) -> None:
        """A piece of a header's name."""
        self._header_name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        """A piece of a header's value."""
        self._header_value += data[start:end]

    def header_end(self) -> None:
        """A header is complete."""
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def headers_finished(self) -> None:
        """All headers of the part are known: it is a file if it has a file name."""
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"name" not in options:
            raise MalformedBody("A part of the form has no name.")
        self._name = _text(options[b"name"], "name")
        if b"filename" in options:
            kind = self._headers.get(b"content-type", b"application/octet-stream").decode("latin-1")
            file = SpooledTemporaryFile[bytes](max_size=_IN_MEMORY)
            self._upload = Upload(self._name, _display_name(options[b"filename"]), _CONTROL.sub("", kind)[:255], file)
            self.form.uploads.append(self._upload)

    def part_data(self, data: bytes, start: int, end: int) -> None:
        """A piece of the part's content."""
        if self._upload is not None:
            self._size += end - start
            if self._size > self._limit:
                raise TooLarge(f"The upload is larger than {self._limit} bytes.", field=self._name, limit=self._limit)
            self._upload.size += end - start
            self._waiting.append((self._upload, data[start:end]))
            return
        if len(self._text) + end - start > self._max_field:
            raise TooLarge(f"A text field is larger than {self._max_field} bytes.", field=self._name)
        self._text += data[start:end]

    def part_end(self) -> None:
        """The part is complete."""
        if self._upload is None:
            text = _text(bytes(self._text), self._name)
            self.form.fields[self._name] = text
            self.form.repeated.setdefault(self._name, []).append(text)

    def end(self) -> None:
        """The closing boundary was there."""
        self.ended = True


def _text(raw: bytes, name: str) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise InvalidInput("The text is not UTF-8.", field=name) from None
    if "\0" in text:
        raise InvalidInput("The text contains a NUL character.", field=name)
    return text


def _display_name(raw: bytes) -> str:
    """A name to show, never a path to open: the last segment, without control characters."""
    name = raw.decode(errors="replace").replace("\\", "/").rpartition("/")[2]
    return _CONTROL.sub("", name).strip()[:255] or "upload"
