"""Checks of a chat-completions request that is to be read into our own form, with errors that name the field.

A request that stays in its form is the provider's to judge; one that is translated must have the types
that the translation relies on. Servers of this form differ, so only what is wrong everywhere is refused.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nexus.llm.forms.decoding import decode_checked


class _Named(msgspec.Struct):
    name: str | None = None


class _Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Tool(msgspec.Struct):
    type: str = "function"
    function: _Function | None = None


class _Choice(msgspec.Struct):
    type: str = "function"
    function: _Named | None = None
    custom: _Named | None = None


class _Call(msgspec.Struct):
    id: str | int | None = None
    type: str | None = None
    function: _Named | None = None
    custom: _Named | None = None


class _Url(msgspec.Struct):
    url: str
    detail: str | None = None


class _Sound(msgspec.Struct):
    data: str
    format: str = "wav"


class _File(msgspec.Struct):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class _Part(msgspec.Struct):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: _Url | str | None = None
    input_audio: _Sound | None = None
    file: _File | None = None


class _Message(msgspec.Struct):
    role: str | None = None
    content: str | list[_Part] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    function_call: _Named | None = None


class _Schema(msgspec.Struct):
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class _Format(msgspec.Struct):
    type: str = "text"
    json_schema: _Schema | None = None


class _Request(msgspec.Struct):
    messages: list[_Message]
    tools: list[_Tool] | None = None
    functions: list[_Function] | None = None
    tool_choice: str | _Choice | None = None
    function_call: str | _Named | None = None
    parallel_tool_calls: bool | None = None
    response_format: _Format | None = None
    reasoning_effort: str | None = None
    top_k: int | None = None
    top_logprobs: int | None = None
    logprobs: bool | None = None
    seed: int | None = None
    user: str | None = None


_request = msgspec.json.Decoder(_Request)
_any = msgspec.json.Decoder()


def checked(body: bytes) -> dict[str, Any]:
    """Decode a request whose basic types have been checked. Raises `InvalidRequest` naming the field."""
    decode_checked(_request, body)
    request: dict[str, Any] = _any.decode(body)
    return request
