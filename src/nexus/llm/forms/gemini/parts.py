"""The parts of Gemini's messages and our own, both ways.

Source: https://ai.google.dev/api/caching#Part. A part of any kind may carry a `thoughtSignature`, which must
come back with it. Calls often have no id in this form: they get one, and a result finds its call by it.
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
from hashlib import sha256
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from nexus.llm.errors import Unsupported
from nexus.llm.types import (
    AnyPart,
    Foreign,
    Media,
    Refusal,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)

DIALECT = "gemini"
_KINDS: dict[str, Any] = {"image": "image", "audio": "audio", "video": "video"}
_USUAL = {"image": "image/jpeg", "audio": "audio/mpeg", "video": "video/mp4", "document": "application/pdf"}
_OWN_FILES = ("gs://", "files/", "https://generativelanguage.googleapis.com/")
_FILES = (*_OWN_FILES, "http://", "https://")
# Seals of others that are no base64, and sealed thoughts, travel in a signature behind one of these.
_SEAL, _REDACTED = b"nexus-seal:", b"nexus-redacted:"


class Signature(NamedTuple):
    """What a `thoughtSignature` holds: a seal as its maker wrote it, or a sealed thought of another provider."""

    seal: str | None = None
    redacted: str | None = None


class CallNames:
    """Gives the calls of a conversation the ids that were left out, so that each result finds its call."""

    def __init__(self) -> None:
        """Begin a conversation."""
        self._count = 0
        self._open: dict[str, list[str]] = {}

    def called(self, call: dict[str, Any]) -> str:
        """Return the id of a call: its own, or its place in the conversation."""
        self._count += 1
        found = str(call.get("id") or f"call_{self._count:04}")
        self._open.setdefault(call.get("name", ""), []).append(found)
        return found

    def answered(self, response: dict[str, Any], place: str) -> ToolResult:
        """Read a result; without an id it belongs to the earliest call of its name that has none yet."""
        waiting = self._open.get(response.get("name", ""), [])
        found = str(response.get("id") or (waiting[0] if waiting else f"call_{self._count:04}"))
        if found in waiting:
            waiting.remove(found)
        told = response.get("response")
        shown = tuple(read_media(part, f"{place}.functionResponse.parts") for part in response.get("parts") or ())
        failed = isinstance(told, dict) and told.keys() == {"error"}
        return ToolResult(id=found, content=(Text(text=_words(told)), *shown), is_error=failed)


def _words(told: Any) -> str:
    """Return what a tool said: Google's own wrapping is taken off a plain text."""
    if isinstance(told, dict) and len(told) == 1:
        (key, value), *_ = told.items()
        if key in ("output", "error", "result") and isinstance(value, str):
            return value
    return msgspec.json.encode({} if told is None else told).decode()


def made_id(answer: str, index: int, position: int) -> str:
    """Return an id for a call that came without: the same for the same answer, and letters that all accept."""
    return "call_" + sha256(f"{answer}/{index}/{position}".encode()).hexdigest()[:24]


# From Gemini.


def read_media(part: dict[str, Any], place: str) -> Media:
    """Read `inlineData` or `fileData`. Raises `Unsupported` for a file that only Google can open."""
    if (inline := part.get("inlineData")) is not None:
        mime = inline.get("mimeType") or "application/octet-stream"
        data = _standard(inline.get("data") or "")
        return Media(kind=_kind(mime), media_type=mime, data=data, name=inline.get("displayName"))
    if (file := part.get("fileData")) is None:
        raise Unsupported(f"This model does not read this part ({place}).", field=place)
    uri, mime = file.get("fileUri") or "", file.get("mimeType") or ""
    if uri.startswith(_OWN_FILES):
        raise Unsupported("This model cannot open files that lie at another provider.", field=f"{place}.fileData")
    kind = _kind(mime or mimetypes.guess_type(urlsplit(uri).path)[0] or "")
    return Media(kind=kind, media_type=mime or None, url=uri, name=file.get("displayName"))


def _kind(mime: str) -> Any:
    return _KINDS.get(mime.partition("/")[0], "document")


def _standard(data: str) -> str:
    """Return base64 in the usual letters; Google takes those of URLs too."""
    if "-" in data or "_" in data:
        data = data.replace("-", "+").replace("_", "/")
    return data if len(data) % 4 == 0 else data + "=" * (-len(data) % 4)


def read_signature(given: str | None) -> Signature:
    """Read a `thoughtSignature` that a client sends back."""
    if not given:
        return Signature()
    standard = _standard(given)
    try:
        data = base64.b64decode(standard, validate=True)
    except (binascii.Error, ValueError):
        return Signature(seal=given)
    if data.startswith(_SEAL):
        return Signature(seal=data[len(_SEAL) :].decode(errors="replace"))
    if data.startswith(_REDACTED):
        return Signature(redacted=data[len(_REDACTED) :].decode(errors="replace"))
    return Signature(seal=standard)


def read_answer_part(part: dict[str, Any], call_id: str) -> AnyPart:
    """Read one part of an answer; a call without an id gets `call_id`. Raises TypeError for what is none."""
    signature = part.get("thoughtSignature") or None
    if "functionCall" in part:
        call = part["functionCall"]
        arguments = msgspec.json.encode(call.get("args") or {}).decode()
        given, name = str(call.get("id") or call_id), call.get("name") or ""
        if not isinstance(name, str):
            raise TypeError
        return ToolCall(id=given, name=name, arguments=arguments, signature=signature)
    if isinstance(text := part.get("text"), str):
        if part.get("thought"):
            return Thinking(text=text, signature=signature)
        return Text(text=text, signature=signature)
    if (inline := part.get("inlineData")) is not None:
        mime = inline.get("mimeType") or "application/octet-stream"
        return Media(kind=_kind(mime), media_type=mime, data=inline.get("data") or "", signature=signature)
    return Foreign(dialect=DIALECT, value=part, signature=signature)


# To Gemini.


def write_signature(seal: str | None, redacted: str | None = None) -> dict[str, str]:
    """Write a seal for a client, to whom it is bytes in base64."""
    if redacted is not None:
        return {"thoughtSignature": base64.b64encode(_REDACTED + redacted.encode()).decode()}
    if not seal:
        return {}
    if not _is_base64(seal):
        seal = base64.b64encode(_SEAL + seal.encode()).decode()
    return {"thoughtSignature": seal}


def _is_base64(seal: str) -> bool:
    try:
        return base64.b64encode(base64.b64decode(seal, validate=True)).decode() == seal
    except (binascii.Error, ValueError):
        return False


def write_answer_part(part: AnyPart) -> dict[str, Any] | None:
    """Write one part of an answer; None for what only another form can say."""
    if isinstance(part, Thinking):
        return {"text": part.text, "thought": True} | write_signature(part.signature, part.redacted)
    if isinstance(part, Text | Refusal):
        return {"text": part.text} | write_signature(part.signature)
    if isinstance(part, ToolCall):
        call = ({"id": part.id} if part.id else {}) | {"name": part.name, "args": arguments_of(part)}
        return {"functionCall": call} | write_signature(part.signature)
    if isinstance(part, Media):
        return _write_media(part, "") | write_signature(part.signature)
    return dict(part.value) if isinstance(part, Foreign) and part.dialect == DIALECT else None


def write_part(part: AnyPart, role: Role, place: str) -> dict[str, Any] | None:
    """Write one part of a request; None for what is not said here. Raises `Unsupported` naming `place`.

    Seals of thoughts stay behind: Google seals texts and calls only, and refuses those of others.
    """
    if isinstance(part, Text | Refusal):
        seal = _own_seal(part)
        return {"text": part.text} | seal if part.text or seal else None
    if isinstance(part, Thinking):
        return {"text": part.text, "thought": True} if part.text else None
    if isinstance(part, ToolCall):
        call = {"name": part.name, "args": arguments_of(part)} | ({"id": part.id} if part.id else {})
        return {"functionCall": call} | _own_seal(part)
    if isinstance(part, Media):
        return _write_media(part, place)
    if isinstance(part, Foreign):
        if part.dialect == DIALECT:
            return dict(part.value)
        if role != "assistant":
            raise Unsupported(f"This model does not read this part ({place}).", field=place)
    return None


def _own_seal(part: AnyPart) -> dict[str, str]:
    return {"thoughtSignature": part.signature} if part.signature and _is_base64(part.signature) else {}


def arguments_of(call: ToolCall) -> dict[str, Any]:
    """Return the arguments as an object; text that is none, as of a call that was cut, under one name."""
    if not call.arguments.strip():
        return {}
    try:
        told = msgspec.json.decode(call.arguments)
    except msgspec.DecodeError:
        told = None
    return told if isinstance(told, dict) else {"arguments": call.arguments}


def _write_media(part: Media, place: str) -> dict[str, Any]:
    name = {"displayName": part.name} if part.name and not place else {}
    if part.data is not None:
        return {"inlineData": {"mimeType": part.media_type or _USUAL[part.kind], "data": part.data} | name}
    uri = part.url or part.file_id or ""
    if not uri.startswith(_FILES):
        raise Unsupported(f"This model cannot open this file ({place}).", field=place)
    mime = part.media_type or mimetypes.guess_type(urlsplit(uri).path)[0] or _USUAL[part.kind]
    return {"fileData": {"mimeType": mime, "fileUri": uri} | name}


def write_result(result: ToolResult, name: str, *, inside: bool) -> dict[str, Any]:
    """Write a tool's result; what it shows stands `inside` for models that can see it there."""
    told = "".join(part.text for part in result.content if isinstance(part, Text))
    out: dict[str, Any] = {"name": name, "response": _response(told, is_error=result.is_error)}
    if result.id:
        out["id"] = result.id
    if inside and (shown := write_shown(result)):
        out["parts"] = shown
    return {"functionResponse": out}


def write_shown(result: ToolResult) -> list[dict[str, Any]]:
    """Write what a tool shows beside its words."""
    return [_write_media(part, "messages") for part in result.content if isinstance(part, Media)]


def _response(told: str, *, is_error: bool) -> dict[str, Any]:
    """Return the object that a response must be: the tool's own, or its words under Google's names for them."""
    if is_error:
        return {"error": told}
    if told.lstrip().startswith(("{", "[")):
        try:
            value = msgspec.json.decode(told)
        except msgspec.DecodeError:
            value = told
        return value if isinstance(value, dict) else {"output": value}
    return {"output": told}
