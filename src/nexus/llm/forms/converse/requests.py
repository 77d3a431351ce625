"""Our form of a request in the Converse JSON form. `converse.answers` reads what comes back.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html. What a model has no word for
is an error that names the field, with three exceptions that are hints by nature: cache marks, `strict` on tools, and
thoughts that are not the model's own. Of a request's `extra` only the names in `OWN_FIELDS` are taken, and of tools of
other kinds only `{"systemTool": ...}`, by a rule that holds for every dialect: these are Converse's own words, and no
dialect means something else by them.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from nexus.llm.errors import InvalidRequest, Unsupported, WrongType
from nexus.llm.forms.cache_marks import kept_for
from nexus.llm.forms.call_ids import short_id
from nexus.llm.forms.converse.families import Family, thinking_of
from nexus.llm.forms.converse.media import DocumentNames, write_media
from nexus.llm.forms.messages.claude import refuse_sampling
from nexus.llm.forms.messages.schemas import for_claude
from nexus.llm.forms.shown import told_by_user
from nexus.llm.forms.unsaid import as_client_says, refuse_unsaid
from nexus.llm.forms.web_search import search_for
from nexus.llm.forms.wishes import json_words, tier_of, verbosity_words
from nexus.llm.types import (
    AnyPart,
    ChatRequest,
    Media,
    Message,
    Need,
    Refusal,
    ResponseFormat,
    Searched,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

DIALECT: Final = "aws.converse"
# The tool by which a model without structured output is made to answer in JSON; its call is the answer's text.
ANSWER: Final = "nexus_json_answer"
OWN_FIELDS: Final[dict[str, type]] = {
    "additionalModelRequestFields": dict,
    "additionalModelResponseFieldPaths": list,
    "guardrailConfig": dict,
    "performanceConfig": dict,
    "promptVariables": dict,
    "requestMetadata": dict,
    "serviceTier": dict,
}
_TIERS: Final = frozenset(("flex", "priority"))
_ELSEWHERE: Final = ("top_k", "seed", "presence_penalty", "frequency_penalty")
_NAME: Final = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
_ID: Final = re.compile(r"^[a-zA-Z0-9_.:-]{1,64}$")
# Several models refuse blank text, so a turn that has to be there and has nothing to say is a full stop.
_NOTHING: Final = {"text": "."}
_HELD_APART: Final = frozenset(("document", "video"))
_any = msgspec.json.Decoder()
Block = dict[str, Any]


def write_request(
    request: ChatRequest, model: str, family: Family, *, fields: Mapping[Need, str] | None = None
) -> dict[str, Any]:
    """Write a request. `fields` says what the client calls the fields behind its needs.

    Raises `Unsupported` or `InvalidRequest` naming the field for what this model cannot be told.
    """
    try:
        return _write_request(request, model, family, fields or {})
    except InvalidRequest as error:
        raise as_client_says(error, request) from None


def _write_request(request: ChatRequest, model: str, family: Family, names: Mapping[Need, str]) -> dict[str, Any]:
    _check(request)
    by_tool = answers_by_tool(request, model, family)
    more = _thinking(request, model, family, names, by_tool=by_tool)
    if more.get("thinking", {}).get("type") in ("enabled", "adaptive"):
        refuse_sampling(request)
    more |= _parameters(request, family)
    system, messages = _Conversation(request, family).write()
    body: dict[str, Any] = {"messages": messages}
    if (words := verbosity_words(request)) is not None:
        system.append({"text": words})
    form = request.response_format
    if form is not None and not by_tool and _lacks_form(request, model, family):
        system.append({"text": json_words(form)})
    if system:
        body["system"] = system
    if (tier := tier_of(request)) is not None:
        body["serviceTier"] = {"type": tier}
    if inference := _inference(request, family):
        body["inferenceConfig"] = inference
    tools, told = _tools(request, model, family, by_tool=by_tool)
    if tools:
        body["toolConfig"] = tools
    more |= told
    if form is not None and form.kind == "json_schema" and family.structures(model):
        body["outputConfig"] = {"textFormat": _text_format(form, family)}
    if request.stop and family.stop_sequence:
        body["additionalModelResponseFieldPaths"] = [family.stop_sequence]
    own = {name: value for name, value in request.extra.items() if name in OWN_FIELDS}
    more = _merged(more, own.pop("additionalModelRequestFields", {}))
    if more:
        body["additionalModelRequestFields"] = more
    return body | own


def write_count(body: dict[str, Any]) -> dict[str, Any]:
    """Return the request that counts the tokens of a request."""
    counted = ("messages", "system", "toolConfig", "additionalModelRequestFields")
    return {"input": {"converse": {name: body[name] for name in counted if name in body}}}


def answers_by_tool(request: ChatRequest, model: str, family: Family) -> bool:
    """Tell whether a tool has to stand in for the structured output that is asked for."""
    return _lacks_form(request, model, family) and family.binds(model)


def _lacks_form(request: ChatRequest, model: str, family: Family) -> bool:
    """Tell whether JSON is asked for that the model cannot be held to by its API."""
    form, choice = request.response_format, request.tool_choice
    if form is None or form.kind == "text" or (form.kind == "json_schema" and family.structures(model)):
        return False
    # A model that must call one of the caller's tools gives no answer that could be JSON.
    return choice is None or choice.mode in ("auto", "none")


# Parameters.


def _check(request: ChatRequest) -> None:
    refuse_unsaid(request, DIALECT, OWN_FIELDS)
    search_for(request)
    for name, asked in (("n", request.choices > 1), ("logprobs", request.logprobs is not None)):
        if asked:
            raise Unsupported(f"This provider has no {name}.", field=name)
    if (tier := tier_of(request)) is not None and tier not in _TIERS:
        raise Unsupported(f"This provider has no service tier {tier}.", field="service_tier")
    for name, kind in OWN_FIELDS.items():
        if not isinstance(request.extra.get(name, kind()), kind):
            noun = "an array" if kind is list else "an object"
            raise WrongType(f"{name} must be {noun}.", field=name)


def _inference(request: ChatRequest, family: Family) -> dict[str, Any]:
    """Return the common parameters. Temperatures end at 1, so what is hotter becomes 1.

    A `top_p` of 1 beside a temperature says nothing, and newer Claudes refuse both together.
    """
    warmth = None if request.temperature is None else min(request.temperature, 1)
    idle = request.top_p == 1 and warmth is not None and family.reasoning == "claude"
    top_p = None if idle else request.top_p
    told = {
        "maxTokens": request.max_tokens,
        "temperature": warmth,
        "topP": top_p,
        "stopSequences": list(request.stop) or None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _parameters(request: ChatRequest, family: Family) -> dict[str, Any]:
    """Return the parameters that Converse has no word for, where the model's own fields have them."""
    more: dict[str, Any] = {}
    for name in _ELSEWHERE:
        value = getattr(request, name)
        if value is None or (name.endswith("penalty") and value == 0):
            continue
        place = family.more.get(name)
        if place is None:
            raise Unsupported(f"This model takes no {name}.", field=name)
        outer, _, inner = place.partition(".")
        more = _merged(more, {outer: {inner: value}} if inner else {outer: value})
    return more


def _thinking(
    request: ChatRequest, model: str, family: Family, names: Mapping[Need, str], *, by_tool: bool
) -> dict[str, Any]:
    if request.reasoning is None:
        return {}
    bound = by_tool or (request.tool_choice is not None and request.tool_choice.mode in ("required", "tool"))
    free = not bound and not _lacks_thoughts(request.messages)
    steers = (request.max_tokens, request.temperature, request.top_p, request.top_k)
    steered = any(value is not None for value in steers)
    more = thinking_of(family, model, request.reasoning, max_tokens=request.max_tokens, free=free, steered=steered)
    if more is None:
        field = names.get("reasoning", "reasoning")
        raise Unsupported(f"{field}: this model cannot be told how much to think.", field=field)
    return more


def _lacks_thoughts(messages: tuple[Message, ...]) -> bool:
    """Tell whether results of tools are on their way to an answer that no longer has its sealed thoughts."""
    answered = [message for message in messages if message.role == "assistant"]
    if not answered or not any(isinstance(part, ToolResult) for part in messages[-1].parts):
        return False
    first = next((part for part in answered[-1].parts if not isinstance(part, Text) or part.text), None)
    return not (isinstance(first, Thinking) and (first.signature or first.redacted))


def _text_format(form: ResponseFormat, family: Family) -> dict[str, Any]:
    told: dict[str, Any] = {"name": form.name} if form.name else {}
    if form.description:
        told["description"] = form.description
    asked = form.schema or {"type": "object"}
    taken = for_claude(asked, lengths=True) if family.reasoning == "claude" else _closed(asked)
    told["schema"] = msgspec.json.encode(taken).decode()
    return {"type": "json_schema", "structure": {"jsonSchema": told}}


def _closed(schema: Any) -> Any:
    """Return a schema whose objects say that they have no other members, as the models want it said."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    told = {name: value if name in ("enum", "const", "default") else _closed(value) for name, value in schema.items()}
    if told.get("type") == "object" and "additionalProperties" not in told:
        told["additionalProperties"] = False
    return told


def _merged(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Join two tables, one level deeper where both have one."""
    both = {
        name: ours[name] | value
        for name, value in theirs.items()
        if isinstance(value, dict) and isinstance(ours.get(name), dict)
    }
    return ours | theirs | both


# Tools.


def _tools(
    request: ChatRequest, model: str, family: Family, *, by_tool: bool
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return the tool configuration, and what only the model's own fields can say about tools."""
    choice = request.tool_choice or ToolChoice()
    called = list(_called(request.messages))
    given = request.tools
    if choice.mode == "none" and not called:
        given = ()
    tools = [block for i, tool in enumerate(given) for block in _write_tool(tool, i, model, family)]
    if called and not given:
        # The API wants the tools that a conversation used to be declared, also when they are no longer offered.
        tools += [_spec(name, None, None) for name in dict.fromkeys(called)]
    if by_tool:
        assert request.response_format is not None
        form = request.response_format
        words = form.description or "Give the answer by calling this tool, as the JSON object that was asked for."
        tools.append(_spec(ANSWER, words, form.schema if form.kind == "json_schema" else None))
    if not tools:
        return None, {}
    told: dict[str, Any] = {"any": {}} if choice.mode == "required" else {}
    if choice.mode == "tool":
        told = {"tool": {"name": choice.name}}
    if by_tool:
        alone = len(tools) == 1 or choice.mode == "none" or not given
        told = {"tool": {"name": ANSWER}} if alone else {"any": {}}
    elif choice.mode == "none" or (choice.parallel is False and given):
        return {"tools": tools}, _native_choice(choice, family)
    return {"tools": tools} | ({"toolChoice": told} if told else {}), {}


def _native_choice(choice: ToolChoice, family: Family) -> dict[str, Any]:
    """Return a choice that Converse cannot say in the words of Claude models, which take it among their own fields."""
    if family.reasoning != "claude":
        if choice.mode == "none":
            text = "tool_choice: this model cannot be kept from calling the tools that the conversation has used."
            raise Unsupported(text, field="tool_choice")
        raise Unsupported("This model takes no parallel_tool_calls.", field="parallel_tool_calls")
    if choice.mode == "none":
        return {"tool_choice": {"type": "none"}}
    told = {"type": {"required": "any"}.get(choice.mode, choice.mode), "disable_parallel_tool_use": True}
    return {"tool_choice": told | ({"name": choice.name} if choice.mode == "tool" else {})}


def _write_tool(tool: Tool, i: int, model: str, family: Family) -> Iterator[Block]:
    if tool.value is not None:
        if set(tool.value) == {"systemTool"}:
            yield tool.value
            return
        raise Unsupported(f"tools.{i}: this provider has no tool of the type {tool.name}.", field=f"tools.{i}")
    if not _NAME.match(tool.name):
        raise InvalidRequest(
            f"tools.{i}: a name has letters, digits, dashes and underscores, at most 64.", field=f"tools.{i}"
        )
    spec = _spec(tool.name, tool.description, tool.parameters)
    if tool.strict and family.structures(model):
        spec["toolSpec"]["strict"] = True
        if family.reasoning == "claude":
            taken = for_claude(spec["toolSpec"]["inputSchema"]["json"], lengths=True)
            spec["toolSpec"]["inputSchema"]["json"] = taken
    yield spec
    if tool.cache and family.cache == "all":
        yield _cache_point(tool.cache)


def _spec(name: str, description: str | None, parameters: dict[str, Any] | None) -> Block:
    spec: dict[str, Any] = {"name": name}
    if description and description.strip():
        spec["description"] = description
    spec["inputSchema"] = {"json": parameters or {"type": "object", "properties": {}}}
    return {"toolSpec": spec}


def _called(messages: tuple[Message, ...]) -> Iterator[str]:
    for message in messages:
        for part in message.parts:
            if isinstance(part, ToolCall) and part.kind == "function":
                yield part.name


# Messages.


def _cache_point(lifetime: str) -> Block:
    return {"cachePoint": {"type": "default"} | ({"ttl": "1h"} if kept_for(lifetime) == "1h" else {})}


def tool_id(given: str, *, short: bool = False) -> str:
    """Return an id that the model takes: the given one, or one made from it for the call and its result alike."""
    if short:
        return short_id(given)
    return given if _ID.match(given) else f"tooluse_{hashlib.sha256(given.encode()).hexdigest()[:24]}"


class _Conversation:
    """Turns messages into system blocks and turns that alternate, as the API wants them."""

    def __init__(self, request: ChatRequest, family: Family) -> None:
        self._request = request
        self._family = family
        self._names = DocumentNames()

    def write(self) -> tuple[list[Block], list[dict[str, Any]]]:
        """Return system blocks and messages."""
        system: list[Block] = []
        turns: list[tuple[str, list[Block]]] = []
        for i, message in enumerate(told_by_user(self._request.messages)):
            blocks = self._blocks(message, f"messages.{i}.content")
            if message.role in ("system", "developer"):
                system += blocks
                continue
            role = "assistant" if message.role == "assistant" else "user"
            if turns and turns[-1][0] == role:
                turns[-1][1].extend(blocks)
            elif blocks:
                turns.append((role, blocks))
        if not turns or (turns[0][0] == "assistant" and not self._family.leading_assistant):
            turns.insert(0, ("user", [_NOTHING]))
        if turns[-1][0] == "assistant" and self._request.messages[-1].role == "user":
            turns.append(("user", [_NOTHING]))  # else the answer before would go on
        return system, [
            {"role": role, "content": content}
            for speaker, blocks in turns
            for role, content in (self._apart(blocks) if speaker == "user" else [(speaker, blocks)])
        ]

    def _apart(self, blocks: list[Block]) -> list[tuple[str, list[Block]]]:
        """Return a user's turn, in two where the model takes its content only away from tool results."""
        others = [block for block in blocks if "toolResult" not in block and "cachePoint" not in block]
        answering = any("toolResult" in block for block in blocks)
        if not answering or all(next(iter(block)) in self._family.beside for block in others):
            return [("user", _with_words(blocks))]
        first = next(i for i, block in enumerate(blocks) if block in others)
        results = blocks[:first] + [block for block in blocks[first:] if "toolResult" in block]
        rest = [block for block in blocks[first:] if "toolResult" not in block]
        return [("user", results), ("assistant", [_NOTHING]), ("user", _with_words(rest))]

    def _blocks(self, message: Message, field: str) -> list[Block]:
        blocks: list[Block] = []
        for j, part in enumerate(message.parts):
            block = self._block(part, f"{field}.{j}", message.role)
            if block is not None:
                blocks.append(block)
            if (mark := _mark(part)) and blocks and self._family.cache != "none":
                self._add_cache_point(blocks, mark)
        return blocks

    def _add_cache_point(self, blocks: list[Block], mark: str) -> None:
        """Put a cache point behind the content so far. None may follow a document or a clip directly.

        Claude models take a line break in between, for others it goes before them.
        """
        place = len(blocks)
        if not _HELD_APART.isdisjoint(blocks[-1]) and self._family.cache == "all":
            blocks.append({"text": "\n"})
            place += 1
        while place and not _HELD_APART.isdisjoint(blocks[place - 1]):
            place -= 1
        if place and "cachePoint" not in blocks[place - 1]:
            blocks.insert(place, _cache_point(mark))

    def _block(self, part: AnyPart, field: str, role: str) -> Block | None:
        if isinstance(part, Text | Refusal):
            return {"text": part.text} if part.text.strip() else None
        if role in ("system", "developer"):
            raise Unsupported(f"{field}: this provider takes only text in system messages.", field=field)
        if isinstance(part, Media):
            return write_media(part, self._names, field)
        if isinstance(part, Thinking):
            return self._thought(part)
        if isinstance(part, ToolCall):
            return _write_call(part, field, short=self._family.short_ids)
        if isinstance(part, ToolResult):
            return self._result(part, field)
        if isinstance(part, Searched):
            return None
        if part.dialect == DIALECT:
            own: Block = part.value
            return own
        if role == "assistant":
            return None  # a record of what a model did elsewhere
        raise Unsupported(f"{field}: this provider has no content of this kind.", field=field)

    def _thought(self, part: Thinking) -> Block | None:
        """Return a thought that is sealed: models refuse others, and do not miss them."""
        if not self._family.thinking_back:
            return None
        if part.redacted is not None:
            data = part.redacted
            sealed = data.encode("latin-1") if all(ord(c) < 256 for c in data) else data.encode()
            return {"reasoningContent": {"redactedContent": base64.b64encode(sealed).decode()}}
        if not part.signature:
            return None
        return {"reasoningContent": {"reasoningText": {"text": part.text, "signature": part.signature}}}

    def _result(self, part: ToolResult, field: str) -> Block:
        content: list[Block] = []
        for item in part.content:
            if isinstance(item, Text):
                content += [{"text": item.text}] if item.text.strip() else []
            elif item.kind == "audio":
                raise Unsupported(f"{field}: this provider takes no sound in a tool's result.", field=field)
            else:
                content.append(write_media(item, self._names, field))
        call_id = tool_id(part.id, short=self._family.short_ids)
        result: dict[str, Any] = {"toolUseId": call_id, "content": content or [{"text": "(no output)"}]}
        if part.is_error and self._family.status:
            result["status"] = "error"
        return {"toolResult": result}


def _with_words(blocks: list[Block]) -> list[Block]:
    """Return the content with a text beside a document, which the API insists on."""
    wordless = any("document" in block for block in blocks) and not any("text" in block for block in blocks)
    return [*blocks, _NOTHING] if wordless else blocks


def _write_call(part: ToolCall, field: str, *, short: bool) -> Block:
    if part.kind != "function":
        raise Unsupported(f"{field}: this provider knows calls of functions only.", field=field)
    try:
        arguments = _any.decode(part.arguments) if part.arguments.strip() else {}
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidRequest(f"{field}: the arguments of a call must be a JSON object.", field=field)
    return {"toolUse": {"toolUseId": tool_id(part.id, short=short), "name": part.name, "input": arguments}}


def _mark(part: AnyPart) -> str | None:
    """Return the cache mark on a part, or on the last piece of a tool's result."""
    if part.cache or not isinstance(part, ToolResult) or not part.content:
        return part.cache
    return part.content[-1].cache
