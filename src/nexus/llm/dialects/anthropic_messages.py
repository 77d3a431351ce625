"""Anthropic's Messages dialect: `POST /v1/messages`, plain and streamed, `/v1/messages/count_tokens`, the models.

Source: https://platform.claude.com/docs/en/api. Only what must be known here is checked; everything else travels
as the client wrote it and is the provider's to judge.
"""

from __future__ import annotations

import functools
from types import MappingProxyType
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from nexus.core.errors import MalformedBody, NexusError
from nexus.llm.dialect import Dialect, Door, Relay, Writer, card_of
from nexus.llm.errors import InvalidRequest, MissingParameter, UpstreamMalformed, UpstreamTruncated, WrongType
from nexus.llm.forms.decoding import decode_checked, wrong_field
from nexus.llm.forms.messages import requests as messages_requests
from nexus.llm.forms.messages.answers import merge_usage, read_error, read_stop, read_usage, write_answer
from nexus.llm.forms.messages.named_files import NAMING
from nexus.llm.forms.messages.stream import AnswerWriter
from nexus.llm.forms.named_files import refuse_ours
from nexus.llm.types import Call, ChatRequest, Chunk, Completion, ModelCard, Need, Tally, Usage
from nexus.llm.wire.sse import EventSplitter, data_of

_HANDED_ON = (b"anthropic-version", b"anthropic-beta", b"anthropic-user-profile-id")
_COUNT = "/v1/messages/count_tokens"
_ROLES = ("user", "assistant", "system")
_CHARACTERS_PER_TOKEN = 4
# The kinds of sources of pictures and documents, and where each holds what it is.
_SOURCES = {"base64": "data", "url": "url", "file": "file_id", "text": "data", "content": "content"}
_MEDIA: dict[str, Need] = {"image": "images", "document": "documents"}
# The events before anything is said.
_GREETING = frozenset(("message_start", "content_block_start", "ping"))


class _Choice(msgspec.Struct):
    type: str
    name: str | None = None


class _Thinking(msgspec.Struct):
    type: str
    budget_tokens: int | None = None


class _Format(msgspec.Struct):
    schema: dict[str, Any] | None = None


class _Output(msgspec.Struct):
    effort: str | None = None
    format: _Format | None = None


class _Metadata(msgspec.Struct):
    user_id: str | None = None


class _Tool(msgspec.Struct):
    type: str | None = None
    name: str | None = None
    input_schema: dict[str, Any] | None = None
    description: Any = None
    model: Any = None


class _Head(msgspec.Struct):
    model: str
    messages: msgspec.Raw
    max_tokens: Annotated[int, Meta(ge=0, le=10_000_000)] | None = None
    system: msgspec.Raw = msgspec.Raw(b"null")
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=10_000_000)] | None = None
    stop_sequences: list[str] | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: _Choice | None = None
    thinking: _Thinking | None = None
    output_config: _Output | None = None
    output_format: _Format | None = None
    metadata: _Metadata | None = None


class _Block(msgspec.Struct):
    type: str
    text: Any = None
    thinking: Any = None
    signature: Any = None
    data: Any = None
    source: Any = None
    title: Any = None
    context: Any = None
    content: Any = None
    id: Any = None
    name: Any = None
    input: Any = None
    tool_use_id: Any = None
    file_id: Any = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Block] | None = None
    output_config: _Output | None = None


class _Delta(msgspec.Struct):
    text: Any = None
    thinking: Any = None
    partial_json: Any = None
    stop_reason: Any = None


class _Event(msgspec.Struct):
    type: Any = None
    message: Any = None
    delta: _Delta | None = None
    usage: Any = None
    error: Any = None


_head = msgspec.json.Decoder(_Head)
_messages = msgspec.json.Decoder(list[_Message])
_system = msgspec.json.Decoder(str | list[_Block])
_tool = msgspec.json.Decoder(_Tool)
_event = msgspec.json.Decoder(_Event)
_any = msgspec.json.Decoder()


class AnthropicMessages(Dialect):
    """Messages."""

    name = messages_requests.DIALECT
    path = "/v1/messages"
    files = NAMING
    doors = (
        Door("POST", "/v1/messages"),
        Door("POST", _COUNT, "count"),
        Door("GET", "/v1/models", "models", b"anthropic-version"),
        Door("GET", "/v1/models/*", "models", b"anthropic-version"),
    )
    words = MappingProxyType(
        {
            "stop": "stop_sequences",
            "reasoning_effort": "thinking",
            "response_format": "output_config.format",
            "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
            "user": "metadata.user_id",
        }
    )
    heartbeat = b'event: ping\ndata: {"type": "ping"}\n\n'

    def parse(self, body: bytes, *, path: str = "", headers: dict[bytes, bytes] | None = None) -> Call:
        """Read and check a request. Raises `InvalidRequest` naming the field, or `MalformedBody`."""
        head: _Head = decode_checked(_head, body)
        if not head.model:
            raise MissingParameter("The parameter model is required.", field="model")
        if head.max_tokens is None and path.partition("?")[0] != _COUNT:
            raise MissingParameter("The parameter max_tokens is required.", field="max_tokens")
        seen = _Seen()
        seen.messages(head.messages)
        seen.system(head.system)
        seen.options(head)
        given = headers or {}
        return Call(
            dialect=self.name,
            model=head.model,
            parse=functools.partial(_parse, body),
            body=body,
            stream=bool(head.stream),
            needs=frozenset(seen.needs),
            fields=seen.fields,
            characters=seen.characters,
            max_tokens=head.max_tokens,
            advisors=tuple(seen.advisors),
            headers=tuple((name, given[name]) for name in _HANDED_ON if name in given),
        )

    def inspect(self, body: bytes) -> Tally:
        """Look at a whole answer. Raises `UpstreamMalformed`, or the error that it carries."""
        try:
            answer = _any.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise UpstreamMalformed from None
        if isinstance(answer, dict) and answer.get("type") == "error":
            raise read_error(answer.get("error"), body=body)
        if not isinstance(answer, dict) or not isinstance(answer.get("content"), list):
            raise UpstreamMalformed
        stop = answer.get("stop_reason")
        tally = Tally(done=True, finished=1, usage=read_usage(answer.get("usage")))
        tally.finish_reason = stop if isinstance(stop, str) else None
        for block in answer["content"]:
            said = [block.get("text"), block.get("thinking")] if isinstance(block, dict) else []
            tally.characters += sum(len(words) for words in said if isinstance(words, str))
            if isinstance(block, dict) and block.get("input"):
                tally.characters += len(msgspec.json.encode(block["input"]))
        return tally

    def relay(self, call: Call) -> Relay:
        """Return a relay for one stream."""
        return MessagesRelay()

    def completion(self, completion: Completion, call: Call) -> bytes:
        """Write a whole answer."""
        usage = completion.usage or _estimate(call, len(completion.text))
        return msgspec.json.encode(write_answer(completion, usage))

    def writer(self, call: Call) -> Writer:
        """Return a writer for one stream."""
        return MessagesWriter(call)

    def count(self, tokens: int, call: Call) -> bytes:
        """Write how many tokens a request has."""
        return msgspec.json.encode({"input_tokens": tokens})

    def models(self, cards: list[ModelCard], path: str) -> bytes:
        """Write the list of chat models, or the one that `path` names. Raises `UnknownModel`."""
        able = [card for card in cards if card.task == "chat"]
        place, _, query = path.partition("?")
        if name := place.removeprefix("/v1/models").lstrip("/"):
            return msgspec.json.encode(_model_object(card_of(able, name)))
        page, more = _page(able, dict(parse_qsl(query)))
        first, last = (page[0].name, page[-1].name) if page else (None, None)
        listed = {"data": [_model_object(card) for card in page], "has_more": more, "first_id": first, "last_id": last}
        return msgspec.json.encode(listed)


class MessagesRelay:
    """Passes Messages events through, whole ones only, and keeps the tally.

    The greeting is held back until something is said: a provider that fails in between, as overloaded ones do,
    has not begun to answer, and another may still be asked.
    """

    __slots__ = ("_held", "_splitter", "_usage", "tally")

    def __init__(self) -> None:
        """Begin before the first event."""
        self.tally = Tally()
        self._splitter = EventSplitter()
        self._usage: dict[str, Any] = {}
        self._held: list[bytes] | None = []

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
            for raw in events:
                data = data_of(raw)
                if self.tally.done or (data is None and not self.tally.events):
                    continue
                event = _read_event(data) if data is not None else None
                if event is not None:
                    self._see(event, data or b"", raw)
                if self._held is None:
                    out.append(raw)
                    continue
                self._held.append(raw)
                if event is not None and event.type not in _GREETING:
                    out += self._held
                    self._held = None
        except NexusError as error:
            self.tally.failure = error
        out.append(b"")
        return b"\n\n".join(out)

    def _see(self, event: _Event, data: bytes, raw: bytes) -> None:
        """Count an event. Raises the error that it carries."""
        tally = self.tally
        tally.events += 1
        if event.type == "error" or event.error is not None:
            raise read_error(event.error, body=data, event=raw)
        if event.type == "message_stop":
            tally.done = True
        usage = event.message.get("usage") if isinstance(event.message, dict) else event.usage
        if usage is not None:
            merge_usage(self._usage, usage)
            tally.usage = read_usage(self._usage)
        if (delta := event.delta) is not None:
            for words in (delta.text, delta.thinking, delta.partial_json):
                if isinstance(words, str):
                    tally.characters += len(words)
            if read_stop(delta.stop_reason) is not None:
                tally.finished, tally.finish_reason = 1, delta.stop_reason


class MessagesWriter:
    """Writes chunks that came in another form."""

    def __init__(self, call: Call) -> None:
        """Know the request, for estimates where the provider gives no figures."""
        self._call = call
        self._answer = AnswerWriter(call.model)

    def write(self, chunks: list[Chunk]) -> bytes:
        """Return the events for these pieces."""
        return b"".join([self._answer.write(chunk) for chunk in chunks])

    def end(self) -> bytes:
        """Return the closing events."""
        return self._answer.end(self._answer.usage or _estimate(self._call, self._answer.characters))


class _Seen:
    """What a request holds, gathered while it is checked: needs, where they come from, and characters."""

    def __init__(self) -> None:
        self.needs: set[Need] = set()
        self.fields: dict[Need, str] = {}
        self.advisors: list[str] = []
        self.characters = 0

    def need(self, need: Need, field: str) -> None:
        self.needs.add(need)
        self.fields.setdefault(need, field)

    def messages(self, raw: msgspec.Raw) -> None:
        messages = _decode(_messages, raw, "messages")
        if not messages:
            raise InvalidRequest("messages must have at least one message.", field="messages")
        for i, message in enumerate(messages):
            if message.role not in _ROLES:
                place = f"messages.{i}.role"
                raise InvalidRequest(f"{place} must be one of {', '.join(_ROLES)}.", field=place)
            # A system message may be there for its settings alone.
            if message.content is None and not (message.role == "system" and message.output_config is not None):
                place = f"messages.{i}.content"
                raise MissingParameter(f"The parameter {place} is required.", field=place)
            self.content(message.content or [], f"messages.{i}.content")

    def system(self, raw: msgspec.Raw) -> None:
        if bytes(raw) != b"null":
            self.content(_decode(_system, raw, "system"), "system")

    def options(self, head: _Head) -> None:
        for i, raw in enumerate(head.tools or ()):
            tool = _decode(_tool, raw, f"tools.{i}")
            self.need("tools", "tools")
            self.characters += len(bytes(raw))
            if isinstance(tool.type, str) and tool.type.startswith("advisor_") and isinstance(tool.model, str):
                self.advisors.append(tool.model)
            if tool.type in (None, "custom"):
                _require(tool.name, str, f"tools.{i}.name")
                _require(tool.input_schema, dict, f"tools.{i}.input_schema")
                _require(tool.description or "", str, f"tools.{i}.description")
        if head.tool_choice is not None and head.tool_choice.type == "tool":
            _require(head.tool_choice.name, str, "tool_choice.name")
        if head.thinking is not None and head.thinking.type == "enabled":
            _require(head.thinking.budget_tokens, int, "thinking.budget_tokens")
        if head.output_config is not None and head.output_config.format is not None:
            self.need("json_schema", "output_config.format")
        if head.output_format is not None:
            self.need("json_schema", "output_format")

    def content(self, content: Any, place: str) -> None:
        """Check one text or a list of blocks, also one not yet converted."""
        if isinstance(content, str):
            self.characters += len(content)
            return
        if not isinstance(content, list):
            raise WrongType(f"{place} must be a text or a list of blocks.", field=place)
        for i, block in enumerate(content):
            self.block(block if isinstance(block, _Block) else _convert(block, f"{place}.{i}"), f"{place}.{i}")

    def block(self, block: _Block, place: str) -> None:
        kind = block.type
        if kind in ("text", "thinking"):
            self.characters += len(_require(getattr(block, kind), str, f"{place}.{kind}"))
            _require(block.signature or "", str, f"{place}.signature")
        elif kind == "redacted_thinking":
            _require(block.data, str, f"{place}.data")
        elif kind in _MEDIA:
            self.source(_require(block.source, dict, f"{place}.source"), kind, place)
            _require(block.title or "", str, f"{place}.title")
            _require(block.context or "", str, f"{place}.context")
        elif kind == "tool_use":
            _require(block.id, str, f"{place}.id")
            _require(block.name, str, f"{place}.name")
            self.characters += len(msgspec.json.encode(_require(block.input, dict, f"{place}.input")))
        elif kind == "tool_result":
            _require(block.tool_use_id, str, f"{place}.tool_use_id")
            if block.content is not None:
                self.content(block.content, f"{place}.content")
        elif kind == "search_result":
            self.content(block.content, f"{place}.content")
        elif kind == "container_upload":
            refuse_ours(block.file_id, f"{place}.file_id")

    def source(self, source: dict[str, Any], kind: str, place: str) -> None:
        form = _require(source.get("type"), str, f"{place}.source.type")
        if form == "content":
            self.content(source.get("content"), f"{place}.source.content")
        elif form in _SOURCES:
            held = _require(source.get(_SOURCES[form]), str, f"{place}.source.{_SOURCES[form]}")
            if form == "base64":
                _require(source.get("media_type"), str, f"{place}.source.media_type")
            if form == "text":
                self.characters += len(held)
        if form not in ("content", "text"):
            self.need(_MEDIA[kind], place)


def _require(value: Any, kind: type[Any], field: str) -> Any:
    """Return the value if it is of this kind. Raises an error that names the field."""
    if value is None:
        raise MissingParameter(f"The parameter {field} is required.", field=field)
    if not isinstance(value, kind):
        raise WrongType(f"{field} must be of type {kind.__name__}.", field=field)
    return value


def _decode(decoder: msgspec.json.Decoder[Any], raw: msgspec.Raw, place: str) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise wrong_field(str(error), place) from None
    except RecursionError:
        raise MalformedBody("The body is nested too deeply.") from None


def _convert(block: Any, place: str) -> _Block:
    try:
        return msgspec.convert(block, _Block)
    except msgspec.ValidationError as error:
        raise wrong_field(str(error), place) from None


def _parse(body: bytes) -> ChatRequest:
    return messages_requests.read_request(_any.decode(body))


def _read_event(data: bytes) -> _Event:
    try:
        return _event.decode(data)
    except msgspec.ValidationError:
        # Valid JSON of an unusual shape: it passes unseen unless it is no object at all.
        loose = _any.decode(data)
        if not isinstance(loose, dict):
            raise UpstreamMalformed from None
        return _Event(type=loose.get("type"), usage=loose.get("usage"), error=loose.get("error"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamMalformed from None


def _estimate(call: Call, characters: int) -> Usage:
    return Usage(
        input_tokens=-(-call.characters // _CHARACTERS_PER_TOKEN),
        output_tokens=-(-characters // _CHARACTERS_PER_TOKEN),
        estimated=True,
    )


def _page(cards: list[ModelCard], query: dict[str, str]) -> tuple[list[ModelCard], bool]:
    """Return the page asked for by `limit`, `after_id` and `before_id`, and whether more follow that way."""
    limit = query.get("limit", "1000")
    if not limit.isdecimal() or not 1 <= int(limit) <= 1000:
        raise InvalidRequest("limit must be between 1 and 1000.", field="limit")
    names = [card.name for card in cards]
    after, before = query.get("after_id"), query.get("before_id")
    if before is not None:
        rest = cards[: names.index(before)] if before in names else []
        return rest[-int(limit) :], len(rest) > int(limit)
    rest = cards[names.index(after) + 1 :] if after in names else cards if after is None else []
    return rest[: int(limit)], len(rest) > int(limit)


def _model_object(card: ModelCard) -> dict[str, Any]:
    # NEXUS knows no date of making; the API itself gives the epoch where it has none.
    return {
        "type": "model",
        "id": card.name,
        "display_name": card.name,
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
    }


plug = AnthropicMessages()
