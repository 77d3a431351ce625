"""The OpenAI chat-completions dialect: `POST /v1/chat/completions`, plain and streamed.

Source: https://platform.openai.com/docs/api-reference/chat. Only what must be known here is checked;
everything else travels as the client wrote it and is the provider's to judge.
"""

from __future__ import annotations

import functools
import time
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from nexus.core.errors import NexusError
from nexus.core.ids import new_id
from nexus.llm.dialect import Dialect, Door, Operation, Relay, Writer, card_of
from nexus.llm.errors import (
    InvalidRequest,
    MissingParameter,
    UpstreamMalformed,
    UpstreamTruncated,
    from_stream,
)
from nexus.llm.forms.chat import answers as chat_answers
from nexus.llm.forms.chat import embeddings as chat_embeddings
from nexus.llm.forms.chat import requests as chat_requests
from nexus.llm.forms.chat.checks import checked
from nexus.llm.forms.chat.named_files import NAMING
from nexus.llm.forms.chat.tools import PLAIN, Manner
from nexus.llm.forms.decoding import decode_checked
from nexus.llm.forms.free_form import unwrapped
from nexus.llm.types import (
    Call,
    ChatRequest,
    Chunk,
    Completion,
    Embedding,
    EmbeddingRequest,
    ModelCard,
    Need,
    Tally,
    Usage,
)
from nexus.llm.wire.likeness import Likeness
from nexus.llm.wire.sse import EventSplitter, data_of

_ROLES = frozenset(("system", "developer", "user", "assistant", "tool", "function"))
_NEEDS: dict[str, Need] = {
    "image_url": "images",
    "video_url": "images",
    "input_audio": "audio",
    "audio_url": "audio",
    "file": "documents",
    "document_url": "documents",
}
_NOTHING: frozenset[Need] = frozenset()
_DONE = b"data: [DONE]\n\n"
_LONGEST_END = 32


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Format(msgspec.Struct):
    type: str = "text"


class _Part(msgspec.Struct):
    type: str
    text: str | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | msgspec.UnsetType | None = msgspec.UNSET


_Tokens = Annotated[int, Meta(ge=1, le=10_000_000)]


class _Head(msgspec.Struct):
    model: str
    messages: list[_Message]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    stop: str | list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    functions: list[msgspec.Raw] | None = None
    response_format: _Format | None = None
    logprobs: bool | None = None
    reasoning_effort: str | None = None


class _Delta(msgspec.Struct, gc=False):
    content: Any = None
    refusal: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: Any = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    message: _Delta | None = None
    text: Any = None
    finish_reason: Any = None


class _Event(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    service_tier: Any = None
    usage: Any = None
    error: Any = None


class _UsualEvent(_Event, gc=False):
    usage: chat_answers.Figures | None = None


_WORDS = ("content", "reasoning_content", "reasoning")
_head = msgspec.json.Decoder(_Head)
_usual_event = msgspec.json.Decoder(_UsualEvent)
_event = msgspec.json.Decoder(_Event)
_any = msgspec.json.Decoder()


class OpenAIChat(Dialect):
    """Chat completions."""

    name = chat_requests.DIALECT
    path = "/v1/chat/completions"
    files = NAMING
    doors: tuple[Door, ...] = (
        Door("POST", "/v1/chat/completions"),
        Door("POST", "/v1/embeddings", "embed"),
        Door("GET", "/v1/models", "models"),
        Door("GET", "/v1/models/*", "models"),
    )

    def operation(self, path: str) -> Operation | None:
        """Say what is below `/v1/models/`: one model."""
        return "models"

    def parse(self, body: bytes, *, path: str = "", headers: dict[bytes, bytes] | None = None) -> Call:
        """Read and check a request. Raises `InvalidRequest` naming the field, or `MalformedBody`."""
        head: _Head = decode_checked(_head, body)
        if not head.model:
            raise MissingParameter("You must provide a model.", field="model")
        needs: set[Need] = set()
        fields: dict[Need, str] = {}
        characters = _check_messages(head.messages, needs, fields)
        _check_options(head, needs, fields)
        usage_too = head.stream_options is not None and head.stream_options.include_usage
        return Call(
            dialect=self.name,
            model=head.model,
            parse=functools.partial(_parse, body),
            body=body,
            stream=bool(head.stream),
            wants_usage=not head.stream or bool(usage_too),
            choices=head.n or 1,
            needs=frozenset(needs) if needs else _NOTHING,
            fields=fields,
            characters=characters,
            max_tokens=head.max_completion_tokens or head.max_tokens,
        )

    def inspect(self, body: bytes) -> Tally:
        """Look at a whole answer. Raises `UpstreamMalformed`, or the error that it carries."""
        tally = Tally(done=True)
        event = _read_event(body)
        if event.error is not None and not event.choices:
            raise from_stream(event.error, body=body)
        if not event.choices:
            raise UpstreamMalformed
        _count(tally, event)
        return tally

    def relay(self, call: Call) -> Relay:
        """Return a relay for one stream."""
        return OpenAIRelay(strip_usage=not call.wants_usage, choices=call.choices)

    def completion(self, completion: Completion, call: Call) -> bytes:
        """Write a whole answer."""
        return msgspec.json.encode(chat_answers.write_completion(completion, _manner(call)))

    def writer(self, call: Call) -> Writer:
        """Return a writer for one stream."""
        return OpenAIWriter(call)

    def parse_embedding(self, body: bytes, *, path: str = "") -> EmbeddingRequest:
        """Read and check a request to embed."""
        return chat_embeddings.read_request(body)

    def embedding(self, embedding: Embedding, request: EmbeddingRequest) -> bytes:
        """Write vectors as lists of numbers or as base64."""
        return chat_embeddings.write_answer(embedding, as_base64=request.form == "base64")

    def models(self, cards: list[ModelCard], path: str) -> bytes:
        """Write the list of models, or the one that `path` names. Raises `UnknownModel`."""
        name = path.partition("?")[0].removeprefix("/v1/models").lstrip("/")
        if not name:
            return msgspec.json.encode({"object": "list", "data": [_model_object(card) for card in cards]})
        return msgspec.json.encode(_model_object(card_of(cards, name)))


class OpenAIRelay:
    """Passes chat-completion chunks through, whole events only, and keeps the tally."""

    __slots__ = ("_choices", "_likeness", "_splitter", "_strip", "tally")

    def __init__(self, *, strip_usage: bool, choices: int) -> None:
        """With `strip_usage`, the usage event that only we asked for stays here."""
        self.tally = Tally()
        self._splitter = EventSplitter()
        self._likeness = Likeness()
        self._strip = strip_usage
        self._choices = choices

    def feed(self, data: bytes) -> bytes:
        """Return the whole events in `data` and what was held back before it."""
        if self._splitter.between and (letters := self._likeness.letters(data[:-2])) and data.endswith(b"\n\n"):
            # One event like the others, as most reads of most streams are.
            tally = self.tally
            if not tally.done:
                tally.events += 1
                tally.characters += letters
                return data
        ends = data.endswith(_DONE)
        passed = self._pass_plain(data[: -len(_DONE)] if ends else data)
        if passed is None:
            return self._pass(self._splitter.feed(data))
        if ends:
            self.tally.done = True
            passed += _DONE
        return passed

    def end(self) -> bytes:
        """Return the rest, with the end mark if the upstream forgot it. Raises `UpstreamTruncated`."""
        rest = self._pass(self._splitter.end())
        if isinstance(self.tally.failure, UpstreamMalformed):
            self.tally.failure = UpstreamTruncated()
        if self.tally.done or self.tally.failure is not None:
            return rest
        if self.tally.finished < self._choices:
            raise UpstreamTruncated
        self.tally.done = True
        return rest + _DONE

    def _pass_plain(self, data: bytes) -> bytes | None:
        """Pass events on that all have the usual shape and no error, looked at in one go; None for others."""
        lines = self._splitter.takes_plainly(data)
        if lines is None or self.tally.done:
            return None
        letters, unlike = self._likeness.part(lines)
        events: list[_UsualEvent] = []
        own: list[bytes] = []
        while unlike:
            line = unlike.pop(0)
            if line[:7] != b"data: {":
                return None
            try:
                event = _usual_event.decode(line[6:])
            except (msgspec.MsgspecError, RecursionError):
                return None
            if event.error is not None:
                return None
            events.append(event)
            if event.usage is not None:
                if self._strip and not event.choices:
                    own.append(line)
            elif _learn(self._likeness, line, event):
                said, unlike = self._likeness.part(unlike)
                letters += said
        tally = self.tally
        tally.events += len(lines)
        tally.characters += letters
        for event in events:
            _count(tally, event)
        if not own:
            return data
        for line in own:
            lines.remove(line)
        return b"\n\n".join((*lines, b""))

    def _pass(self, events: list[bytes]) -> bytes:
        out: list[bytes] = []
        tally = self.tally
        try:
            for event in events:
                if tally.done:
                    break
                data = data_of(event)
                if data is None:
                    if tally.events:
                        out.append(event)
                elif len(data) < _LONGEST_END and data.strip() == b"[DONE]":
                    tally.done = True
                    out.append(b"data: [DONE]")
                elif self._see(data, event):
                    out.append(event)
        except NexusError as error:
            tally.failure = error
        out.append(b"")
        return b"\n\n".join(out)

    def _see(self, data: bytes, raw: bytes) -> bool:
        """Count an event; False for one that stays here. Raises the error that it carries."""
        event = _read_event(data)
        self.tally.events += 1
        _count(self.tally, event)
        if event.error is not None:
            raise from_stream(event.error, body=data, event=raw)
        return not (self._strip and not event.choices and event.usage is not None)


class OpenAIWriter:
    """Writes chunks that came in another form."""

    def __init__(self, call: Call) -> None:
        """Know whether the client asked for usage, and how it wants calls written."""
        self._call = call
        self._manner = _manner(call)
        self._head: dict[str, Any] = {
            "id": new_id("chatcmpl"),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": call.model,
        }
        self._held: dict[tuple[int, int], list[str]] = {}
        self._usage: Usage | None = None

    def write(self, chunks: list[Chunk]) -> bytes:
        """Return the events for these pieces."""
        return b"".join(self._event(chunk) for chunk in chunks)

    def end(self) -> bytes:
        """Return the usage, if the client asked for it, and the end mark."""
        if self._usage is None or not self._call.wants_usage:
            return _DONE
        told = {"choices": [], "usage": chat_answers.write_usage(self._usage)}
        last = self._head | chat_answers.tier_told(self._usage) | told
        return b"data: " + msgspec.json.encode(last) + b"\n\n" + _DONE

    def _event(self, chunk: Chunk) -> bytes:
        for field in ("id", "model", "created"):
            if value := getattr(chunk, field):
                self._head[field] = value
        self._usage = chunk.usage or self._usage
        out = b""
        delta = chat_answers.write_delta(chunk)
        finish = chat_answers.write_finish(chunk.finish_reason, chunk.native_finish_reason)
        if self._manner is not PLAIN:
            out, finish = self._in_manner(chunk, delta, finish)
        logprobs = chunk.extra.get("logprobs")
        if delta or finish is not None or logprobs:
            more = chat_answers.strange_end(chunk.finish_reason, chunk.native_finish_reason)
            out += self._choice(chunk.index, delta, finish, logprobs, more)
        return out

    def _choice(
        self, index: int, delta: dict[str, Any], finish: str | None, logprobs: Any = None, more: Any = ()
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish, **dict(more)}
        return b"data: " + msgspec.json.encode(self._head | {"choices": [choice]}) + b"\n\n"

    def _in_manner(self, chunk: Chunk, delta: dict[str, Any], finish: str | None) -> tuple[bytes, str | None]:
        """Turn a call in `delta` into the client's manner; return what must go before it, and the finish reason."""
        if self._manner.older:
            for call in delta.pop("tool_calls", None) or ():
                if call["index"] == 0:
                    delta["function_call"] = call["function"]
            return b"", "function_call" if finish == "tool_calls" else finish
        out = b""
        for call in delta.get("tool_calls") or ():
            name, place = call["function"].get("name"), (chunk.index, call["index"])
            if name in self._manner.custom:
                self._held[place] = []
                delta["tool_calls"] = [call | {"type": "custom", "custom": {"name": name, "input": ""}}]
            if place in self._held:
                # Its text is known when the JSON around it is whole.
                self._held[place].append(call["function"]["arguments"])
                delta.pop("tool_calls") if name is None else delta["tool_calls"][0].pop("function")
        if finish is not None:
            for (index, position), pieces in self._held.items():
                told = {"index": position, "custom": {"input": unwrapped("".join(pieces))}}
                out += self._choice(index, {"tool_calls": [told]}, None)
            self._held.clear()
        return out, finish


def _manner(call: Call) -> Manner:
    asks = b'"functions"' in call.body or b'"custom"' in call.body
    return Manner.of(_any.decode(call.body)) if asks else PLAIN


def _model_object(card: ModelCard) -> dict[str, Any]:
    # NEXUS knows no date of making, so it is the epoch.
    more = {"task": card.task} | ({"demo": True} if card.demo else {})
    return {"id": card.name, "object": "model", "created": 0, "owned_by": card.owner, **more}


def _check_messages(messages: list[_Message], needs: set[Need], fields: dict[Need, str]) -> int:
    """Check roles and contents, and note what the model must be able to take; return how many characters there are."""
    if not messages:
        raise InvalidRequest("messages must have at least one message.", field="messages")
    characters = 0
    for i, message in enumerate(messages):
        if message.role not in _ROLES:
            raise InvalidRequest(
                f"messages.{i}.role must be one of {', '.join(sorted(_ROLES))}.", field=f"messages.{i}.role"
            )
        content = message.content
        if isinstance(content, str):
            characters += len(content)
        elif isinstance(content, list):
            for j, part in enumerate(content):
                if part.type == "text":
                    if part.text is None:
                        raise MissingParameter(field=f"messages.{i}.content.{j}.text")
                    characters += len(part.text)
                elif need := _NEEDS.get(part.type):
                    needs.add(need)
                    fields.setdefault(need, f"messages.{i}.content.{j}")
        elif message.role != "assistant":
            raise MissingParameter(f"messages.{i}.content is required.", field=f"messages.{i}.content")
    return characters


def _check_options(head: _Head, needs: set[Need], fields: dict[Need, str]) -> None:
    """Note what the model must be able to do, and which field asks for it."""
    if head.tools or head.functions:
        needs.add("tools")
        fields.setdefault("tools", "tools" if head.tools else "functions")
    if head.n is not None and head.n > 1:
        needs.add("choices")
        fields["choices"] = "n"
    if head.response_format is not None and head.response_format.type != "text":
        needs.add("json_schema")
        fields["json_schema"] = "response_format"
    if head.logprobs:
        needs.add("logprobs")
        fields["logprobs"] = "logprobs"
    if head.reasoning_effort is not None and head.reasoning_effort != "none":
        needs.add("reasoning")
        fields["reasoning"] = "reasoning_effort"


def _parse(body: bytes) -> ChatRequest:
    return chat_requests.read_request(checked(body))


def _read_event(data: bytes) -> _Event:
    try:
        return _usual_event.decode(data)
    except msgspec.ValidationError:
        return _read_unusual(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamMalformed from None


def _read_unusual(data: bytes) -> _Event:
    """Read valid JSON of another shape: what is senseless passes unseen unless it is no object at all."""
    try:
        return _event.decode(data)
    except msgspec.ValidationError:
        loose = _any.decode(data)
        if not isinstance(loose, dict):
            raise UpstreamMalformed from None
        return _Event(
            choices=[], usage=loose.get("usage"), service_tier=loose.get("service_tier"), error=loose.get("error")
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamMalformed from None


def _learn(alike: Likeness, line: bytes, event: _UsualEvent) -> bool:
    """Let events be known that differ from this one only in what they say or think."""
    choices = event.choices or []
    delta = choices[0].delta if len(choices) == 1 else None
    if delta is None or choices[0] != _Choice(delta) or delta.refusal is not None or delta.tool_calls:
        return False
    words = delta.content or delta.reasoning_content or delta.reasoning
    alone = [name for name in _WORDS if getattr(delta, name)]
    return len(alone) == 1 and isinstance(words, str) and alike.learn(line, alone[0].encode(), words)


def _count(tally: Tally, event: _Event) -> None:
    for choice in event.choices or ():
        said = choice.delta or choice.message
        if said is not None:
            if type(said.content) is str:
                tally.characters += len(said.content)
            if said.refusal is not None and isinstance(said.refusal, str):
                tally.characters += len(said.refusal)
            thoughts = said.reasoning_content or said.reasoning
            if thoughts is not None and isinstance(thoughts, str):
                tally.characters += len(thoughts)
            if said.tool_calls:
                tally.characters += len(msgspec.json.encode(said.tool_calls)) // 2
        if choice.text is not None and isinstance(choice.text, str):
            tally.characters += len(choice.text)
        if choice.finish_reason:
            tally.finished += 1
            tally.finish_reason = str(choice.finish_reason)
    if event.usage is not None and (usage := chat_answers.read_usage(event.usage, event.service_tier)) is not None:
        tally.usage = usage


plug = OpenAIChat()
