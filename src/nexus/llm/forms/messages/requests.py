"""Requests in the Messages JSON form and in our own, both ways, as plain functions on decoded JSON.

Source: https://platform.claude.com/docs/en/api/messages. What is answered to them is in `messages.answers`.
Fields without a word in our form are kept in `extra`, blocks without one in `Foreign`.
"""

from __future__ import annotations

import base64
import functools
import re
from typing import Any, NamedTuple

import msgspec

from nexus.llm.errors import InvalidRequest, Unsupported
from nexus.llm.forms.cache_marks import read_mark, write_mark
from nexus.llm.forms.messages.blocks import read_block, read_content
from nexus.llm.forms.messages.claude import claude, effort_of, refuse_sampling, thinking_fields
from nexus.llm.forms.messages.schemas import for_claude
from nexus.llm.forms.messages.searches import write_search
from nexus.llm.forms.shown import told_by_user
from nexus.llm.forms.unsaid import MESSAGES, as_client_says, refuse_fields, refuse_unsaid
from nexus.llm.forms.web_search import search_for
from nexus.llm.forms.wishes import json_words, tier_of, verbosity_words
from nexus.llm.types import (
    AnyPart,
    ChatRequest,
    Foreign,
    Media,
    Message,
    Reasoning,
    Refusal,
    ResponseFormat,
    Role,
    Searched,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

DIALECT = MESSAGES
_CHOICES_IN = {"auto": "auto", "any": "required", "tool": "tool", "none": "none"}
_CHOICES_OUT = {"auto": "auto", "required": "any", "tool": "tool", "none": "none"}
_EFFORT_IN = {"max": "xhigh"}
_THINKS = frozenset(("enabled", "adaptive", "between_tools"))
_SAID, _SYSTEM = ("role", "content"), ("role", "content", "clear_at", "output_config")
# What a tool may have; the hints are about how it is offered and how its input comes.
_TOOL = frozenset(("type", "name", "description", "input_schema", "strict", "cache_control", "input_examples"))
_TOOL_HINTS = frozenset(("defer_loading", "eager_input_streaming", "allowed_callers"))
_PICTURES = {"image/jpg": "image/jpeg"}
_NOT_IN_AN_ID = re.compile(r"[^a-zA-Z0-9_-]")
_SEAL = re.compile(r"[A-Za-z0-9+/=_-]+")
# This form has a tier for those who have bought one, and takes it by itself unless told otherwise.
_TIERS = {"priority": "auto"}


# Read.


def read_request(body: dict[str, Any]) -> ChatRequest:
    """Read a request whose basic types have been checked."""
    rest = dict(body)
    rest.pop("stream", None)
    system, metadata = rest.pop("system", None), rest.pop("metadata", None)
    output = rest.pop("output_config", None) or {}
    refuse_fields(output, ("effort", "format"), (), "output_config.")
    messages = [Message(role="system", parts=tuple(read_content(system, "system")))] if system else []
    given = rest.pop("messages")
    turn = _turn_of(given)
    for i, message in enumerate(given):
        messages += read_message(message, f"messages.{i}", over=i < turn)
    if mark := read_mark(rest):
        messages[-1] = _marked(messages[-1], mark)
    rest.pop("cache_control", None)
    return ChatRequest(
        dialect=DIALECT,
        model=rest.pop("model"),
        messages=tuple(messages),
        places=functools.partial(_places, body),
        tools=tuple(_read_tool(tool, f"tools.{i}") for i, tool in enumerate(rest.pop("tools", None) or ())),
        tool_choice=_read_tool_choice(rest.pop("tool_choice", None)),
        max_tokens=rest.pop("max_tokens", None),
        temperature=rest.pop("temperature", None),
        top_p=rest.pop("top_p", None),
        top_k=rest.pop("top_k", None),
        stop=tuple(rest.pop("stop_sequences", None) or ()),
        response_format=_read_format(output.get("format") or rest.pop("output_format", None)),
        reasoning=_read_reasoning(rest.pop("thinking", None), _effort_of(given, output)),
        user=metadata.get("user_id") if isinstance(metadata, dict) else None,
        extra=rest,
    )


def _is_silent(message: dict[str, Any], *, over: bool) -> bool:
    """Tell whether a system message says nothing (any more)."""
    return message.get("content") is None or (over and message.get("clear_at") == "next_user_message")


def _turn_of(messages: list[dict[str, Any]]) -> int:
    """Return which message began the turn that is to be answered: the last of the user's."""
    return max((i for i, message in enumerate(messages) if message["role"] == "user"), default=0)


def _effort_of(messages: list[dict[str, Any]], output: dict[str, Any]) -> str | None:
    """Return the effort asked for: in this turn by a system message, else by the request."""
    told = output.get("effort")
    for message in messages[_turn_of(messages) :]:
        if isinstance(config := message.get("output_config"), dict) and message["role"] == "system":
            told = config.get("effort") or told
    return told if isinstance(told, str) else None


def read_message(message: dict[str, Any], place: str = "message", *, over: bool = False) -> list[Message]:
    """Read one message; tool results stand alone in our form, so one may become two.

    With `over` its turn is: a system message that was for its own turn only is shown no more.
    """
    system = message["role"] == "system"
    refuse_fields(message, _SYSTEM if system else _SAID, (), f"{place}.")
    refuse_fields(message.get("output_config") or {}, ("effort",), (), f"{place}.output_config.")
    if system and _is_silent(message, over=over):
        return []
    parts = [_remembered(part, place) for part in read_content(message.get("content"), f"{place}.content")]
    results = tuple(part for part in parts if isinstance(part, ToolResult))
    said = tuple(part for part in parts if not isinstance(part, ToolResult))
    found = [Message(role="tool", parts=results)] if results else []
    return [*found, Message(role=message["role"], parts=said)] if said or not results else found


def _places(body: dict[str, Any]) -> list[list[str]]:
    """Return what the client calls each part of the messages that `read_request` makes of its body."""
    places = [[there for there, _ in _placed(body["system"], "system")]] if body.get("system") else []
    turn = _turn_of(body["messages"])
    for i, message in enumerate(body["messages"]):
        if message["role"] == "system" and _is_silent(message, over=i < turn):
            continue
        found = _placed(message.get("content"), f"messages.{i}.content")
        results = [there for there, part in found if isinstance(part, ToolResult)]
        said = [there for there, part in found if not isinstance(part, ToolResult)]
        places += [results] if results else []
        places += [said] if said or not results else []
    return places


def _placed(content: Any, place: str) -> list[tuple[str, AnyPart]]:
    if isinstance(content, str):
        return [(place, Text(text=content))]
    return [(f"{place}.{i}", part) for i, block in enumerate(content or ()) for part in read_block(block)]


def _marked(message: Message, mark: str) -> Message:
    """Return the last message of a request that is to be kept in a cache as far as it goes."""
    if not message.parts or isinstance(last := message.parts[-1], Thinking | Foreign) or last.cache:
        return message
    return msgspec.structs.replace(message, parts=(*message.parts[:-1], msgspec.structs.replace(last, cache=mark)))


def _remembered(part: AnyPart, place: str) -> AnyPart:
    """Let the summary in the place of an older conversation be words. Raises `Unsupported` for a sealed one."""
    if not isinstance(part, Foreign) or part.value.get("type") != "compaction":
        return part
    if isinstance(summary := part.value.get("content"), str):
        return Text(text=summary, cache=read_mark(part.value))
    if part.value.get("encrypted_content"):
        raise Unsupported("This model cannot read this summary.", field=f"{place}.content")
    return part


def _read_tool(tool: dict[str, Any], place: str) -> Tool:
    if (tool.get("type") or "custom") != "custom":
        return Tool(name=str(tool.get("name") or tool["type"]), value=tool)
    refuse_fields(tool, _TOOL, _TOOL_HINTS, f"{place}.")
    callers = tool.get("allowed_callers")
    if isinstance(callers, list) and callers and "direct" not in callers:
        raise Unsupported("This model calls its tools itself.", field=f"{place}.allowed_callers")
    described = tool.get("description")
    if isinstance(examples := tool.get("input_examples"), list) and examples:
        shown = "\n".join(msgspec.json.encode(example).decode() for example in examples)
        described = f"{described or ''}\n\nExamples of its input:\n{shown}".lstrip()
    return Tool(
        name=tool.get("name") or "",
        description=described,
        parameters=tool.get("input_schema"),
        strict=tool.get("strict"),
        cache=read_mark(tool),
    )


def _read_tool_choice(choice: dict[str, Any] | None) -> ToolChoice | None:
    if choice is None:
        return None
    mode: Any = _CHOICES_IN.get(str(choice.get("type")))
    if mode is None:
        told = f"tool_choice.type must be one of {', '.join(_CHOICES_IN)}."
        raise InvalidRequest(told, field="tool_choice.type")
    parallel = False if choice.get("disable_parallel_tool_use") else None
    return ToolChoice(mode=mode, name=choice.get("name") if mode == "tool" else None, parallel=parallel)


def _read_format(value: dict[str, Any] | None) -> ResponseFormat | None:
    if not value:
        return None
    return ResponseFormat(kind="json_schema", schema=value.get("schema"), strict=True)


def _read_reasoning(thinking: dict[str, Any] | None, effort: str | None) -> Reasoning | None:
    """Read leave to think and effort; a budget also becomes the effort that comes nearest to it."""
    told = thinking or {}
    level = _EFFORT_IN.get(effort, effort) if effort else None
    if told.get("type") == "disabled":
        return Reasoning(effort=level, budget_tokens=0)
    if told and told.get("type") not in _THINKS:
        raise InvalidRequest("thinking.type is none that is known here.", field="thinking.type")
    budget = told.get("budget_tokens") if told.get("type") == "enabled" else None
    if budget is not None and level is None:
        level = effort_of(budget)
    if thinking is None and level is None:
        return None
    shown = None if thinking is None else "none" if told.get("display") == "omitted" else "auto"
    return Reasoning(effort=level, budget_tokens=budget, summary=shown)


# Write.


class _Turn(NamedTuple):
    role: str
    content: list[dict[str, Any]]


def write_request(request: ChatRequest, model: str, *, stream: bool) -> dict[str, Any]:
    """Write a request for `model`. Raises `Unsupported` naming what this form has no words for."""
    try:
        return _write_request(request, model, stream=stream)
    except InvalidRequest as error:
        raise as_client_says(error, request) from None


def _write_request(request: ChatRequest, model: str, *, stream: bool) -> dict[str, Any]:
    own = request.dialect in ("", DIALECT)
    _refuse(request)
    system, turns = _write_messages(request)
    if (words := verbosity_words(request)) is not None:
        system.append({"type": "text", "text": words})
    thinking = _write_reasoning(request, model, turns)
    unasked = claude(model).answer_tokens + thinking.get("thinking", {}).get("budget_tokens", 0)
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": unasked if request.max_tokens is None else request.max_tokens,
        "messages": [{"role": turn.role, "content": turn.content} for turn in turns],
    }
    if system:
        body["system"] = _plain_if_one(system)
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    if request.tools:
        body["tools"] = [_write_tool(tool, own=own) for tool in request.tools]
    if (search := search_for(request, ("search", "domains", "location"))) is not None:
        body["tools"] = [*body.get("tools", ()), write_search(search)]
    if "tools" in body and request.tool_choice is not None:
        body["tool_choice"] = _write_tool_choice(request.tool_choice)
    if request.user is not None:
        body["metadata"] = {"user_id": request.user}
    if (tier := tier_of(request)) is not None:
        if tier not in _TIERS:
            raise Unsupported(f"The model {request.model} has no service tier {tier}.", field="service_tier")
        body["service_tier"] = _TIERS[tier]
    if stream:
        body["stream"] = True
    _add_output(body, request, thinking)
    _add_sampling(body, request)
    return body | request.extra if own else body


def _refuse(request: ChatRequest) -> None:
    asked: dict[str, Any] = {
        "n": request.choices > 1,
        "logprobs": request.logprobs is not None,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "seed": request.seed is not None,
    }
    refuse_unsaid(request, DIALECT)
    for field, value in asked.items():
        if value:
            raise Unsupported(f"The model {request.model} does not support {field}.", field=field)


def _write_messages(request: ChatRequest) -> tuple[list[dict[str, Any]], list[_Turn]]:
    """Write system prompts and turns: roles alternate, results of tools come first in theirs."""
    system: list[dict[str, Any]] = []
    turns: list[_Turn] = []
    for i, message in enumerate(told_by_user(request.messages)):
        blocks = [
            block
            for j, part in enumerate(message.parts)
            if (block := _write_part(part, message.role, f"messages.{i}.content.{j}")) is not None
        ]
        if message.role in ("system", "developer"):
            if any(block["type"] != "text" for block in blocks):
                raise Unsupported("A system prompt has only text.", field=f"messages.{i}.content")
            system += blocks
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1].role == role:
            turns[-1].content.extend(blocks)
        elif blocks:
            turns.append(_Turn(role, blocks))
    if request.messages and request.messages[-1].role == "user" and (not turns or turns[-1].role == "assistant"):
        # A question without words: this form has no empty text, and without a turn the answer before would go on.
        turns.append(_Turn("user", [{"type": "text", "text": "."}]))
    for turn in turns:
        if turn.role == "user":
            turn.content.sort(key=lambda block: block["type"] != "tool_result")
    if not turns and system:
        turns.append(_Turn("user", [system.pop()]))
    if turns and turns[-1].role == "assistant" and turns[-1].content[-1]["type"] == "text":
        # The beginning of the answer, which must not end in white space.
        turns[-1].content[-1]["text"] = turns[-1].content[-1]["text"].rstrip()
    if request.response_format is not None and request.response_format.kind == "json_object":
        system.append({"type": "text", "text": json_words(request.response_format)})
    return system, turns


def _plain_if_one(blocks: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    return blocks[0]["text"] if len(blocks) == 1 and blocks[0].keys() == {"type", "text"} else blocks


def _write_part(part: AnyPart, role: Role, place: str) -> dict[str, Any] | None:
    """Write one part; None for what has nothing to say here."""
    block: dict[str, Any]
    if isinstance(part, Text | Refusal):
        if not part.text.strip():
            return None
        block = {"type": "text", "text": part.text}
    elif isinstance(part, Thinking):
        return _write_thinking(part)
    elif isinstance(part, ToolCall):
        given = read_arguments(part.arguments)
        block = {"type": "tool_use", "id": _tool_id(part.id), "name": part.name, "input": given}
    elif isinstance(part, ToolResult):
        block = _write_result(part, role, place)
    elif isinstance(part, Media):
        block = _write_media(part, place)
    elif isinstance(part, Searched):
        return None
    elif part.dialect == DIALECT:
        return dict(part.value)
    elif role == "assistant":
        return None
    else:
        kind = part.value.get("type") if isinstance(part.value, dict) else None
        raise Unsupported(f"This model does not read content of type {kind}.", field=place)
    return block | write_mark(part.cache)


def _write_thinking(part: Thinking) -> dict[str, Any] | None:
    """Write thoughts; those without a seal, or with one of another look, are another model's and not taken back."""
    if part.redacted is not None:
        return {"type": "redacted_thinking", "data": part.redacted} if _SEAL.fullmatch(part.redacted) else None
    sealed = part.signature is not None and _SEAL.fullmatch(part.signature)
    return {"type": "thinking", "thinking": part.text, "signature": part.signature} if sealed else None


def _write_result(part: ToolResult, role: Role, place: str) -> dict[str, Any]:
    blocks = [block for told in part.content if (block := _write_part(told, role, place)) is not None]
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": _tool_id(part.id)}
    if blocks:
        result["content"] = _plain_if_one(blocks)
    return result | ({"is_error": True} if part.is_error else {})


def _write_media(part: Media, field: str) -> dict[str, Any]:
    if part.kind not in ("image", "document"):
        raise Unsupported(f"This model does not read {part.kind}.", field=field)
    block: dict[str, Any] = {"type": part.kind, "source": _write_source(part, field)}
    return block | ({"title": part.name} if part.name and part.kind == "document" else {})


def _write_source(part: Media, field: str) -> dict[str, Any]:
    if part.file_id is not None:
        return {"type": "file", "file_id": part.file_id}
    if part.data is None:
        if not (part.url or "").startswith(("https://", "http://")):
            raise InvalidRequest(f"{field}: a URL must be http(s), or data with a media type and base64.", field=field)
        return {"type": "url", "url": part.url}
    kind = _PICTURES.get(part.media_type or "", part.media_type)
    if part.kind == "image" or kind in ("application/pdf", None):
        return {"type": "base64", "media_type": kind or "application/pdf", "data": part.data}
    if kind.startswith("text/") or kind == "application/json":
        try:
            return {"type": "text", "media_type": "text/plain", "data": base64.b64decode(part.data).decode()}
        except ValueError:
            raise InvalidRequest(f"{field}: this document is no base64 of UTF-8 text.", field=field) from None
    raise Unsupported(f"This model does not read documents of type {kind}.", field=field)


def read_arguments(arguments: str) -> dict[str, Any]:
    """Return a call's arguments as the object that this form wants, also where the model wrote none."""
    try:
        found = msgspec.json.decode(arguments) if arguments.strip() else {}
    except (msgspec.DecodeError, RecursionError):
        found = arguments
    return found if isinstance(found, dict) else {"input": found}


def _tool_id(call_id: str) -> str:
    return _NOT_IN_AN_ID.sub("_", call_id) or "toolu_0"


def _write_tool(tool: Tool, *, own: bool) -> dict[str, Any]:
    if tool.value is not None:
        if not own:
            raise Unsupported(f"This model does not have the tool {tool.name}.", field="tools")
        return tool.value
    schema = {"type": "object"} | (tool.parameters or {"properties": {}})
    out: dict[str, Any] = {"name": tool.name, "input_schema": schema}
    if tool.description is not None:
        out["description"] = tool.description
    if tool.strict:
        out["strict"] = True
        out["input_schema"] = schema if own else for_claude(schema)
    return out | write_mark(tool.cache)


def _write_tool_choice(choice: ToolChoice) -> dict[str, Any]:
    out: dict[str, Any] = {"type": _CHOICES_OUT[choice.mode]}
    if choice.mode == "tool":
        if not choice.name:
            raise Unsupported("This model cannot be held to a choice of tools.", field="tool_choice")
        out["name"] = choice.name
    return out | ({"disable_parallel_tool_use": True} if choice.parallel is False and choice.mode != "none" else {})


def _write_reasoning(request: ChatRequest, model: str, turns: list[_Turn]) -> dict[str, Any]:
    if request.reasoning is None:
        return {}
    bound = request.tool_choice is not None and request.tool_choice.mode in ("required", "tool")
    free = not bound and not _lacks_thoughts(turns)
    return thinking_fields(request.reasoning, model, max_tokens=request.max_tokens, free=free)


def _lacks_thoughts(turns: list[_Turn]) -> bool:
    """Tell whether results of tools are on their way to an answer that no longer has its sealed thoughts."""
    if len(turns) < 2 or turns[-1].content[0]["type"] != "tool_result":
        return False
    return turns[-2].content[0]["type"] not in ("thinking", "redacted_thinking")


def _add_output(body: dict[str, Any], request: ChatRequest, thinking: dict[str, Any]) -> None:
    config: dict[str, Any] = {}
    if "thinking" in thinking:
        body["thinking"] = thinking["thinking"]
    if "effort" in thinking:
        config["effort"] = thinking["effort"]
    wanted = request.response_format
    if wanted is not None and wanted.kind == "json_schema":
        config["format"] = {"type": "json_schema", "schema": for_claude(wanted.described)}
    if config:
        body["output_config"] = config


def _add_sampling(body: dict[str, Any], request: ChatRequest) -> None:
    """Add what steers the choice of words. This form's temperature ends at 1, so what is hotter becomes 1.

    A `top_p` of 1 beside a temperature says nothing, and some models refuse the two together. Raises `Unsupported`
    for what a model does not take while it thinks.
    """
    if body.get("thinking", {}).get("type") in ("enabled", "adaptive"):
        refuse_sampling(request)
    if request.temperature is not None:
        body["temperature"] = min(request.temperature, 1)
    if request.top_p is not None and not (request.top_p == 1 and "temperature" in body):
        body["top_p"] = request.top_p
    if request.top_k is not None:
        body["top_k"] = request.top_k
