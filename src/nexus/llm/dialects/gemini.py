"""The Gemini dialect: `/v1beta/models` and what is below it, as Google's own SDKs ask for it.

Source: https://ai.google.dev/api. The model and what is asked stand in the path; a stream comes as
server-sent events with `?alt=sse`, else as one JSON array that grows. Only what must be known here is
checked; everything else travels as the client wrote it and is the provider's to judge.
"""

from __future__ import annotations

import functools
import re
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote

import msgspec

from nexus.core.errors import NexusError
from nexus.http import problem
from nexus.llm.dialect import Dialect, Door, Operation, Relay, Writer, card_of
from nexus.llm.errors import InvalidRequest, MissingParameter, UpstreamMalformed, UpstreamRejected, UpstreamTruncated
from nexus.llm.forms.gemini import embeddings as gemini_embeddings
from nexus.llm.forms.gemini import requests as gemini_requests
from nexus.llm.forms.gemini.answers import AnswerWriter, finish_name, read_usage, write_completion
from nexus.llm.forms.gemini.checks import check_request, read_body
from nexus.llm.forms.gemini.errors import read_error, told_of
from nexus.llm.forms.gemini.named_files import NAMING
from nexus.llm.forms.gemini.notes import count_searches
from nexus.llm.forms.gemini.parts import DIALECT
from nexus.llm.forms.gemini.stream import Piece, PieceSplitter
from nexus.llm.types import (
    Call,
    Chunk,
    Completion,
    Embedding,
    EmbeddingRequest,
    ModelCard,
    Tally,
)

_PLACE = re.compile(r"/v1(?:beta)?/models/?")
_OPERATIONS: dict[str, Operation] = {
    "generateContent": "chat",
    "streamGenerateContent": "chat",
    "embedContent": "embed",
    "batchEmbedContents": "embed",
    "countTokens": "count",
}
_METHODS = {"chat": ["generateContent", "countTokens"], "embedding": ["embedContent", "batchEmbedContents"]}
_HEADERS = (b"x-vertex-ai-llm-request-type", b"x-vertex-ai-llm-shared-request-type", b"x-server-timeout")
_PLAIN_ITEM = re.compile(r"[\w$%;=.-]+", re.ASCII)
_PAGE, _LARGEST_PAGE = 50, 1000


class _Said(msgspec.Struct, rename="camel"):
    text: Any = None
    function_call: Any = None


class _SaidContent(msgspec.Struct):
    parts: list[_Said] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    index: int | None = None
    content: _SaidContent | None = None
    finish_reason: Any = None
    grounding_metadata: Any = None


class _Answer(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: dict[str, Any] | None = None
    usage_metadata: Any = None
    model_version: Any = None
    error: Any = None


_answer = msgspec.json.Decoder(_Answer)
_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode


class Gemini(Dialect):
    """Chat, embeddings, counting and models, with streams as server-sent events."""

    name = DIALECT
    path = "/v1beta/models"
    files = NAMING
    words = MappingProxyType(
        {
            "messages": "contents",
            "n": "generationConfig.candidateCount",
            "stop": "generationConfig.stopSequences",
            "max_tokens": "generationConfig.maxOutputTokens",
            "temperature": "generationConfig.temperature",
            "top_p": "generationConfig.topP",
            "top_k": "generationConfig.topK",
            "seed": "generationConfig.seed",
            "presence_penalty": "generationConfig.presencePenalty",
            "frequency_penalty": "generationConfig.frequencyPenalty",
            "logprobs": "generationConfig.responseLogprobs",
            "top_logprobs": "generationConfig.logprobs",
            "response_format": "generationConfig.responseSchema",
            "reasoning_effort": "generationConfig.thinkingConfig",
            "tool_choice": "toolConfig.functionCallingConfig",
            "service_tier": "serviceTier",
            "input": "content",
            "dimensions": "outputDimensionality",
            "task": "taskType",
        }
    )
    # A bare line end: Google's SDK takes a comment for an answer.
    heartbeat = b"\n"
    # Newer SDKs ask below /v1, where others have their lists of models.
    doors: tuple[Door, ...] = (
        Door("POST", "/v1beta/models/*"),
        Door("GET", "/v1beta/models", "models"),
        Door("GET", "/v1beta/models/*", "models"),
        Door("POST", "/v1/models/*"),
        Door("GET", "/v1/models", "models", b"x-goog-api-key"),
        Door("GET", "/v1/models/*", "models", b"x-goog-api-key"),
    )

    def operation(self, path: str) -> Operation | None:
        """Return what the word behind the last colon asks for."""
        return _OPERATIONS.get(path.rpartition(":")[2])

    def answering(self, call: Call) -> Dialect:
        """Return this, or the form that streams a JSON array."""
        return self if not call.stream or "alt=sse" in call.form else GeminiArray()

    def parse(self, body: bytes, *, path: str = "", headers: dict[bytes, bytes] | None = None) -> Call:
        """Read and check a request. Raises `InvalidRequest` naming the field, or `MalformedBody`."""
        model, operation, query = _split(path)
        told = read_body(body)
        checked = check_request(told.get("generateContentRequest", told) if operation == "countTokens" else told)
        stream = operation == "streamGenerateContent"
        given = headers or {}
        return Call(
            dialect=self.name,
            model=model,
            parse=functools.partial(gemini_requests.read_request, checked.told, model),
            body=body,
            stream=stream,
            choices=checked.choices,
            needs=frozenset(checked.needs),
            fields=checked.needs,
            characters=checked.characters,
            max_tokens=checked.max_tokens,
            headers=tuple((name, given[name]) for name in _HEADERS if name in given),
            form=_form(query, stream=stream),
        )

    def inspect(self, body: bytes) -> Tally:
        """Look at a whole answer. Raises `UpstreamMalformed`, or the error that it carries."""
        tally = Tally(done=True)
        answer = _read_answer(body)
        if answer.error is not None and not answer.candidates:
            raise read_error(told_of({"error": answer.error}) or {}, body=body)
        if answer.candidates is None and answer.prompt_feedback is None and answer.usage_metadata is None:
            raise UpstreamMalformed
        _look(tally, answer, set(), set())
        return tally

    def relay(self, call: Call) -> Relay:
        """Return a relay for one stream."""
        return GeminiRelay(_Events())

    def completion(self, completion: Completion, call: Call) -> bytes:
        """Write a whole answer."""
        return _encode(write_completion(completion))

    def writer(self, call: Call) -> Writer:
        """Return a writer for one stream."""
        return GeminiWriter(_Events(), call.model)

    def parse_embedding(self, body: bytes, *, path: str = "") -> EmbeddingRequest:
        """Read and check a request to embed. Raises as `parse` does."""
        model, operation, _ = _split(path)
        return gemini_embeddings.read_request(read_body(body), model, form=operation, raw=body)

    def embedding(self, embedding: Embedding, request: EmbeddingRequest) -> bytes:
        """Write vectors."""
        return gemini_embeddings.write_answer(embedding, request.form)

    def count(self, tokens: int, call: Call) -> bytes:
        """Write how many tokens a request has."""
        return _encode({"totalTokens": tokens})

    def models(self, cards: list[ModelCard], path: str) -> bytes:
        """Write a page of the list of models, or the one that `path` names. Raises `UnknownModel`."""
        place, _, query = path.partition("?")
        if name := unquote(_PLACE.sub("", place, count=1)):
            return _encode(_model_object(card_of(cards, name)))
        asked = dict(parse_qsl(query))
        size = _whole(asked, "pageSize") or _PAGE
        begin = _whole(asked, "pageToken")
        end = begin + min(size, _LARGEST_PAGE)
        listed = {"models": [_model_object(card) for card in cards[begin:end]]}
        return _encode(listed | ({"nextPageToken": str(end)} if end < len(cards) else {}))


class GeminiArray(Gemini):
    """The same, with a stream as one JSON array. One for each stream, since an error depends on what came before."""

    content_type = b"application/json; charset=UTF-8"
    doors = ()

    def __init__(self) -> None:
        """Begin before the first element."""
        self._frame = _Array()

    def relay(self, call: Call) -> Relay:
        """Return a relay for one stream; a second try begins anew."""
        self._frame = _Array()
        return GeminiRelay(self._frame)

    def writer(self, call: Call) -> Writer:
        """Return a writer for one stream."""
        self._frame = _Array()
        return GeminiWriter(self._frame, call.model)

    def stream_error(self, error: NexusError, request_id: str | None) -> bytes:
        """Write an error as the last element."""
        return self._frame.piece(Piece(problem.render(self.path, error, request_id).encode())) + self._frame.end()


class _Frame(Protocol):
    """How the answer objects of a stream stand one behind the other."""

    def piece(self, piece: Piece) -> bytes: ...

    def end(self) -> bytes: ...


class _Events:
    """Server-sent events."""

    def piece(self, piece: Piece) -> bytes:
        # White space in JSON may be left out; a line end in an event may not stand.
        event = piece.event or b"data: " + piece.data.replace(b"\n", b"").replace(b"\r", b"")
        return event + b"\n\n"

    def end(self) -> bytes:
        return b""


class _Array:
    """One JSON array, with white space as Google writes it."""

    def __init__(self) -> None:
        self._begun = False

    def piece(self, piece: Piece) -> bytes:
        before, self._begun = b"\n,\r\n" if self._begun else b"[", True
        return before + piece.data

    def end(self) -> bytes:
        return b"\n]" if self._begun else b"[]"


class GeminiRelay:
    """Passes answer objects through, whole ones only, and keeps the tally."""

    __slots__ = ("_frame", "_over", "_seen", "_splitter", "tally")

    def __init__(self, frame: _Frame) -> None:
        """Write in `frame`, in whichever form the stream comes."""
        self.tally = Tally()
        self._frame = frame
        self._splitter = PieceSplitter()
        self._seen: set[int] = set()
        self._over: set[int] = set()

    def feed(self, data: bytes) -> bytes:
        """Return the whole objects in `data` and what was held back before it."""
        try:
            out = self._pass(self._splitter.feed(data))
        except NexusError as error:
            self.tally.failure = error
            return b""
        if self._splitter.closed and not self.tally.done and self.tally.failure is None:
            if self._complete:
                self.tally.done = True
                return out + self._frame.end()
            self.tally.failure = UpstreamTruncated()
        return out

    def end(self) -> bytes:
        """Return the rest. Raises `UpstreamTruncated` when an answer had begun and not ended."""
        rest = self._pass(self._splitter.end())
        if isinstance(self.tally.failure, UpstreamMalformed):
            self.tally.failure = UpstreamTruncated()
        if self.tally.done or self.tally.failure is not None:
            return rest
        if not self._complete:
            raise UpstreamTruncated
        self.tally.done = True
        return rest + self._frame.end()

    @property
    def _complete(self) -> bool:
        """Tell whether every answer that had begun has ended."""
        return bool(self._over) and self._seen <= self._over

    def _pass(self, pieces: list[Piece]) -> bytes:
        out: list[bytes] = []
        try:
            for piece in pieces:
                answer = _read_answer(piece.data)
                if answer.error is not None:
                    raise _failure(answer.error, piece, self._frame)
                self.tally.events += 1
                _look(self.tally, answer, self._seen, self._over)
                out.append(self._frame.piece(piece))
        except NexusError as error:
            self.tally.failure = error
        return b"".join(out)


def _failure(told: Any, piece: Piece, frame: _Frame) -> NexusError:
    """Return the error of a stream; within an array its place is not known, so it is written anew there."""
    found = read_error(told_of({"error": told}) or {}, body=piece.data)
    if isinstance(found, UpstreamRejected) and isinstance(frame, _Events):
        found.event = frame.piece(piece)[:-2]
    return found


class GeminiWriter:
    """Writes chunks that came in another form."""

    def __init__(self, frame: _Frame, model: str) -> None:
        """Write in `frame`."""
        self._frame = frame
        self._answer = AnswerWriter(model)

    def write(self, chunks: list[Chunk]) -> bytes:
        """Return the objects for these pieces."""
        written = (self._answer.write(chunk) for chunk in chunks)
        return b"".join(self._frame.piece(Piece(_encode(body))) for body in written if body is not None)

    def end(self) -> bytes:
        """Return the last object, which has reason and usage."""
        return self._frame.piece(Piece(_encode(self._answer.end()))) + self._frame.end()


def _split(path: str) -> tuple[str, str, str]:
    """Return the model's name, what is asked, and the query."""
    place, _, query = path.partition("?")
    name, _, operation = _PLACE.sub("", place, count=1).rpartition(":")
    name = unquote(name).removeprefix("models/")
    if not name:
        raise MissingParameter("You must provide a model.", field="model")
    return name, operation, query


def _form(query: str, *, stream: bool) -> str:
    """Return the part of the query that says how the answer is to look; keys and the like stay here."""
    kept = []
    for item in query.split("&"):
        name, _, value = unquote(item).partition("=")
        name = name.removeprefix("$")
        if name == "alt" and (value.partition(";")[0] not in ("sse", "json") or not _PLAIN_ITEM.fullmatch(item)):
            raise InvalidRequest("alt must be sse or json.", field="alt")
        if (name == "alt" and (stream or value != "sse")) or (name == "prettyPrint" and _PLAIN_ITEM.fullmatch(item)):
            kept.append(item)
    return "&".join(kept)


def _read_answer(data: bytes) -> _Answer:
    try:
        return _answer.decode(data)
    except msgspec.ValidationError:
        # Valid JSON of an unusual shape: it passes unseen unless it is no object at all.
        loose = _any.decode(data)
        if isinstance(loose, list):
            loose = {"error": told_of(loose)}
        if not isinstance(loose, dict) or loose == {"error": None}:
            raise UpstreamMalformed from None
        return _Answer(candidates=[], usage_metadata=loose.get("usageMetadata"), error=loose.get("error"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamMalformed from None


def _look(tally: Tally, answer: _Answer, seen: set[int], over: set[int]) -> None:
    """Count one answer object; note which candidates have begun and which have ended."""
    searches = 0
    for place, candidate in enumerate(answer.candidates or ()):
        index = place if candidate.index is None else candidate.index
        seen.add(index)
        if candidate.grounding_metadata is not None:
            searches += count_searches(candidate.grounding_metadata, str(answer.model_version or ""))
        for part in (candidate.content.parts if candidate.content is not None else None) or ():
            if isinstance(part.text, str):
                tally.characters += len(part.text)
            elif part.function_call is not None:
                tally.characters += len(_encode(part.function_call))
        if (reason := finish_name(candidate.finish_reason)) is not None:
            over.add(index)
            tally.finished += 1
            tally.finish_reason = reason
    blocked = answer.prompt_feedback.get("blockReason") if answer.prompt_feedback is not None else None
    if blocked is not None and not seen:
        over.add(0)
        tally.finished += 1
        tally.finish_reason = str(blocked)
    if tally.usage is not None:
        # Pieces of a stream tell of the same searches, or not at all.
        searches = max(searches, tally.usage.web_searches)
    tally.usage = read_usage(answer.usage_metadata, searches) or tally.usage


def _model_object(card: ModelCard) -> dict[str, Any]:
    return {
        "name": f"models/{card.name}",
        "version": "1",
        "displayName": card.name,
        "description": f"Served by {card.owner}." + (" A demo model." if card.demo else ""),
        "supportedGenerationMethods": _METHODS.get(card.task, _METHODS["chat"]),
    }


def _whole(asked: dict[str, str], name: str) -> int:
    value = asked.get(name) or "0"
    if not value.isascii() or not value.isdecimal() or len(value) > 9:
        raise InvalidRequest(f"{name} must be a number of this list.", field=name)
    return int(value)


plug = Gemini()
