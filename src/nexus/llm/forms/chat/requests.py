"""Requests and messages of the chat-completions form and our own, both ways, as plain functions on decoded JSON.

Source: https://platform.openai.com/docs/api-reference/chat. Half the field speaks this form, so a
provider that answers in it and a dialect that writes it share this file. Fields without a word in our
form are kept in `extra`, parts without one in `Foreign`.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, cast

import msgspec

from nexus.llm.errors import InvalidRequest, Unsupported
from nexus.llm.forms.cache_marks import marked_for, read_mark, write_mark, write_own_mark
from nexus.llm.forms.call_ids import short_id
from nexus.llm.forms.chat.tools import (
    PLAIN,
    Manner,
    check_choice,
    only_allowed,
    read_call,
    read_choice,
    read_tools,
    write_call,
    write_choice,
    write_tool,
)
from nexus.llm.forms.shown import told_by_user
from nexus.llm.forms.signatures import found_beside
from nexus.llm.forms.unsaid import CHAT, COMPLETIONS, RESPONSES, refuse_unsaid
from nexus.llm.forms.web_search import read_search, search_for
from nexus.llm.forms.wishes import tier_of, verbosity_words
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
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    WebSearch,
)

DIALECT = CHAT
_SEARCH = "web_search_options"
_REASONS = re.compile(r"(?:^|/)(?:o\d|gpt-(?:[5-9]|\d\d)|codex)", re.ASCII)
_LOW, _MEDIUM = 4_096, 8_192
_PLAIN = ("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty", "user")
_BY_URL = {"image_url": "image", "audio_url": "audio", "video_url": "video", "document_url": "document"}

# Sounds by the names that this form has for them.
SOUNDS = {"mpeg": "mp3", "mpga": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav"}

# Models that refuse a word about reasoning; elsewhere it is a leave to think, which is no loss to them.
_NEVER_REASON = re.compile(r"(?:gpt-3|gpt-4|chatgpt-4)")
_LONGEST_USER = 64
# What another form asks for in the same words; a text to be gone on with is asked for in all of them.
_ALIKE = {RESPONSES: ("moderation",)}


# Requests.


class Ways(msgspec.Struct, frozen=True, kw_only=True):
    """What a server of this form wants, where servers differ.

    `stream_usage`: it takes `stream_options`. `reasoning_field`: where earlier reasoning goes back to it, or
    nowhere. `newer_limit`: the limit of output is `max_completion_tokens`; None leaves that to the model's name.
    `rename`: what parameters are called there; nothing for those that it does not know. `document_url`: documents
    have a part of this name, which takes addresses. `cache_control`: it takes marks as Anthropic has them.
    `web_search`: it takes `web_search_options`. `short_ids`: ids of calls are nine letters and digits.
    """

    stream_usage: bool = True
    reasoning_field: str | None = None
    newer_limit: bool | None = None
    rename: dict[str, str] = {}
    document_url: bool = False
    cache_control: bool = False
    web_search: bool = False
    short_ids: bool = False


def read_request(body: dict[str, Any]) -> ChatRequest:
    """Read a request whose basic types have been checked."""
    rest = dict(body)
    stop = rest.pop("stop", None)
    maximum, newer = rest.pop("max_tokens", None), rest.get("max_completion_tokens")
    rest.pop("stream", None)
    rest.pop("stream_options", None)
    wants_logprobs, top = rest.pop("logprobs", None), rest.pop("top_logprobs", None)
    if top and not wants_logprobs:
        raise InvalidRequest("top_logprobs is only allowed with logprobs.", field="top_logprobs")
    choice, parallel = rest.pop("tool_choice", None), rest.pop("parallel_tool_calls", None)
    reasoning = _read_reasoning(rest)
    search = _read_search(rest.pop(_SEARCH, None))
    if all(kind == "text" for kind in rest.get("modalities") or ()):
        rest.pop("modalities", None)
    tools = read_tools(rest.pop("tools", None), rest.pop("functions", None))
    user = rest.pop("user", None)
    chosen = read_choice(choice, parallel, rest.pop("function_call", None))
    check_choice(chosen, tools)
    return ChatRequest(
        dialect=DIALECT,
        model=rest.pop("model"),
        messages=tuple(read_message(message) for message in with_call_ids(rest.pop("messages"))),
        tools=tuple(only_allowed(tools, choice)),
        tool_choice=chosen,
        search=search,
        max_tokens=newer if newer is not None else maximum,
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        choices=rest.pop("n", None) or 1,
        logprobs=(top or 0) if wants_logprobs else None,
        response_format=_read_format(rest.pop("response_format", None)),
        reasoning=reasoning,
        verbosity=rest.pop("verbosity", None),
        service_tier=rest.pop("service_tier", None),
        user=user if user is not None else rest.get("safety_identifier"),
        extra=rest,
        **{name: rest.pop(name, None) for name in _PLAIN if name != "user"},
    )


def _read_search(options: Any) -> WebSearch | None:
    if not isinstance(options, dict):
        return None
    place = options.get("user_location")
    where = place.get("approximate") or {} if isinstance(place, dict) else place
    return read_search(options, where, name=_SEARCH, place=_SEARCH)


def _write_search(search: WebSearch) -> dict[str, Any]:
    where = (
        {"user_location": {"type": "approximate", "approximate": search.location}}
        if search.location is not None
        else {}
    )
    return {_SEARCH: {"search_context_size": search.size} | where}


def _read_reasoning(rest: dict[str, Any]) -> Reasoning | None:
    """Read how much is to be thought, also in the words of some servers, which stay where they are."""
    if effort := rest.pop("reasoning_effort", None):
        return Reasoning(effort=effort)
    if isinstance(told := rest.get("reasoning"), dict):
        effort = "none" if told.get("enabled") is False else told.get("effort")
        return Reasoning(effort=effort, budget_tokens=told.get("max_tokens"))
    if isinstance(told := rest.get("thinking"), dict) and told.get("type") in ("enabled", "adaptive", "disabled"):
        return Reasoning(budget_tokens=0 if told["type"] == "disabled" else told.get("budget_tokens"))
    return None


def write_request(request: ChatRequest, model: str, *, stream: bool, ways: Ways = Ways()) -> dict[str, Any]:  # noqa: B008  frozen
    """Write a request for `model`. Raises `Unsupported` for what this form has no word for."""
    own = request.dialect in ("", DIALECT)
    body: dict[str, Any] = {"model": model, "messages": _write_messages(request, model, own=own, ways=ways)}
    alike = tuple(request.extra) if request.dialect == COMPLETIONS else _ALIKE.get(request.dialect, ())
    refuse_unsaid(request, DIALECT, alike)
    if not own:
        body |= {name: value for name in alike if (value := request.extra.get(name)) is not None}
        _add_verbosity(body, request, model)
    elif request.verbosity is not None:
        body["verbosity"] = request.verbosity
    if (tier := request.service_tier if own else tier_of(request)) is not None:
        body["service_tier"] = tier
    body |= {name: value for name in _PLAIN if (value := getattr(request, name)) is not None}
    if not own and len(body.get("user", "")) > _LONGEST_USER:
        body["user"] = sha256(body["user"].encode()).hexdigest()
    if request.max_tokens is not None and "max_completion_tokens" not in request.extra:
        newer = ways.newer_limit if ways.newer_limit is not None else reasons(model)
        body["max_completion_tokens" if newer else "max_tokens"] = request.max_tokens
    if request.stop:
        body["stop"] = list(request.stop)
    if request.choices > 1:
        body["n"] = request.choices
    if request.logprobs is not None:
        body |= {"logprobs": True} | ({"top_logprobs": request.logprobs} if request.logprobs else {})
    if request.tools:
        body["tools"] = [_write_tool(tool, own=own, marked=own or ways.cache_control) for tool in request.tools]
    if request.tool_choice is not None and request.tools:
        body |= write_choice(request.tool_choice)
    if (search := search_for(request, ("search", "size", "location") if own or ways.web_search else ())) is not None:
        body |= _write_search(search)
    if request.response_format is not None:
        body["response_format"] = _write_format(request.response_format)
    told = own and not request.extra.keys().isdisjoint(("reasoning", "thinking"))
    if request.reasoning is not None and not told and (own or not _NEVER_REASON.match(model)):
        body |= _write_reasoning(request.reasoning, model)
    if stream:
        body["stream"] = True
        if ways.stream_usage:
            body["stream_options"] = {"include_usage": True}
    for name, other in ways.rename.items():
        value = body.pop(name, None)
        if value is not None and other:
            body[other] = value
        elif value is not None and name != "user" and not (name == "parallel_tool_calls" and value is True):
            raise Unsupported(f"This model does not support {name}.", field=name)
    return body | request.extra if own else body


def _add_verbosity(body: dict[str, Any], request: ChatRequest, model: str) -> None:
    """Say how long the answer is to be: as a parameter to models that have one, else in words."""
    if reasons(model):
        body |= {"verbosity": request.verbosity} if request.verbosity is not None else {}
    elif (words := verbosity_words(request)) is not None:
        messages = body["messages"]
        place = next((i for i, said in enumerate(messages) if said["role"] != "system"), len(messages))
        last = messages[place - 1]["content"] if place else None
        if isinstance(last, str):
            messages[place - 1] = {"role": "system", "content": f"{last}\n\n{words}"}
        else:
            messages.insert(place, {"role": "system", "content": words})


def reasons(model: str) -> bool:
    """Tell whether this is one of OpenAI's reasoning models, by its name."""
    return _REASONS.search(model) is not None


def _write_reasoning(reasoning: Reasoning, model: str) -> dict[str, Any]:
    """Write how much is to be thought; a budget of tokens becomes the nearest level, for models that know levels."""
    if reasoning.effort:
        return {"reasoning_effort": reasoning.effort}
    budget = reasoning.budget_tokens
    if budget is None or not reasons(model):
        return {}
    return {"reasoning_effort": "low" if budget <= _LOW else "medium" if budget <= _MEDIUM else "high"}


def _write_tool(tool: Tool, *, own: bool, marked: bool) -> dict[str, Any]:
    if tool.value is not None and not own:
        raise Unsupported(f"This model does not have the tool {tool.name}.", field="tools")
    return write_tool(tool) | (write_mark(tool.cache) if marked and tool.value is None else {})


def _write_messages(request: ChatRequest, model: str, *, own: bool, ways: Ways) -> list[dict[str, Any]]:
    """Write all messages. What tools showed beside words follows all their results, in a message of the user."""
    if own:
        return [written for message in request.messages for written in write_message(message)]
    out: list[dict[str, Any]] = []
    shown: list[AnyPart] = []
    told = told_by_user(request.messages)
    for message in told if ways.cache_control else marked_for(model, told):
        results = [part for part in message.parts if isinstance(part, ToolResult)]
        parts: list[AnyPart] = [part for part in message.parts if not isinstance(part, ToolResult)]
        for part in results:
            words = [Text(text=item.text, cache=item.cache) for item in part.content if isinstance(item, Text)]
            if part.cache and words:
                words[-1] = msgspec.structs.replace(words[-1], cache=part.cache)
            out.append(_write_result(message, part, _write_content(tuple(words))))
            shown += [_media_there(item, ways) for item in part.content if isinstance(item, Media)]
        if results and parts:
            parts, shown = shown + parts, []
        elif shown and not results:
            out.append({"role": "user", "content": _write_content(tuple(shown))})
            shown = []
        spoken = _write_foreign(message, parts, ways)
        if spoken != {"role": "assistant", "content": None} and (parts or not results):
            out.append(spoken)
    if ways.short_ids:
        _shorten_ids(out)
    return [*out, {"role": "user", "content": _write_content(tuple(shown))}] if shown else out


def _shorten_ids(messages: list[dict[str, Any]]) -> None:
    for message in messages:
        if "tool_call_id" in message:
            message["tool_call_id"] = short_id(message["tool_call_id"])
        for call in message.get("tool_calls") or ():
            call["id"] = short_id(call["id"])


def _write_foreign(message: Message, parts: Sequence[AnyPart], ways: Ways) -> dict[str, Any]:
    """Write a message that came in another form; that form's words for servers of its own stay behind."""
    there = [_media_there(part, ways) if isinstance(part, Media) else part for part in parts]
    out = write_spoken(message, [part for part in there if not isinstance(part, Thinking)])
    if message.role == "developer":
        out["role"] = "system"
    thinking = "".join(part.text for part in parts if isinstance(part, Thinking))
    return out | ({ways.reasoning_field: thinking} if thinking and ways.reasoning_field else {})


def _media_there(part: Media, ways: Ways) -> Media | Foreign:
    """Put a document into the part that the server has for it, where that is one of its own."""
    if part.kind != "document" or part.file_id or not ways.document_url:
        return part
    value = {"type": "document_url", "document_url": _url_of(part)}
    return Foreign(dialect=DIALECT, value=value | ({"document_name": part.name} if part.name else {}))


def name_of(part: Media) -> str | None:
    """Return a document's name; OpenAI wants one for every document that comes as data."""
    if part.name or part.data is None:
        return part.name
    return f"document{mimetypes.guess_extension(part.media_type or '') or ''}"


def _url_of(part: Media) -> str:
    return part.url or f"data:{part.media_type or 'application/octet-stream'};base64,{part.data}"


def with_call_ids(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the calls of the older form, and what they returned, the ids that they lack."""
    out: list[dict[str, Any]] = []
    count = 0
    for message in messages:
        if isinstance(call := message.get("function_call"), dict):
            count += 1
            calls = [{"id": f"call_{count}", "type": "function", "function": call}]
            message = {name: value for name, value in message.items() if name != "function_call"}
            message["tool_calls"] = calls
        elif message.get("role") == "function":
            message = message | {"role": "tool", "tool_call_id": f"call_{count}"}
        out.append(message)
    return out


def read_message(message: dict[str, Any]) -> Message:
    """Read one message of either side."""
    rest = dict(message)
    role, content = rest.pop("role", None) or "assistant", rest.pop("content", None)
    if role in ("tool", "function"):
        told = tuple(part for part in read_content(content) if isinstance(part, Text | Media))
        result = ToolResult(id=rest.pop("tool_call_id", None) or rest.get("name") or "", content=told)
        return Message(role="tool", parts=(result,), name=rest.pop("name", None), extra=rest)
    parts: list[AnyPart] = []
    thinking = rest.pop("reasoning_content", None) or rest.pop("reasoning", None)
    if isinstance(thinking, str) and thinking:
        parts.append(Thinking(text=thinking))
    parts += read_content(content)
    parts += [read_part(image) for image in rest.pop("images", None) or () if isinstance(image, dict)]
    if (seal := found_beside(rest)) and parts and isinstance(last := parts[-1], Text):
        parts[-1] = msgspec.structs.replace(last, signature=seal)
    if refusal := rest.pop("refusal", None):
        parts.append(Refusal(text=refusal))
    parts += [read_call(call) for call in rest.pop("tool_calls", None) or ()]
    name = rest.pop("name", None)
    return Message(role=cast("Role", role), parts=tuple(parts), name=name, extra=rest)


def write_message(message: Message) -> list[dict[str, Any]]:
    """Write one message; tool results stand alone in this form, so one may become several."""
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    written = [_write_result(message, part, _write_content(part.content)) for part in results]
    parts = [part for part in message.parts if not isinstance(part, ToolResult)]
    if parts or not written:
        written.append(write_spoken(message, parts) | message.extra)
    return written


def _write_result(message: Message, part: ToolResult, content: Any) -> dict[str, Any]:
    """Write what a tool returned; some clients name the tool."""
    named = {"name": message.name} if message.name is not None else {}
    return {"role": "tool", "tool_call_id": part.id, **named, "content": content}


def write_spoken(message: Message, parts: Sequence[AnyPart], manner: Manner = PLAIN) -> dict[str, Any]:
    """Write a message of these parts, calls in the client's `manner`."""
    said = tuple(part for part in parts if isinstance(part, Text | Media) or _is_said(part, message.role))
    role = "user" if message.role == "tool" else message.role
    out: dict[str, Any] = {"role": role, "content": _write_content(said) if said else None}
    if message.name is not None:
        out["name"] = message.name
    if calls := [write_call(part, manner) for part in parts if isinstance(part, ToolCall)]:
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


def read_content(content: Any) -> list[AnyPart]:
    """Read a content: a text, or parts. Some servers answer with the object that they were asked for as JSON."""
    if isinstance(content, str):
        return [Text(text=content)]
    if isinstance(content, dict):
        return [Text(text=msgspec.json.encode(content).decode())]
    return [read_part(part) for part in content or ()]


def read_part(part: dict[str, Any]) -> AnyPart:
    """Read one part of a content."""
    kind, mark = part.get("type"), read_mark(part)
    if kind in ("text", "input_text", "output_text"):
        return Text(text=part["text"], cache=mark)
    if kind == "refusal":
        return Refusal(text=part["refusal"])
    if kind == "thinking" and isinstance(told := part.get("thinking"), list):
        return Thinking(text="".join(str(item.get("text") or "") for item in told if isinstance(item, dict)))
    if (medium := _BY_URL.get(str(kind))) and (given := part.get(str(kind))):
        told = given if isinstance(given, dict) else {"url": given}
        name = part.get("document_name")
        return _media_of_url(medium, str(told.get("url", "")), detail=told.get("detail"), name=name, cache=mark)
    if kind == "input_audio" and isinstance(audio := part.get("input_audio"), dict):
        form = f"audio/{audio.get('format', 'wav')}"
        return Media(kind="audio", data=audio.get("data"), media_type=form, cache=mark)
    if kind == "file" and isinstance(file := part.get("file"), dict):
        if file.get("file_data"):
            return _media_of_url("document", str(file["file_data"]), name=file.get("filename"), cache=mark)
        return Media(kind="document", file_id=file.get("file_id"), name=file.get("filename"), cache=mark)
    return Foreign(dialect=DIALECT, value=part)


def _media_of_url(kind: Any, url: str, **more: str | None) -> Media:
    head, comma, data = url.partition(",")
    if comma and head.startswith("data:") and head.endswith(";base64"):
        return Media(kind=kind, media_type=head[5:-7] or None, data=data, **more)
    return Media(kind=kind, url=url, **more)


def _write_content(parts: tuple[AnyPart, ...]) -> str | list[dict[str, Any]]:
    if all(isinstance(part, Text) and not part.cache for part in parts) and len(parts) <= 1:
        return "".join(part.text for part in parts if isinstance(part, Text))
    return [write_part(part) for part in parts]


def write_part(part: AnyPart) -> dict[str, Any]:
    """Write one part of a content. Raises `Unsupported` for media in a way that this form does not know."""
    if isinstance(part, Text):
        return {"type": "text", "text": part.text} | write_own_mark(part.cache)
    if isinstance(part, Foreign):
        return dict(part.value)
    assert isinstance(part, Media)
    if part.data is None and (part.kind == "audio" or (part.url is None and part.kind != "document")):
        raise Unsupported(f"This model takes {part.kind} as data only, not by reference.", field="messages")
    url = _url_of(part)
    if part.kind == "audio":
        sound = {"data": part.data, "format": SOUNDS.get(form := (part.media_type or "/wav")[6:], form)}
        return {"type": "input_audio", "input_audio": sound} | write_own_mark(part.cache)
    if part.kind == "document":
        given = {"file_id": part.file_id} if part.file_id else {"file_data": url}
        name = {"filename": told} if (told := name_of(part)) else {}
        return {"type": "file", "file": given | name} | write_own_mark(part.cache)
    kind = "video_url" if part.kind == "video" else "image_url"
    place = {"url": url} | ({"detail": part.detail} if part.detail else {})
    return {"type": kind, kind: place} | write_own_mark(part.cache)


def _read_format(value: dict[str, Any] | None) -> ResponseFormat | None:
    if value is None:
        return None
    kind, schema = value.get("type", "text"), value.get("json_schema") or {}
    if kind == "json" and isinstance(value.get("value"), dict):
        # As text-generation-inference has it.
        return ResponseFormat(kind="json_schema", schema=value["value"])
    return ResponseFormat(
        kind="json_object" if kind == "json" else kind,
        name=schema.get("name"),
        description=schema.get("description"),
        schema=schema.get("schema"),
        strict=schema.get("strict"),
    )


def _write_format(value: ResponseFormat) -> dict[str, Any]:
    if value.kind != "json_schema":
        return {"type": value.kind}
    told = {
        "name": value.name or "answer",
        "description": value.description,
        "schema": value.schema,
        "strict": value.strict,
    }
    return {"type": "json_schema", "json_schema": {key: item for key, item in told.items() if item is not None}}
