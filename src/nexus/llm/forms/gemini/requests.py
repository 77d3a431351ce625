"""Gemini's requests and our own form, both ways, as plain functions on decoded JSON.

Source: https://ai.google.dev/api/generate-content, and the types of the google-genai SDK. What another form
cannot say is refused by the name of its field; hints that change no answer (safety thresholds, labels) are
left behind.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import msgspec

from nexus.llm.errors import InvalidRequest, Unsupported
from nexus.llm.forms.gemini.names import json_schema
from nexus.llm.forms.gemini.parts import (
    DIALECT,
    CallNames,
    read_media,
    read_signature,
    write_part,
    write_result,
    write_shown,
)
from nexus.llm.forms.unsaid import as_client_says, refuse_fields, refuse_unsaid
from nexus.llm.forms.web_search import search_for
from nexus.llm.forms.wishes import check_effort, tier_of, verbosity_words
from nexus.llm.types import (
    AnyPart,
    ChatRequest,
    Message,
    Reasoning,
    ResponseFormat,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

_BODY = frozenset(("contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "model", "serviceTier"))
_BODY_HINTS = frozenset(("safetySettings", "labels", "store"))
_CONFIG = {
    "temperature": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "seed": "seed",
    "maxOutputTokens": "max_tokens",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
}
_CONFIG_READ = frozenset(
    (
        *_CONFIG,
        "stopSequences",
        "candidateCount",
        "responseMimeType",
        "responseSchema",
        "responseJsonSchema",
        "responseModalities",
        "responseLogprobs",
        "logprobs",
        "thinkingConfig",
    )
)
_CONFIG_HINTS = frozenset(("mediaResolution", "routingConfig", "modelSelectionConfig", "enableEnhancedCivicAnswers"))
_PART = frozenset(("text", "thought", "thoughtSignature", "inlineData", "fileData", "functionCall", "functionResponse"))
_PART_HINTS = frozenset(("mediaResolution", "partMetadata", "mediaProcessing"))
_CALL, _RESULT = frozenset(("id", "name", "args")), frozenset(("id", "name", "response", "parts"))
_DECLARATION = frozenset(("name", "description", "parameters", "parametersJsonSchema"))
# What a function returns is seen when it does; how it is waited for is a matter of live talk.
_DECLARATION_HINTS = frozenset(("response", "responseJsonSchema"))
_TOOL_CONFIG_HINTS = frozenset(("retrievalConfig", "includeServerSideToolInvocations"))
_CALLING = frozenset(("mode", "allowedFunctionNames"))
_THINKING = frozenset(("includeThoughts", "thinkingBudget", "thinkingLevel"))
_DETAILS = {"LOW": "low", "HIGH": "high", "ULTRA_HIGH": "high"}
_TIERS = frozenset(("flex", "priority"))
_MODES: dict[Any, Any] = {"AUTO": "auto", "VALIDATED": "auto", "ANY": "required", "NONE": "none"}
_MODE_NUMBERS: dict[Any, Any] = {1: "AUTO", 2: "ANY", 3: "NONE", 4: "VALIDATED"}
_THINKS_BY_LEVEL = re.compile(r".*gemini-(?:[3-9]|\d\d)")
# https://ai.google.dev/gemini-api/docs/openai#thinking: what Google itself makes of an effort.
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 24_576, "max": 24_576}
_LEVELS = {"none": "MINIMAL", "minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM"}
_LOW, _MEDIUM = 2048, 12_288
# What Google documents for calls that another model made, which have no signature.
_NO_SIGNATURE = "Y29udGV4dF9lbmdpbmVlcmluZ19pc190aGVfd2F5X3RvX2dv"


# From Gemini.


def read_request(body: dict[str, Any], model: str) -> ChatRequest:
    """Read a request in plain names whose basic types have been checked. Raises `Unsupported`, `InvalidRequest`."""
    config = body.get("generationConfig") or {}
    refuse_fields(body, _BODY, _BODY_HINTS, "")
    refuse_fields(config, _CONFIG_READ, _CONFIG_HINTS, "generationConfig.")
    refuse_fields(config.get("thinkingConfig") or {}, _THINKING, (), "generationConfig.thinkingConfig.")
    plain: dict[str, Any] = {ours: config[theirs] for theirs, ours in _CONFIG.items() if theirs in config}
    hints = {name: body[name] for name in body if name in _BODY_HINTS}
    if of_config := {name: config[name] for name in config if name in _CONFIG_HINTS}:
        hints["generationConfig"] = of_config
    if config.get("responseLogprobs"):
        plain["logprobs"] = config.get("logprobs") or 0
    if "top_k" in plain:
        plain["top_k"] = int(plain["top_k"])
    tools, choice = _read_tools(body)
    return ChatRequest(
        dialect=DIALECT,
        model=model,
        messages=tuple(read_messages(body, _detail(config))),
        tools=tools,
        tool_choice=choice,
        stop=tuple(config.get("stopSequences") or ()),
        choices=config.get("candidateCount") or 1,
        response_format=_read_format(config),
        reasoning=_read_thinking(config.get("thinkingConfig")),
        service_tier=_read_tier(body.get("serviceTier")),
        extra=hints,
        places=functools.partial(_places, body),
        **plain,
    )


def read_messages(body: dict[str, Any], detail: str | None = None) -> list[Message]:
    """Read the system instruction and the turns. Raises `Unsupported` naming what only Gemini can say.

    `detail` is how closely pictures are to be looked at that do not say it themselves.
    """
    messages = []
    if system := body.get("systemInstruction"):
        parts = []
        for j, part in enumerate(system.get("parts") or ()):
            if "text" not in part:
                raise Unsupported("A system instruction has texts only.", field=f"systemInstruction.parts.{j}")
            parts.append(Text(text=part["text"]))
        messages.append(Message(role="system", parts=tuple(parts)))
    calls = CallNames()
    for i, content in enumerate(body.get("contents") or ()):
        refuse_fields(content, ("role", "parts"), (), f"contents.{i}.")
        role = content.get("role") or "user"
        if role not in ("user", "model", "function", "tool"):
            raise InvalidRequest(f"contents.{i}.role must be user or model.", field=f"contents.{i}.role")
        parts_read = [
            read
            for j, part in enumerate(content.get("parts") or ())
            if (read := _read_part(part, calls, f"contents.{i}.parts.{j}", detail)) is not None
        ]
        results = tuple(part for part in parts_read if isinstance(part, ToolResult))
        said = tuple(part for part in parts_read if not isinstance(part, ToolResult))
        if results:
            messages.append(Message(role="tool", parts=results))
        if not parts_read and _asks_nothing(content):
            said = (Text(text=""),)
        if said:
            messages.append(Message(role="assistant" if role == "model" else "user", parts=said))
    return messages


def _asks_nothing(content: dict[str, Any]) -> bool:
    """Tell whether a turn of the user without words is one: it is answered, other than no turn."""
    return (content.get("role") or "user") == "user" and bool(content.get("parts"))


def _places(body: dict[str, Any]) -> list[list[str]]:
    """Return what the client calls each part of the messages that `read_messages` makes of a body."""
    system = (body.get("systemInstruction") or {}).get("parts") or ()
    places = [[f"systemInstruction.parts.{j}" for j in range(len(system))]] if body.get("systemInstruction") else []
    for i, content in enumerate(body["contents"]):
        results, said = [], []
        for j, part in enumerate(content.get("parts") or ()):
            if "functionResponse" in part:
                results.append(f"contents.{i}.parts.{j}")
            elif _read_part(part, CallNames(), "", None) is not None:
                said.append(f"contents.{i}.parts.{j}")
        if not said and not results and _asks_nothing(content):
            said = [f"contents.{i}.parts.0"]
        places += [there for there in (results, said) if there]
    return places


def _read_tier(tier: Any) -> str | None:
    """Return the tier of service that is asked for, as others write it."""
    name = tier.lower().removeprefix("service_tier_") if isinstance(tier, str) else ""
    return name if name not in ("", "unspecified") else None


def _detail(asked: dict[str, Any]) -> str | None:
    """Return how closely pictures are to be looked at, in the words of most others; None leaves it to the model."""
    told = asked.get("mediaResolution")
    level = told.get("level") if isinstance(told, dict) else told
    return _DETAILS.get(str(level).removeprefix("MEDIA_RESOLUTION_"))


def _read_part(part: dict[str, Any], calls: CallNames, place: str, detail: str | None) -> AnyPart | None:
    refuse_fields(part, _PART, _PART_HINTS, f"{place}.")
    signature = read_signature(part.get("thoughtSignature"))
    if "functionCall" in part:
        call = part["functionCall"]
        refuse_fields(call, _CALL, (), f"{place}.functionCall.")
        arguments = msgspec.json.encode(call.get("args") or {}).decode()
        return ToolCall(id=calls.called(call), name=call.get("name", ""), arguments=arguments, signature=signature.seal)
    if "functionResponse" in part:
        response = part["functionResponse"]
        refuse_fields(response, _RESULT, ("scheduling",), f"{place}.functionResponse.")
        for k, shown in enumerate(response.get("parts") or ()):
            refuse_fields(shown, _PART, _PART_HINTS, f"{place}.functionResponse.parts.{k}.")
        return calls.answered(response, place)
    if "inlineData" in part or "fileData" in part:
        media = read_media(part, place)
        detail = _detail(part) or detail
        return msgspec.structs.replace(media, detail=detail) if detail and media.kind == "image" else media
    text = part.get("text") or ""
    if part.get("thought"):
        return Thinking(text=text, signature=signature.seal, redacted=signature.redacted)
    return Text(text=text, signature=signature.seal) if text else None


def _read_tools(body: dict[str, Any]) -> tuple[tuple[Tool, ...], ToolChoice | None]:
    tools: list[Tool] = []
    for i, tool in enumerate(body.get("tools") or ()):
        refuse_fields(tool, ("functionDeclarations",), (), f"tools.{i}.")
        for j, given in enumerate(tool.get("functionDeclarations") or ()):
            waits = given.get("behavior") != "NON_BLOCKING"
            known = _DECLARATION | {"behavior"} if waits else _DECLARATION
            refuse_fields(given, known, _DECLARATION_HINTS, f"tools.{i}.functionDeclarations.{j}.")
            schema = given.get("parametersJsonSchema")
            if schema is None:
                schema = _read_schema(given.get("parameters"), f"tools.{i}.functionDeclarations.{j}.parameters")
            about = given.get("description") or None
            tools.append(Tool(name=given.get("name", ""), description=about, parameters=schema))
    told = body.get("toolConfig") or {}
    asked = told.get("functionCallingConfig") or {}
    refuse_fields(told, ("functionCallingConfig",), _TOOL_CONFIG_HINTS, "toolConfig.")
    refuse_fields(asked, _CALLING, ("streamFunctionCallArguments",), "toolConfig.functionCallingConfig.")
    mode = _MODE_NUMBERS.get(asked.get("mode"), asked.get("mode") or "AUTO")
    if mode == "MODE_UNSPECIFIED" or not asked:
        return tuple(tools), None
    if mode not in _MODES:
        field = "toolConfig.functionCallingConfig.mode"
        raise InvalidRequest(f"{field} must be one of {', '.join(_MODES)}.", field=field)
    names = asked.get("allowedFunctionNames") or []
    if names and mode in ("ANY", "VALIDATED"):
        tools = [tool for tool in tools if tool.name in names]
    if mode == "ANY" and len(names) == 1:
        return tuple(tools), ToolChoice(mode="tool", name=names[0])
    return tuple(tools), ToolChoice(mode=_MODES[mode])


def _read_schema(given: Any, place: str) -> Any:
    try:
        return json_schema(given)
    except (AttributeError, TypeError, ValueError, RecursionError):
        raise InvalidRequest(f"{place} is no schema.", field=place) from None


def _read_format(config: dict[str, Any]) -> ResponseFormat | None:
    for i, kind in enumerate(config.get("responseModalities") or ()):
        if kind not in ("TEXT", 1):
            field = f"generationConfig.responseModalities.{i}"
            raise Unsupported(f"This model answers in text only ({field}).", field=field)
    mime = config.get("responseMimeType") or "text/plain"
    if mime not in ("text/plain", "application/json"):
        field = "generationConfig.responseMimeType"
        raise Unsupported(f"This model answers in text/plain or application/json only ({field}).", field=field)
    schema = config.get("responseJsonSchema")
    if schema is None and "responseSchema" in config:
        schema = _read_schema(config["responseSchema"], "generationConfig.responseSchema")
    if schema is not None:
        if not isinstance(schema, dict):
            field = "generationConfig.responseJsonSchema"
            raise InvalidRequest(f"{field} must be an object.", field=field)
        name = re.sub(r"[^A-Za-z0-9_-]", "_", str(schema.get("title") or "answer"))[:64]
        return ResponseFormat(kind="json_schema", name=name, schema=schema)
    return ResponseFormat(kind="json_object") if mime == "application/json" else None


def _read_thinking(given: dict[str, Any] | None) -> Reasoning | None:
    """Read how much may be thought; a budget of -1 leaves it to the model, as saying nothing does."""
    if not given:
        return None
    summary = "auto" if given.get("includeThoughts") else None
    level, budget = given.get("thinkingLevel"), given.get("thinkingBudget")
    if isinstance(level, int):
        field = "generationConfig.thinkingConfig.thinkingLevel"
        raise InvalidRequest(f"{field} must be the name of a level.", field=field)
    if level is not None and level != "THINKING_LEVEL_UNSPECIFIED":
        return Reasoning(effort=level.lower(), summary=summary)
    if budget == 0:
        return Reasoning(effort="none")
    if budget is not None and budget > 0:
        effort = "low" if budget <= _LOW else "medium" if budget <= _MEDIUM else "high"
        return Reasoning(effort=effort, budget_tokens=budget, summary=summary)
    return Reasoning(summary=summary) if summary else None


# To Gemini.


def write_request(request: ChatRequest, model: str) -> dict[str, Any]:
    """Write a request for `model`. Raises `Unsupported` for what Gemini has no words for."""
    try:
        return _write_request(request, model)
    except InvalidRequest as error:
        raise as_client_says(error, request) from None


def _write_request(request: ChatRequest, model: str) -> dict[str, Any]:
    system, contents = _write_messages(request.messages, model)
    if not contents:
        contents, system = ([{"role": "user", "parts": system}] if system else []), []
    own = request.dialect in ("", DIALECT)
    refuse_unsaid(request, DIALECT)
    hints = request.extra if own else {}
    body = hints | {"contents": contents}
    if (words := verbosity_words(request)) is not None:
        system = [*system, {"text": words}]
    if (tier := tier_of(request)) is not None:
        if tier not in _TIERS:
            raise Unsupported(f"This model has no service tier {tier}.", field="service_tier")
        body["serviceTier"] = tier
    if system:
        body["systemInstruction"] = {"parts": system}
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_write_tool(tool, i) for i, tool in enumerate(request.tools)]}]
        if request.tool_choice is not None:
            body |= _write_choice(request.tool_choice)
    if search_for(request, ("search",)) is not None:
        body["tools"] = [*body.get("tools", ()), {"googleSearch": {}}]
    if config := hints.get("generationConfig", {}) | _write_config(request, model):
        body["generationConfig"] = config
    return body


def _write_messages(messages: tuple[Message, ...], model: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the parts of the system instruction, and the turns; the results of one turn's calls stay together."""
    system: list[dict[str, Any]] = []
    contents: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    seals_calls = bool(_THINKS_BY_LEVEL.match(model))
    results: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []

    def settle(said: list[dict[str, Any]]) -> None:
        if parts := [*results, *shown, *said]:
            contents.append({"role": "user", "parts": parts})
        results.clear()
        shown.clear()

    for i, message in enumerate(messages):
        if message.role in ("system", "developer"):
            for j, part in enumerate(message.parts):
                if not isinstance(part, Text):
                    raise Unsupported("A system instruction has texts only.", field=f"messages.{i}.content.{j}")
                system += [{"text": part.text}] if part.text else []
            continue
        for part in message.parts:
            if isinstance(part, ToolCall):
                names[part.id] = part.name
            elif isinstance(part, ToolResult):
                name = names.get(part.id) or message.name
                if name is None:
                    raise InvalidRequest("There is no earlier call for this result.", field=f"messages.{i}")
                results.append(write_result(part, name, inside=seals_calls))
                shown += [] if seals_calls else write_shown(part)
        said = [
            out
            for j, part in enumerate(message.parts)
            if (out := write_part(part, message.role, f"messages.{i}.content.{j}")) is not None
        ]
        if message.role == "assistant":
            settle([])
            if said:
                contents.append({"role": "model", "parts": _sealed(said) if seals_calls else said})
        elif said or (message.role == "user" and not results and message is messages[-1]):
            settle(said or [{"text": ""}])
    settle([])
    return system, contents


def _sealed(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the first call of a turn the signature that newer models insist on, if no part has one."""
    if any("thoughtSignature" in part for part in parts):
        return parts
    first = next((i for i, part in enumerate(parts) if "functionCall" in part), None)
    return [part | {"thoughtSignature": _NO_SIGNATURE} if i == first else part for i, part in enumerate(parts)]


def _write_tool(tool: Tool, place: int) -> dict[str, Any]:
    if tool.value is not None:
        raise Unsupported(f"This model does not have the tool {tool.name}.", field=f"tools.{place}")
    out: dict[str, Any] = {"name": tool.name}
    if tool.description:
        out["description"] = tool.description
    if tool.parameters:
        out["parametersJsonSchema"] = {key: value for key, value in tool.parameters.items() if key != "$schema"}
    return out


def _write_choice(choice: ToolChoice) -> dict[str, Any]:
    if choice.parallel is False:
        raise Unsupported("This model cannot be kept from parallel tool calls.", field="parallel_tool_calls")
    config: dict[str, Any] = {"mode": {"none": "NONE", "auto": "AUTO"}.get(choice.mode, "ANY")}
    if choice.mode == "tool" and choice.name:
        config["allowedFunctionNames"] = [choice.name]
    return {"toolConfig": {"functionCallingConfig": config}}


def _write_config(request: ChatRequest, model: str) -> dict[str, Any]:
    config = {theirs: value for theirs, ours in _CONFIG.items() if (value := getattr(request, ours)) is not None}
    if request.stop:
        config["stopSequences"] = list(request.stop)
    if request.choices > 1:
        config["candidateCount"] = request.choices
    if request.logprobs is not None:
        config |= {"responseLogprobs": True} | ({"logprobs": request.logprobs} if request.logprobs else {})
    if (form := request.response_format) is not None and form.kind != "text":
        config["responseMimeType"] = "application/json"
        if form.schema is not None:
            config["responseJsonSchema"] = {key: value for key, value in form.described.items() if key != "$schema"}
    if request.reasoning is not None:
        config["thinkingConfig"] = _write_thinking(request.reasoning, model)
    return config


def _write_thinking(reasoning: Reasoning, model: str) -> dict[str, Any]:
    effort, budget = reasoning.effort, reasoning.budget_tokens
    check_effort(effort)
    hidden = effort == "none" or reasoning.summary == "none"
    out: dict[str, Any] = {} if hidden else {"includeThoughts": True}
    if budget is not None:
        return out | {"thinkingBudget": budget}
    if effort is None:
        return out
    if _THINKS_BY_LEVEL.match(model):
        return out | {"thinkingLevel": _LEVELS.get(effort, "HIGH")}
    return out | {"thinkingBudget": _BUDGETS[effort]}
