"""The OpenAI Responses dialect: `POST /v1/responses`, plain and streamed, and the count of its tokens.

Source: https://platform.openai.com/docs/api-reference/responses. Only what must be known here is checked;
everything else travels as the client wrote it and is the provider's to judge.
"""

from __future__ import annotations

import functools
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from nexus.core.errors import NexusError
from nexus.http import problem
from nexus.llm.dialect import Dialect, Door, Relay, Writer
from nexus.llm.errors import (
    InvalidRequest,
    MissingParameter,
    UpstreamMalformed,
    UpstreamRejected,
    UpstreamTruncated,
    from_stream,
)
from nexus.llm.forms.decoding import decode_checked, wrong_field
from nexus.llm.forms.named_files import refuse_ours
from nexus.llm.forms.responses.answers import echo_of, read_usage, wants_sources, write_response
from nexus.llm.forms.responses.events import EventWriter
from nexus.llm.forms.responses.items import ADDED, DIALECT, Names, offered
from nexus.llm.forms.responses.named_files import NAMING
from nexus.llm.forms.responses.requests import ResponsesCall, read_request
from nexus.llm.types import Call, ChatRequest, Completion, Need, Tally
from nexus.llm.wire.sse import EventSplitter, data_of

_ROLES = frozenset(("system", "developer", "user", "assistant"))
_NEEDS: dict[str | None, Need] = {"input_image": "images", "input_audio": "audio", "input_file": "documents"}
# What our own form has a word for, of all that `include` may ask for.
_READ = frozenset(("message.output_text.logprobs",))
_CHOICES = ("auto", "none", "required")
_FORMATS = ("text", "json_object", "json_schema")
_ENDS = frozenset(("response.completed", "response.incomplete", "response.failed"))
# A failure of the provider itself: another deployment may do better.
_ITS_OWN = frozenset(("server_error", "rate_limit_exceeded"))


class _Format(msgspec.Struct):
    type: str = "text"
    schema: Any = None


class _TextConfig(msgspec.Struct):
    format: _Format | None = None
    verbosity: str | None = None


class _Reasoning(msgspec.Struct):
    effort: str | None = None


class _Tool(msgspec.Struct):
    type: str
    name: str | None = None
    container: Any = None
    environment: Any = None
    input_image_mask: Any = None


class _Head(msgspec.Struct):
    model: str
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    instructions: str | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    max_tool_calls: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: _TextConfig | None = None
    reasoning: _Reasoning | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    include: list[str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: str | None = None


class _Part(msgspec.Struct):
    type: str
    text: str | None = None


class _Item(msgspec.Struct):
    id: Any = None
    type: str | None = None
    role: str | None = None
    content: Any = None
    call_id: str | None = None
    name: str | None = None
    arguments: Any = None
    input: Any = None
    output: Any = None
    tools: Any = None


class _Ended(msgspec.Struct):
    status: str | None = None
    usage: Any = None
    service_tier: Any = None
    tool_usage: Any = None
    error: Any = None
    incomplete_details: Any = None


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None
    error: Any = None
    response: msgspec.Raw = msgspec.Raw(b"{}")


class _Answer(_Ended):
    output: list[dict[str, Any]] | None = None


_head = msgspec.json.Decoder(_Head)
_items = msgspec.json.Decoder(str | list[_Item])
_event = msgspec.json.Decoder(_Event)
_ended = msgspec.json.Decoder(_Ended)
_answer = msgspec.json.Decoder(_Answer)
_any = msgspec.json.Decoder()


class OpenAIResponses(Dialect):
    """Responses."""

    name = DIALECT
    path = "/v1/responses"
    files = NAMING
    doors = (Door("POST", "/v1/responses"), Door("POST", "/v1/responses/input_tokens", "count"))
    words = MappingProxyType(
        {
            "messages": "input",
            "max_tokens": "max_output_tokens",
            "response_format": "text.format",
            "reasoning_effort": "reasoning.effort",
            "logprobs": "include",
            "verbosity": "text.verbosity",
        }
    )

    def parse(self, body: bytes, *, path: str = "", headers: dict[bytes, bytes] | None = None) -> Call:
        """Read and check a request. Raises `InvalidRequest` naming the field, or `MalformedBody`."""
        head: _Head = decode_checked(_head, body)
        if not head.model:
            raise MissingParameter("You must provide a model.", field="model")
        if head.previous_response_id is not None and head.conversation is not None:
            raise InvalidRequest(
                "previous_response_id and conversation exclude each other.", field="previous_response_id"
            )
        needs, fields, characters = _check_input(head)
        _check_options(head, needs, fields)
        return ResponsesCall(
            dialect=self.name,
            model=head.model,
            parse=functools.partial(_parse, body),
            body=body,
            stream=bool(head.stream),
            needs=frozenset(needs),
            fields=fields,
            characters=characters + len(head.instructions or ""),
            max_tokens=head.max_output_tokens,
            previous=head.previous_response_id,
            conversation=head.conversation is not None,
            store=head.store is not False,
            background=bool(head.background),
            apart=" ".join(sorted(set(head.include or ()) - _READ)),
            own_id=True,
            alone=bool(head.background) or head.conversation is not None,
        )

    def inspect(self, body: bytes) -> Tally:
        """Look at a whole answer. Raises `UpstreamMalformed`, or the failure of the provider that it tells of."""
        try:
            answer: _Answer = _answer.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise UpstreamMalformed from None
        if answer.output is None and answer.error is not None:
            raise from_stream(answer.error, body=body)
        if answer.output is None:
            raise UpstreamMalformed
        if isinstance(answer.error, dict) and answer.error.get("code") in _ITS_OWN:
            raise from_stream(answer.error)
        tally = Tally(done=True, finished=1)
        for item in answer.output:
            tally.characters += _length(item)
        _finish(tally, answer)
        return tally

    def relay(self, call: Call) -> Relay:
        """Return a relay for one stream."""
        _mark(call, made_here=False)
        return ResponsesRelay()

    def completion(self, completion: Completion, call: Call) -> bytes:
        """Write a whole answer."""
        _mark(call, made_here=True)
        return msgspec.json.encode(write_response(completion, call.model, _any.decode(call.body), _history(call)))

    def writer(self, call: Call) -> Writer:
        """Return a writer for one stream."""
        _mark(call, made_here=True)
        asked = _any.decode(call.body)
        names = Names.of(offered(asked, _history(call)))
        return EventWriter(call.model, echo_of(asked), names, sources=wants_sources(asked))

    def count(self, tokens: int, call: Call) -> bytes:
        """Write how many tokens a request has."""
        return msgspec.json.encode({"object": "response.input_tokens", "input_tokens": tokens})

    def stream_error(self, error: NexusError, request_id: str | None) -> bytes:
        """Write an error in the middle of a stream."""
        told = problem.render(self.path, error, request_id).body["error"]
        body = {"type": "error", "code": told["code"], "message": told["message"], "param": told["param"]}
        # Clients of the older form look for `error`.
        body |= {"sequence_number": 0, "error": told}
        return b"event: error\ndata: " + msgspec.json.encode(body) + b"\n\n"


class ResponsesRelay:
    """Passes the events of a stream through, whole events only, and keeps the tally."""

    __slots__ = ("_splitter", "tally")

    def __init__(self) -> None:
        """Begin."""
        self.tally = Tally()
        self._splitter = EventSplitter(limit=64_000_000)

    def feed(self, data: bytes) -> bytes:
        """Return the whole events in `data` and what was held back before it."""
        return self._pass(self._splitter.feed(data))

    def end(self) -> bytes:
        """Return the rest. Raises `UpstreamTruncated` when no end was seen."""
        rest = self._pass(self._splitter.end())
        if isinstance(self.tally.failure, UpstreamMalformed):
            self.tally.failure = UpstreamTruncated()
        if not self.tally.done and self.tally.failure is None:
            raise UpstreamTruncated
        return rest

    def _pass(self, events: list[bytes]) -> bytes:
        out: list[bytes] = []
        try:
            for event in events:
                data = data_of(event)
                if data is not None and data.strip() != b"[DONE]":
                    if self.tally.done:
                        continue
                    self._see(data, event)
                if data is not None or self.tally.events:
                    out.append(event)
        except NexusError as error:
            self.tally.failure = error
        out.append(b"")
        return b"\n\n".join(out)

    def _see(self, data: bytes, raw: bytes) -> None:
        """Count an event. Raises the error that it carries."""
        try:
            event: _Event = _event.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise UpstreamMalformed from None
        tally = self.tally
        tally.events += 1
        if isinstance(event.delta, str):
            tally.characters += len(event.delta)
        elif event.type in _ENDS:
            ended = _ended.decode(event.response)
            _finish(tally, ended)
            if event.type == "response.failed":
                raise _failure(ended.error, data, raw)
            tally.done, tally.finished = True, 1
        elif event.type == "error" or (not event.type and event.error is not None):
            error = event.error if isinstance(event.error, dict) else _any.decode(data)
            raise from_stream(error, body=data, event=raw)


def _history(call: Call) -> list[dict[str, Any]] | None:
    return call.history if isinstance(call, ResponsesCall) else None


def _mark(call: Call, *, made_here: bool) -> None:
    if isinstance(call, ResponsesCall):
        call.made_here = made_here


def _failure(error: Any, data: bytes, raw: bytes) -> NexusError:
    """Return the error of a failed response; the event tells the client more than we could."""
    found = UpstreamRejected("The provider could not answer.", upstream_status=502, body=data)
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        found.message = error["message"][:2000]
    found.event = raw
    return found


def _finish(tally: Tally, ended: _Ended) -> None:
    details = ended.incomplete_details
    reason = details.get("reason") if isinstance(details, dict) else None
    tally.finish_reason = reason if isinstance(reason, str) else ended.status
    if (usage := read_usage(ended.usage, ended.service_tier, ended.tool_usage)) is not None:
        tally.usage = usage


def _length(item: dict[str, Any]) -> int:
    length = len(item.get("arguments") or "") + len(item.get("input") or "")
    for part in (*(item.get("content") or ()), *(item.get("summary") or ())):
        if isinstance(part, dict):
            length += len(part.get("text") or "") + len(part.get("refusal") or "")
    return length


def _parse(body: bytes) -> ChatRequest:
    return read_request(_any.decode(body))


def _check_input(head: _Head) -> tuple[set[Need], dict[Need, str], int]:
    """Check the items; return what the model must be able to take, where, and how many characters."""
    if head.input is msgspec.UNSET or bytes(head.input) == b"null":
        if head.previous_response_id is None and head.prompt is None and head.conversation is None:
            raise MissingParameter("The parameter input is required.", field="input")
        return set(), {}, 0
    try:
        items = _items.decode(head.input)
    except msgspec.ValidationError as error:
        raise wrong_field(str(error), "input") from None
    except RecursionError:
        raise InvalidRequest("input is nested too deeply.", field="input") from None
    if isinstance(items, str):
        return set(), {}, len(items)
    needs: set[Need] = set()
    fields: dict[Need, str] = {}
    characters = 0
    for i, item in enumerate(items):
        if item.type == ADDED:
            needs.add("tools")
            fields.setdefault("tools", f"input.{i}.tools")
        for place, parts in _check_item(item, f"input.{i}"):
            for j, part in enumerate(parts):
                if need := _NEEDS.get(part.type):
                    needs.add(need)
                    fields.setdefault(need, f"{place}.{j}")
                elif part.type in ("input_text", "output_text") and part.text is None:
                    raise MissingParameter(field=f"{place}.{j}.text")
                characters += len(part.text or "")
        characters += sum(len(x) for x in (item.content, item.output, item.arguments) if isinstance(x, str))
    return needs, fields, characters


def _check_item(item: _Item, place: str) -> list[tuple[str, list[_Part]]]:
    """Check one item; return its lists of parts and where they stand."""
    kind = item.type or ("message" if item.role is not None else None)
    if kind is None and item.id is not None and item.content is None:
        return []  # a reference to an earlier item
    if kind is None:
        raise MissingParameter(f"{place}.type is required.", field=f"{place}.type")
    if kind == "message":
        if item.role not in _ROLES:
            field = f"{place}.role"
            raise InvalidRequest(f"{field} must be one of {', '.join(sorted(_ROLES))}.", field=field)
        if item.content is None:
            raise MissingParameter(f"{place}.content is required.", field=f"{place}.content")
    elif kind == "function_call":
        _require(place, name=item.name, call_id=item.call_id, arguments=item.arguments)
    elif kind == ADDED:
        _check_added(item.tools, f"{place}.tools")
    elif kind == "computer_call_output":
        _refuse_ours(item.output, "file_id", f"{place}.output")
    elif kind == "custom_tool_call":
        _require(place, name=item.name, call_id=item.call_id, input=item.input)
    elif kind in ("function_call_output", "custom_tool_call_output"):
        if item.output is None:
            raise MissingParameter(f"{place}.output is required.", field=f"{place}.output")
        if not isinstance(item.output, str):
            return [(f"{place}.output", _parts(item.output, f"{place}.output"))]
    if kind == "message" and not isinstance(item.content, str):
        return [(f"{place}.content", _parts(item.content, f"{place}.content"))]
    return []


def _check_added(tools: Any, place: str) -> None:
    if tools is None:
        raise MissingParameter(f"{place} is required.", field=place)
    try:
        _check_tools(msgspec.convert(tools, list[_Tool]), place)
    except msgspec.ValidationError as error:
        raise wrong_field(str(error), place) from None


def _check_tools(tools: list[_Tool], place: str) -> None:
    """Refuse files of ours where tools name what lies at their provider."""
    for i, tool in enumerate(tools):
        if tool.container is not None:
            _refuse_ours(tool.container, "file_ids", f"{place}.{i}.container")
        if tool.environment is not None:
            _refuse_ours(tool.environment, "file_ids", f"{place}.{i}.environment")
        if tool.input_image_mask is not None:
            _refuse_ours(tool.input_image_mask, "file_id", f"{place}.{i}.input_image_mask")


def _refuse_ours(holder: Any, name: str, place: str) -> None:
    if isinstance(holder, dict):
        refuse_ours(holder.get(name), f"{place}.{name}")


def _parts(given: Any, place: str) -> list[_Part]:
    try:
        return msgspec.convert(given, list[_Part])
    except msgspec.ValidationError as error:
        raise wrong_field(str(error), place) from None


def _require(place: str, **given: Any) -> None:
    for name, value in given.items():
        if value is None:
            raise MissingParameter(f"{place}.{name} is required.", field=f"{place}.{name}")
        if not isinstance(value, str):
            raise InvalidRequest(f"{place}.{name} must be a string.", field=f"{place}.{name}")


def _check_options(head: _Head, needs: set[Need], fields: dict[Need, str]) -> None:
    if isinstance(head.tool_choice, str) and head.tool_choice not in _CHOICES:
        raise InvalidRequest(f"tool_choice must be one of {', '.join(_CHOICES)}, or a tool.", field="tool_choice")
    _check_tools(head.tools or [], "tools")
    if head.prompt is not None and isinstance(variables := head.prompt.get("variables"), dict):
        for name, value in variables.items():
            _refuse_ours(value, "file_id", f"prompt.variables.{name}")
    form = head.text.format.type if head.text is not None and head.text.format is not None else "text"
    if form not in _FORMATS:
        raise InvalidRequest(f"text.format.type must be one of {', '.join(_FORMATS)}.", field="text.format.type")
    if form == "json_schema" and not isinstance(head.text and head.text.format and head.text.format.schema, dict):
        raise MissingParameter("The parameter text.format.schema is required.", field="text.format.schema")
    effort = head.reasoning.effort if head.reasoning is not None else None
    wanted: tuple[tuple[Need, str, bool], ...] = (
        ("tools", "tools", bool(head.tools)),
        ("json_schema", "text.format", form != "text"),
        ("logprobs", "top_logprobs", bool(head.top_logprobs)),
        ("reasoning", "reasoning.effort", effort not in (None, "none")),
    )
    for need, field, asked in wanted:
        if asked:
            needs.add(need)
            fields.setdefault(need, field)


plug = OpenAIResponses()
