from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from starlette.requests import Request

from nexus.core.errors import InvalidInput, MalformedBody, NexusError, TooLarge, UnsupportedMedia
from nexus.http.uploads import FileReference, Upload, read_form, read_source, read_upload

BOUNDARY = "----b0undary"


def part(name: str, content: bytes | str, filename: str | None = None, kind: str | None = None) -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        head += f'; filename="{filename}"'
    if kind:
        head += f"\r\nContent-Type: {kind}"
    data = content.encode() if isinstance(content, str) else content
    return f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + data + b"\r\n"


def request(body: bytes, kind: str = f"multipart/form-data; boundary={BOUNDARY}", step: int = 1000) -> Request:
    chunks = [body[start : start + step] for start in range(0, len(body), step)] or [b""]
    messages = [
        {"type": "http.request", "body": chunk, "more_body": n < len(chunks)} for n, chunk in enumerate(chunks, 1)
    ]

    async def receive() -> Any:
        return messages.pop(0)

    return Request({"type": "http", "method": "POST", "headers": [(b"content-type", kind.encode())]}, receive)


END = f"--{BOUNDARY}--\r\n".encode()


@pytest.mark.parametrize("step", [1, 7, 100_000, 10_000_000])
async def test_a_form_is_read_whatever_the_pieces(step: int) -> None:
    image = bytes(range(256)) * (20 if step < 10 else 40_000)
    body = part("image", image, "cat.png", "image/png") + part("model", "yolöx") + part("level", "80")
    upload = await read_upload(request(body + part("level", "95") + END, step=step))
    assert await upload.read() == image
    assert b"".join([chunk async for chunk in upload.chunks()]) == image
    assert (upload.filename, upload.content_type, upload.size) == ("cat.png", "image/png", len(image))
    assert upload.fields == {"model": "yolöx", "level": "95"}
    assert upload.repeated["level"] == ["80", "95"]
    upload.close()


@pytest.mark.parametrize(
    ("filename", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\\\..\\\\windows\\\\con", "con"),
        ("/proc/self/environ", "environ"),
        ("a\x00b\x07.png", "ab.png"),
        ("", "upload"),
        ("..", ".."),
        ("x" * 4096, "x" * 255),
    ],
)
async def test_names_are_for_show(filename: str, shown: str) -> None:
    upload = await read_upload(request(part("image", b"x", filename) + END))
    assert upload.filename == shown


GOOD = part("image", b"x", "a.png")
CASES: list[tuple[bytes, str, type[NexusError]]] = [
    (GOOD, "", MalformedBody),
    (GOOD + END, "application/json", UnsupportedMedia),
    (GOOD + END, "multipart/form-data", MalformedBody),
    (GOOD + END, "multipart/form-data; boundary=" + "b" * 100_000, MalformedBody),
    (GOOD + END, "multipart/mixed; boundary=" + BOUNDARY, UnsupportedMedia),
    (END, "", InvalidInput),
    (part("other", b"x", "a.png") + END, "", InvalidInput),
    (part("image", "only text") + END, "", InvalidInput),
    (GOOD + GOOD + END, "", InvalidInput),
    (GOOD * 65 + END, "", TooLarge),
    (part("image", b"x" * 5001, "a.png") + END, "", TooLarge),
    (part("image", b"x" * 3000, "a") + part("b", b"x" * 3000, "b") + END, "", TooLarge),
    (GOOD + part("text", "x" * (1024 * 1024 + 1)) + END, "", TooLarge),
    (GOOD + part("text", "a\0b") + END, "", InvalidInput),
    (GOOD + part("text", b"\xff\xfe") + END, "", InvalidInput),
    (b"garbage", "", MalformedBody),
    (b"", "", MalformedBody),
    (f"--{BOUNDARY}\r\nX: {'y' * 20_000}\r\n\r\nx\r\n".encode() + END, "", MalformedBody),
    (f"--{BOUNDARY}\r\n\r\nx\r\n".encode() + END, "", MalformedBody),
]


@pytest.mark.parametrize(("body", "kind", "error"), CASES, ids=range(len(CASES)))
async def test_bad_forms_are_clear_errors(body: bytes, kind: str, error: type[NexusError]) -> None:
    with pytest.raises(error) as caught:
        await read_upload(request(body, *([kind] if kind else [])), limit=5000)
    assert type(caught.value) is error


async def test_a_form_may_have_no_file() -> None:
    form = await read_form(request(part("a", "1") + END))
    assert form.fields == {"a": "1"}
    assert form.uploads == []


def of_json(value: Any) -> Request:
    return request(json.dumps(value).encode(), "application/json")


@pytest.mark.parametrize(
    ("body", "reference", "others"),
    [
        ({"url": "https://x/a.png"}, {"url": "https://x/a.png"}, {}),
        ({"file_id": "file_1", "threshold": 0.5}, {"file_id": "file_1"}, {"threshold": 0.5}),
        ({"image": {"base64": "eA=="}, "model": "m"}, {"base64": "eA=="}, {"model": "m"}),
    ],
)
async def test_json_names_a_file(body: Any, reference: dict[str, str], others: Any) -> None:
    source, rest = await read_source(of_json(body))
    assert isinstance(source, FileReference)
    assert source.model_dump(exclude_none=True) == reference
    assert rest == others


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"file": {"path": "/etc/passwd"}},
        {"image": {"path": "/etc/passwd", "filename": "x"}},
        {"url": "https://x", "file_id": "file_1"},
        {"url": ["https://x"]},
        {"base64": 5},
        {"image": {"file_id": {"$ne": None}}},
    ],
)
async def test_json_never_forges_an_upload(body: Any) -> None:
    with pytest.raises(InvalidInput):
        await read_source(of_json(body))


async def test_multipart_is_a_source_too() -> None:
    source, others = await read_source(request(GOOD + part("model", "m") + END))
    assert isinstance(source, Upload)
    assert others == {"model": "m"}
    with pytest.raises(UnsupportedMedia):
        await read_source(request(b"image=x", "application/x-www-form-urlencoded"))


def test_base64_is_plain_or_a_data_url() -> None:
    encoded = base64.b64encode(b"\x00\xffimage").decode()
    for text in (encoded, f"data:image/png;base64,{encoded}", encoded[:4] + "\n" + encoded[4:]):
        assert FileReference(base64=text).decode() == b"\x00\xffimage"
    for text in ("***", "data:image/png,plain", encoded[:-1], "data:image/png;base64", "é"):
        with pytest.raises(InvalidInput):
            FileReference(base64=text).decode()
