"""Any server that speaks OpenAI's chat completions and embeddings: OpenAI itself, and the rows of `compatible.toml`.

Source: https://platform.openai.com/docs/api-reference. Options: `headers` (a table added to every
request), `stream_options = false` for servers that refuse that field.
"""

from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec

from nexus.core.errors import NexusError, TooLarge
from nexus.llm import chat_json
from nexus.llm.account import Endpoint
from nexus.llm.client import HttpAnswer, HttpRequest
from nexus.llm.errors import (
    ContextTooLong,
    UpstreamMalformed,
    UpstreamRejected,
    UpstreamTruncated,
    from_status,
    from_stream,
    retry_after_seconds,
)
from nexus.llm.provider import Decoder, Provider
from nexus.llm.sse import EventSplitter, data_of
from nexus.llm.types import Call, Chunk, Completion, Embedding, EmbeddingRequest, Tally, Usage

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode
EMBEDDINGS = "openai.embeddings"
_TOO_LONG = ("context_length_exceeded", "exceed_context_size_error")


class OpenAIProvider(Provider):
    """Chat completions and embeddings over HTTP."""

    dialect = chat_json.DIALECT
    base_url = "https://api.openai.com/v1"
    environment = "OPENAI_API_KEY"

    def chat(self, endpoint: Endpoint, model: str, call: Call) -> HttpRequest:
        """Write a chat request; of a call in this dialect only `model` and `stream_options` are replaced."""
        stream_usage = endpoint.options.get("stream_options") is not False
        headers: tuple[tuple[bytes, bytes], ...] = ()
        if call.dialect == self.dialect:
            body, headers = _splice(call, model, stream_usage=stream_usage), call.headers
        else:
            body = _encode(chat_json.write_request(call.parse(), model, stream=call.stream, stream_usage=stream_usage))
        return self._post(endpoint, "/chat/completions", body, headers)

    def completion(self, answer: HttpAnswer) -> Completion:
        """Read a whole answer."""
        body = _json(answer.body)
        if body.get("error") is not None and not body.get("choices"):
            raise from_stream(body["error"])
        try:
            return chat_json.read_completion(body)
        except (KeyError, TypeError, AttributeError, ValueError):
            raise UpstreamMalformed from None

    def decoder(self, call: Call) -> Decoder:
        """Return a reader for one stream."""
        return OpenAIDecoder(call.choices)

    def embed(self, endpoint: Endpoint, model: str, request: EmbeddingRequest) -> HttpRequest:
        """Write an embedding request; our own ask for base64, a quarter of the bytes."""
        if request.dialect == EMBEDDINGS:
            fields = _fields.decode(request.body)
            body = _encode(fields | {"model": msgspec.Raw(_encode(model))})
        else:
            more = {"dimensions": request.dimensions, "user": request.user}
            own = {"model": model, "input": request.input, "encoding_format": "base64"}
            body = _encode(own | {name: value for name, value in more.items() if value is not None})
        return self._post(endpoint, "/embeddings", body, ())

    def embedding(self, answer: HttpAnswer, request: EmbeddingRequest) -> Embedding:
        """Read an embedding answer, base64 or lists of numbers, back in the order asked."""
        body = _json(answer.body)
        if body.get("error") is not None and not body.get("data"):
            raise from_stream(body["error"])
        try:
            data = sorted(body["data"], key=lambda item: item["index"])
            vectors = () if request.dialect == EMBEDDINGS else tuple(_vector(item["embedding"]) for item in data)
            used = (body.get("usage") or {}).get("prompt_tokens")
            return Embedding(
                model=body.get("model") or "",
                vectors=vectors,
                dimensions=len(vectors[0]) // 4 if vectors else 0,
                usage=Usage(input_tokens=used) if isinstance(used, int) and used > 0 else None,
                body=answer.body if request.dialect == EMBEDDINGS else b"",
            )
        except (KeyError, TypeError, ValueError, AttributeError, struct.error):
            raise UpstreamMalformed from None

    def error(self, answer: HttpAnswer) -> NexusError:
        """Turn an error answer into ours; the provider's words are kept only where the fault is the caller's."""
        told = _told(answer.body)
        message, code = told.get("message"), told.get("code")
        message = message[:2000] if isinstance(message, str) and message else None
        if code in _TOO_LONG or told.get("type") in _TOO_LONG:
            return ContextTooLong(message, field="messages")
        if answer.status == 413:
            return TooLarge("The provider finds the request too large.")
        wait = answer.headers.get("retry-after-ms")
        after = (
            float(wait) / 1000 if wait and wait.isdigit() else retry_after_seconds(answer.headers.get("retry-after"))
        )
        error = from_status(answer.status, message=message, body=answer.body, retry_after=after)
        if isinstance(error, UpstreamRejected) and isinstance(param := told.get("param"), str):
            error.field = param
        return error

    def _post(self, endpoint: Endpoint, path: str, body: bytes, more: tuple[tuple[bytes, bytes], ...]) -> HttpRequest:
        headers = [("content-type", "application/json")]
        if endpoint.secret is not None:
            headers.append(("authorization", f"Bearer {endpoint.secret.reveal()}"))
        headers += [(name.decode("latin-1"), value.decode("latin-1")) for name, value in more]
        headers += endpoint.options.get("headers", {}).items()
        return HttpRequest(url=endpoint.base_url + path, body=body, headers=tuple(headers))


class OpenAIDecoder:
    """Reads a stream of chat-completion chunks."""

    def __init__(self, choices: int = 1) -> None:
        """Expect the end of `choices` answers."""
        self.tally = Tally()
        self._choices = choices
        self._splitter = EventSplitter()

    def feed(self, data: bytes) -> list[Chunk]:
        """Return the pieces that `data` completes."""
        return self._pass(self._splitter.feed(data))

    def end(self) -> list[Chunk]:
        """Return the rest. Raises `UpstreamTruncated` when no end was seen."""
        rest = self._pass(self._splitter.end())
        if isinstance(self.tally.failure, UpstreamMalformed):
            self.tally.failure = UpstreamTruncated()
        if not self.tally.done and self.tally.failure is None and self.tally.finished < self._choices:
            raise UpstreamTruncated
        return rest

    def _pass(self, events: list[bytes]) -> list[Chunk]:
        chunks: list[Chunk] = []
        try:
            for event in events:
                chunks += self._read(event)
        except NexusError as error:
            self.tally.failure = error
        return chunks

    def _read(self, event: bytes) -> list[Chunk]:
        data = data_of(event)
        if data is None or self.tally.done:
            return []
        if data.strip() == b"[DONE]":
            self.tally.done = True
            return []
        body = _json(data)
        if body.get("error") is not None:
            raise from_stream(body["error"])
        try:
            chunks = chat_json.read_chunk(body)
        except (TypeError, AttributeError, ValueError):
            raise UpstreamMalformed from None
        self.tally.events += 1
        for chunk in chunks:
            self._count(chunk)
        return chunks

    def _count(self, chunk: Chunk) -> None:
        tally = self.tally
        tally.characters += len(chunk.text or "") + len(chunk.thinking or "") + len(chunk.refusal or "")
        if chunk.tool is not None:
            tally.characters += len(chunk.tool.arguments)
        if chunk.finish_reason is not None:
            tally.finished += 1
            tally.finish_reason = chunk.native_finish_reason
        if chunk.usage is not None:
            tally.usage = chunk.usage


def _splice(call: Call, model: str, *, stream_usage: bool) -> bytes:
    """Replace the model's name and ask for usage; every other field keeps its very bytes."""
    if not call.stream and model == call.model:
        return call.body
    fields = _fields.decode(call.body)
    fields["model"] = msgspec.Raw(_encode(model))
    if call.stream and stream_usage:
        options = fields.get("stream_options")
        given = _fields.decode(options) if options is not None and bytes(options).startswith(b"{") else {}
        fields["stream_options"] = msgspec.Raw(_encode(given | {"include_usage": msgspec.Raw(b"true")}))
    return _encode(fields)


def _json(data: bytes) -> dict[str, Any]:
    try:
        body = _any.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamMalformed from None
    if not isinstance(body, dict):
        raise UpstreamMalformed
    return body


def _told(data: bytes) -> dict[str, Any]:
    """Return what an error body says: `{"error": {...}}`, `{"error": "..."}`, or `{"message": "..."}`."""
    try:
        body = _any.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if not isinstance(body, dict):
        return {}
    told = body.get("error", body)
    return told if isinstance(told, dict) else {"message": told}


def _vector(value: Any) -> bytes:
    if isinstance(value, str):
        return base64.b64decode(value, validate=True)
    return struct.pack(f"<{len(value)}f", *value)


plug = OpenAIProvider()
