"""The chat-completions JSON form and our own, both ways, as plain functions on decoded JSON.

Source: https://platform.openai.com/docs/api-reference/chat. Half the field speaks this form, so a
provider that answers in it and a dialect that writes it share this file. Fields without a word in our
form are kept in `extra`, parts without one in `Foreign`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, cast

import msgspec

from nexus.llm.errors import Unsupported
from nexus.llm.signatures import beside, found_beside
from nexus.llm.types import (
    AnyPart,
    ChatRequest,
    Choice,
    Chunk,
    Completion,
    FinishReason,
    Foreign,
    Media,
    Message,
    Reasoning,
    Refusal,
    ResponseFormat,
    Role,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolDelta,
    ToolResult,
    Usage,
)

DIALECT = "openai.chat"
_PLAIN = ("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty", "user")
_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "refusal",
}
_NATIVE = frozenset(("stop", "length", "tool_calls", "function_call", "content_filter"))
_FINISH_OUT = {"pause": "stop", "other": "stop", "refusal": "content_filter"}
# Models that refuse a word about reasoning; elsewhere it is a leave to think, which is no loss to them.
_NEVER_REASON = re.compile(r"(?:gpt-3|gpt-4|chatgpt-4)")
_LONGEST_USER = 64


# Requests.


def read_request(body: dict[str, Any]) -> ChatRequest:
    """Read a request whose basic types have been checked."""
    rest = dict(body)
    stop = rest.pop("stop", None)
    maximum, newer = rest.pop("max_tokens", None), rest.pop("max_completion_tokens", None)
    rest.pop("stream", None)
    rest.pop("stream_options", None)
    return ChatRequest(
        dialect=DIALECT,
        model=rest.pop("model"),
        messages=tuple(read_message(message) for message in rest.pop("messages")),
        tools=tuple(_read_tool(tool) for tool in rest.pop("tools", None) or ()),
        tool_choice=_read_tool_choice(rest.pop("tool_choice", None), rest.pop("parallel_tool_calls", None)),
        max_tokens=newer if newer is not None else maximum,
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        choices=rest.pop("n", None) or 1,
        response_format=_read_format(rest.pop("response_format", None)),
        reasoning=Reasoning(effort=effort) if (effort := rest.pop("reasoning_effort", None)) else None,
        extra=rest,
        **{name: rest.pop(name, None) for name in _PLAIN},
    )


def write_request(request: ChatRequest, model: str, *, stream: bool, stream_usage: bool = True) -> dict[str, Any]:
    """Write a request for `model`. Raises `Unsupported` for what only another form has words for."""
    own = request.dialect in ("", DIALECT)
    messages = [m for x in request.messages for m in write_message(x, own=own)]
    body: dict[str, Any] = {"model": model, "messages": messages}
    body |= {name: value for name in _PLAIN if (value := getattr(request, name)) is not None}
    if not own and len(body.get("user", "")) > _LONGEST_USER:
        body["user"] = sha256(body["user"].encode()).hexdigest()
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if request.stop:
        body["stop"] = list(request.stop)
    if request.choices > 1:
        body["n"] = request.choices
    if request.tools:
        body["tools"] = [_write_tool(tool, own=own) for tool in request.tools]
    if request.tool_choice is not None:
        body |= _write_tool_choice(request.tool_choice)
    if request.response_format is not None:
        body["response_format"] = _write_format(request.response_format)
    if request.reasoning is not None and request.reasoning.effort and (own or not _NEVER_REASON.match(model)):
        body["reasoning_effort"] = request.reasoning.effort
    if stream:
        body["stream"] = True
        if stream_usage:
            body["stream_options"] = {"include_usage": True}
    return body | request.extra if own else body


def read_message(message: dict[str, Any]) -> Message:
    """Read one message of either side."""
    rest = dict(message)
    role, content = rest.pop("role", None) or "assistant", rest.pop("content", None)
    if role in ("tool", "function"):
        told = tuple(part for part in _read_content(content) if isinstance(part, Text | Media))
        result = ToolResult(id=rest.pop("tool_call_id", None) or rest.get("name") or "", content=told)
        return Message(role="tool", parts=(result,), name=rest.pop("name", None), extra=rest)
    parts: list[AnyPart] = []
    if thinking := rest.pop("reasoning_content", None):
        parts.append(Thinking(text=thinking))
    parts += _read_content(content)
    if (seal := found_beside(rest)) and parts and isinstance(last := parts[-1], Text):
        parts[-1] = msgspec.structs.replace(last, signature=seal)
    if refusal := rest.pop("refusal", None):
        parts.append(Refusal(text=refusal))
    parts += [_read_call(call) for call in rest.pop("tool_calls", None) or ()]
    name = rest.pop("name", None)
    return Message(role=cast("Role", role), parts=tuple(parts), name=name, extra=rest)


def write_message(message: Message, *, own: bool = True) -> list[dict[str, Any]]:
    """Write one message; tool results stand alone in this form, so one may become several.

    Without `own` the message came in another form, whose further fields stay behind; what its tools
    showed is then said after all results, since a tool's own message may hold words only.
    """
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    parts: list[AnyPart] = [part for part in message.parts if not isinstance(part, ToolResult)]
    if not own:
        parts = [msgspec.structs.replace(part, cache=None) if part.cache else part for part in parts]
        parts = [shown for result in results for shown in result.content if isinstance(shown, Media)] + parts
    written: list[dict[str, Any]] = []
    for result in results:
        told = result.content if own else tuple(Text(text=p.text) for p in result.content if isinstance(p, Text))
        written.append({"role": "tool", "tool_call_id": result.id, "content": _write_content(told)})
    if parts or not written:
        spoken = _write_spoken(message, parts)
        written.append(spoken | message.extra if own else spoken)
    return written


def _write_spoken(message: Message, parts: Sequence[AnyPart]) -> dict[str, Any]:
    said = tuple(part for part in parts if isinstance(part, Text | Media) or _is_said(part, message.role))
    role = "user" if message.role == "tool" else message.role
    out: dict[str, Any] = {"role": role, "content": _write_content(said) if said else None}
    if message.name is not None:
        out["name"] = message.name
    if calls := [_write_call(part) for part in parts if isinstance(part, ToolCall)]:
        out["tool_calls"] = calls
    if refusal := "".join(part.text for part in parts if isinstance(part, Refusal)):
        out["refusal"] = refusal
    if thinking := "".join(part.text for part in parts if isinstance(part, Thinking)):
        out["reasoning_content"] = thinking
    return out


def _is_said(part: AnyPart, role: Role) -> bool:
    """Tell whether this form can say a foreign part; a model's record of what it did elsewhere is left out."""
    if not isinstance(part, Foreign):
        return False
    if part.dialect != DIALECT and role != "assistant":
        kind = part.value.get("type") if isinstance(part.value, dict) else None
        raise Unsupported(f"This model does not read content of type {kind}.", field="messages")
    return part.dialect == DIALECT


def _read_content(content: Any) -> list[AnyPart]:
    if isinstance(content, str):
        return [Text(text=content)]
    return [_read_part(part) for part in content or ()]


def _read_part(part: dict[str, Any]) -> AnyPart:
    kind = part.get("type")
    if kind in ("text", "input_text", "output_text"):
        return Text(text=part["text"], cache=_read_cache(part))
    if kind == "refusal":
        return Refusal(text=part["refusal"])
    if kind == "image_url" and isinstance(image := part.get("image_url"), dict):
        return _media_of_url("image", str(image.get("url", "")), detail=image.get("detail"))
    if kind == "input_audio" and isinstance(audio := part.get("input_audio"), dict):
        return Media(kind="audio", data=audio.get("data"), media_type=f"audio/{audio.get('format', 'wav')}")
    if kind == "file" and isinstance(file := part.get("file"), dict):
        if file.get("file_data"):
            return _media_of_url("document", str(file["file_data"]), name=file.get("filename"))
        return Media(kind="document", file_id=file.get("file_id"), name=file.get("filename"))
    return Foreign(dialect=DIALECT, value=part)


def _read_cache(marked: dict[str, Any]) -> str | None:
    """Read the cache mark that many clients set on parts and tools, though this form's documents have none."""
    mark = marked.get("cache_control")
    return str(mark.get("ttl") or "5m") if isinstance(mark, dict) else None


def _write_cache(mark: str | None) -> dict[str, Any]:
    return {"cache_control": {"type": "ephemeral"} | ({"ttl": mark} if mark != "5m" else {})} if mark else {}


def _media_of_url(kind: Any, url: str, *, detail: str | None = None, name: str | None = None) -> Media:
    head, comma, data = url.partition(",")
    if comma and head.startswith("data:") and head.endswith(";base64"):
        return Media(kind=kind, media_type=head[5:-7] or None, data=data, detail=detail, name=name)
    return Media(kind=kind, url=url, detail=detail, name=name)


def _write_content(parts: tuple[AnyPart, ...]) -> str | list[dict[str, Any]]:
    if all(isinstance(part, Text) and not part.cache for part in parts) and len(parts) <= 1:
        return "".join(part.text for part in parts if isinstance(part, Text))
    return [_write_part(part) for part in parts]


def _write_part(part: AnyPart) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text} | _write_cache(part.cache)
    if isinstance(part, Foreign):
        return dict(part.value)
    assert isinstance(part, Media)
    if part.data is None and (part.kind == "audio" or (part.url is None and part.kind != "document")):
        raise Unsupported(f"This model takes {part.kind} as data only, not by reference.", field="messages")
    url = part.url or f"data:{part.media_type or 'application/octet-stream'};base64,{part.data}"
    if part.kind == "audio":
        return {"type": "input_audio", "input_audio": {"data": part.data, "format": (part.media_type or "/wav")[6:]}}
    if part.kind == "document":
        given = {"file_id": part.file_id} if part.file_id else {"file_data": url}
        return {"type": "file", "file": given | ({"filename": part.name} if part.name else {})}
    return {"type": "image_url", "image_url": {"url": url} | ({"detail": part.detail} if part.detail else {})}


def _read_call(call: dict[str, Any]) -> ToolCall:
    kind = call.get("type") or "function"
    told = call.get(kind) or call.get("function") or {}
    arguments = told.get("arguments", told.get("input", ""))
    given = call.get("id")
    call_id = "" if given is None else str(given)
    return ToolCall(
        id=call_id,
        name=told.get("name") or "",
        arguments=_as_text(arguments),
        kind=kind,
        signature=found_beside(call),
    )


def _as_text(arguments: Any) -> str:
    """Return arguments as the JSON text that this form has for them; some servers give the object itself."""
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode() if arguments else ""


def _write_call(call: ToolCall) -> dict[str, Any]:
    told = "arguments" if call.kind == "function" else "input"
    return {"id": call.id, "type": call.kind, call.kind: {"name": call.name, told: call.arguments}}


def _read_tool(tool: dict[str, Any]) -> Tool:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict):
        return Tool(name=str(tool.get("type", "")), value=tool)
    known = {name: function.get(name) for name in ("description", "parameters", "strict")}
    return Tool(name=function.get("name", ""), cache=_read_cache(tool), **known)


def _write_tool(tool: Tool, *, own: bool) -> dict[str, Any]:
    if tool.value is not None:
        if not own:
            raise Unsupported(f"This model does not have the tool {tool.name}.", field="tools")
        return tool.value
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
    told = {name: value for name, value in function.items() if value is not None}
    return {"type": "function", "function": told} | (_write_cache(tool.cache) if own else {})


def _read_tool_choice(choice: Any, parallel: bool | None) -> ToolChoice | None:
    if choice is None and parallel is None:
        return None
    if isinstance(choice, dict):
        return ToolChoice(mode="tool", name=(choice.get("function") or {}).get("name"), parallel=parallel)
    return ToolChoice(mode=choice or "auto", parallel=parallel)


def _write_tool_choice(choice: ToolChoice) -> dict[str, Any]:
    out: dict[str, Any] = {} if choice.parallel is None else {"parallel_tool_calls": choice.parallel}
    named = {"type": "function", "function": {"name": choice.name}}
    return out | {"tool_choice": named if choice.mode == "tool" else choice.mode}


def _read_format(value: dict[str, Any] | None) -> ResponseFormat | None:
    if value is None:
        return None
    schema = value.get("json_schema") or {}
    return ResponseFormat(
        kind=value.get("type", "text"),
        name=schema.get("name"),
        schema=schema.get("schema"),
        strict=schema.get("strict"),
    )


def _write_format(value: ResponseFormat) -> dict[str, Any]:
    if value.kind != "json_schema":
        return {"type": value.kind}
    told = {"name": value.name or "answer", "schema": value.schema, "strict": value.strict}
    return {"type": "json_schema", "json_schema": {key: item for key, item in told.items() if item is not None}}


# Answers.


def read_usage(usage: Any) -> Usage | None:
    """Read a usage object, also one with missing, null or senseless figures; None when it says nothing."""
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not _count(prompt) and not _count(completion):
        return None
    read, wrote = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    read, wrote = read if isinstance(read, dict) else {}, wrote if isinstance(wrote, dict) else {}
    return Usage(
        input_tokens=_count(prompt),
        output_tokens=_count(completion),
        cache_read_tokens=_count(read.get("cached_tokens", usage.get("prompt_cache_hit_tokens"))),
        cache_write_tokens=_count(read.get("cache_write_tokens", read.get("cache_creation_tokens"))),
        reasoning_tokens=_count(wrote.get("reasoning_tokens")),
        audio_input_tokens=_count(read.get("audio_tokens")),
        audio_output_tokens=_count(wrote.get("audio_tokens")),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def write_usage(usage: Usage) -> dict[str, Any]:
    """Write a usage object."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens, "audio_tokens": usage.audio_input_tokens},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.audio_output_tokens,
        },
    }


def read_finish(reason: Any) -> FinishReason | None:
    """Read a finish reason; unknown words are `other`."""
    return _FINISH.get(reason, "other") if isinstance(reason, str) and reason else None


def write_finish(reason: FinishReason | None, native: str | None = None) -> str | None:
    """Write a finish reason: the provider's own word where this form has it, else the nearest."""
    if native in _NATIVE:
        return native
    return None if reason is None else _FINISH_OUT.get(reason, reason)


def read_completion(body: dict[str, Any]) -> Completion:
    """Read a whole answer."""
    rest = dict(body)
    choices = []
    for position, choice in enumerate(rest.pop("choices")):
        more = dict(choice)
        native = more.pop("finish_reason", None)
        choices.append(
            Choice(
                index=more.pop("index", position),
                message=read_message(more.pop("message", None) or {}),
                finish_reason=read_finish(native),
                native_finish_reason=native,
                extra=more,
            )
        )
    rest.pop("object", None)
    return Completion(
        id=rest.pop("id", None) or "",
        model=rest.pop("model", None) or "",
        created=rest.pop("created", None) or int(time.time()),
        choices=tuple(choices),
        usage=read_usage(rest.pop("usage", None)),
        extra=rest,
    )


def write_completion(completion: Completion) -> dict[str, Any]:
    """Write a whole answer."""
    body = {
        "id": completion.id,
        "object": "chat.completion",
        "created": completion.created,
        "model": completion.model,
        "choices": [
            {
                "index": choice.index,
                "message": {"refusal": None} | _write_answer(choice.message),
                "logprobs": None,
                "finish_reason": write_finish(choice.finish_reason, choice.native_finish_reason),
            }
            for choice in completion.choices
        ],
    }
    return body | ({"usage": write_usage(completion.usage)} if completion.usage is not None else {})


def _write_answer(message: Message) -> dict[str, Any]:
    """Write what was answered: here content is one text, and pictures stand beside it."""
    out = write_message(message)[0]
    if isinstance(out["content"], list):
        shown = [_write_part(part) for part in message.parts if isinstance(part, Media)]
        out |= {"content": message.text or None} | ({"images": shown} if shown else {})
    calls = (part for part in message.parts if isinstance(part, ToolCall))
    for call, part in zip(out.get("tool_calls") or (), calls, strict=True):
        call |= beside(part.signature)
    seals = [part.signature for part in message.parts if isinstance(part, Text) and part.signature]
    return out | beside(seals[-1] if seals else None)


def read_chunk(body: dict[str, Any]) -> list[Chunk]:
    """Read one event of a stream into the pieces that it carries."""
    head: dict[str, Any] = {"id": body.get("id"), "model": body.get("model"), "created": body.get("created")}
    chunks: list[Chunk] = []
    for choice in body.get("choices") or ():
        delta, index = choice.get("delta") or {}, choice.get("index") or 0
        thinking = delta.get("reasoning_content") or delta.get("reasoning")
        chunks.append(
            Chunk(
                index=index,
                role=delta.get("role") or None,
                text=delta.get("content") if isinstance(delta.get("content"), str) else None,
                thinking=thinking if isinstance(thinking, str) else None,
                refusal=delta.get("refusal"),
                finish_reason=read_finish(choice.get("finish_reason")),
                native_finish_reason=choice.get("finish_reason") or None,
                **head,
            )
        )
        for position, call in enumerate(delta.get("tool_calls") or ()):
            function = call.get("function") or {}
            tool = ToolDelta(
                position=call.get("index", position),
                id=call.get("id"),
                name=function.get("name"),
                arguments=_as_text(function.get("arguments")),
                kind=call.get("type"),
                signature=found_beside(call),
            )
            chunks.insert(len(chunks) - 1, Chunk(index=index, tool=tool, **head))
    if (usage := read_usage(body.get("usage"))) is not None:
        chunks.append(Chunk(usage=usage, **head))
    return chunks


def write_delta(chunk: Chunk) -> dict[str, Any]:
    """Write the delta of one piece."""
    delta: dict[str, Any] = {}
    if chunk.role is not None:
        delta["role"] = chunk.role
    if chunk.text is not None:
        delta["content"] = chunk.text
    if chunk.thinking is not None:
        delta["reasoning_content"] = chunk.thinking
    if chunk.refusal is not None:
        delta["refusal"] = chunk.refusal
    if chunk.tool is not None:
        function = {"arguments": chunk.tool.arguments} | ({"name": chunk.tool.name} if chunk.tool.name else {})
        call: dict[str, Any] = {"index": chunk.tool.position, "function": function}
        if chunk.tool.id is not None:
            call |= {"id": chunk.tool.id, "type": chunk.tool.kind or "function"}
        delta["tool_calls"] = [call | beside(chunk.tool.signature)]
    if chunk.text is not None:
        delta |= beside(chunk.signature)
    return delta
