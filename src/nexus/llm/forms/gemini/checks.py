"""What is checked of a Gemini request at the door, whoever will serve it: types, and what the model must be able to do.

Google takes either spelling of a field and numbers in quotes, and so does this. Values are the provider's to
judge.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from nexus.core.errors import MalformedBody
from nexus.llm.errors import InvalidRequest
from nexus.llm.forms.decoding import decode_checked, wrong_field
from nexus.llm.forms.gemini.names import plain
from nexus.llm.types import Need

_KINDS: dict[str, Need] = {"image": "images", "video": "images", "audio": "audio"}


class _Blob(msgspec.Struct, rename="camel"):
    mime_type: str | None = None
    data: str | None = None


class _File(msgspec.Struct, rename="camel"):
    file_uri: str | None = None
    mime_type: str | None = None


class _FunctionCall(msgspec.Struct):
    name: str
    args: dict[str, Any] | None = None
    id: str | None = None


class _Shown(msgspec.Struct, rename="camel"):
    inline_data: _Blob | None = None
    file_data: _File | None = None


class _FunctionResponse(msgspec.Struct):
    name: str
    response: dict[str, Any] | None = None
    id: str | None = None
    parts: list[_Shown] | None = None


class _Part(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    inline_data: _Blob | None = None
    file_data: _File | None = None
    function_call: _FunctionCall | None = None
    function_response: _FunctionResponse | None = None


class _Content(msgspec.Struct):
    role: str | None = None
    parts: list[_Part] | None = None


class _Declaration(msgspec.Struct, rename="camel"):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    parameters_json_schema: dict[str, Any] | None = None


class _Tool(msgspec.Struct, rename="camel"):
    function_declarations: list[_Declaration] | None = None


class _Calling(msgspec.Struct, rename="camel"):
    mode: str | int | None = None
    allowed_function_names: list[str] | None = None


class _ToolConfig(msgspec.Struct, rename="camel"):
    function_calling_config: _Calling | None = None


class _Thinking(msgspec.Struct, rename="camel"):
    include_thoughts: bool | None = None
    thinking_budget: int | None = None
    thinking_level: str | int | None = None


class _Config(msgspec.Struct, rename="camel"):
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    seed: int | None = None
    candidate_count: int | None = None
    max_output_tokens: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop_sequences: list[str] | None = None
    response_mime_type: str | None = None
    response_schema: dict[str, Any] | None = None
    response_json_schema: Any = None
    response_modalities: list[str | int] | None = None
    response_logprobs: bool | None = None
    logprobs: int | None = None
    thinking_config: _Thinking | None = None


class _Body(msgspec.Struct, rename="camel"):
    contents: list[_Content]
    system_instruction: _Content | None = None
    tools: list[_Tool] | None = None
    tool_config: _ToolConfig | None = None
    generation_config: _Config | None = None


_object = msgspec.json.Decoder(dict[str, Any])


class Checked(NamedTuple):
    """A request in plain names, and what is to be known of it; `needs` says which field asks for what."""

    told: dict[str, Any]
    needs: dict[Need, str]
    characters: int
    choices: int
    max_tokens: int | None


def read_body(body: bytes) -> dict[str, Any]:
    """Decode a body into plain names. Raises `MalformedBody`."""
    told = decode_checked(_object, body)
    try:
        found: dict[str, Any] = plain(told)
    except RecursionError:
        raise MalformedBody("The body is nested too deeply.") from None
    return found


def check_request(told: Any) -> Checked:
    """Check a request in plain names. Raises `InvalidRequest` naming the field."""
    try:
        body = msgspec.convert(told, _Body, strict=False)
    except msgspec.ValidationError as error:
        raise wrong_field(str(error)) from None
    if not body.contents:
        raise InvalidRequest("contents must have at least one content.", field="contents")
    config = body.generation_config or _Config()
    if config.candidate_count is not None and config.candidate_count < 1:
        field = "generationConfig.candidateCount"
        raise InvalidRequest(f"{field} must be at least 1.", field=field)
    if body.generation_config is not None:
        read = {name: value for name, value in msgspec.to_builtins(config).items() if value is not None}
        told = told | {"generationConfig": told["generationConfig"] | read}
    needs: dict[Need, str] = {}
    characters = _read_contents(body, needs)
    thinking = config.thinking_config
    asked: tuple[tuple[Need, str, bool], ...] = (
        ("tools", "tools", bool(told.get("tools"))),
        ("choices", "generationConfig.candidateCount", (config.candidate_count or 1) > 1),
        ("json_schema", "generationConfig.responseMimeType", config.response_mime_type == "application/json"),
        ("logprobs", "generationConfig.responseLogprobs", bool(config.response_logprobs)),
        ("reasoning", "generationConfig.thinkingConfig", thinking is not None and thinking.thinking_budget != 0),
    )
    for need, place, wanted in asked:
        if wanted:
            needs.setdefault(need, place)
    return Checked(told, needs, characters, config.candidate_count or 1, config.max_output_tokens)


def _read_contents(body: _Body, needs: dict[Need, str]) -> int:
    """Add what the media of a request need, and return how many characters it has."""
    characters = 0
    contents = [(f"contents.{i}", content) for i, content in enumerate(body.contents)]
    if body.system_instruction is not None:
        contents.append(("systemInstruction", body.system_instruction))
    for place, content in contents:
        for j, part in enumerate(content.parts or ()):
            characters += len(part.text or "")
            here = f"{place}.parts.{j}"
            _read_media(part, needs, here)
            for k, shown in enumerate((part.function_response and part.function_response.parts) or ()):
                _read_media(shown, needs, f"{here}.functionResponse.parts.{k}")
    return characters


def _read_media(part: _Part | _Shown, needs: dict[Need, str], place: str) -> None:
    media = part.inline_data or part.file_data
    if media is not None:
        kind = (media.mime_type or "").partition("/")[0]
        needs.setdefault(_KINDS.get(kind, "documents"), place)
