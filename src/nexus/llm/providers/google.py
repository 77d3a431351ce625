"""The Gemini API, with an API key.

Source: https://ai.google.dev/api. Options: `headers` (a table added to every request).
"""

from __future__ import annotations

import re
import struct
from typing import Any
from urllib.parse import quote

import msgspec

from nexus.core.errors import NexusError
from nexus.llm.account import Endpoint
from nexus.llm.errors import UpstreamMalformed, UpstreamTruncated, retry_after_seconds
from nexus.llm.forms.chat.embeddings import refuse_rest
from nexus.llm.forms.gemini import embeddings as gemini_embeddings
from nexus.llm.forms.gemini import requests as gemini_requests
from nexus.llm.forms.gemini.answers import AnswerReader, read_completion
from nexus.llm.forms.gemini.errors import read_error, told_in, told_of
from nexus.llm.forms.gemini.names import plain
from nexus.llm.forms.gemini.parts import DIALECT
from nexus.llm.forms.gemini.stream import Piece, PieceSplitter
from nexus.llm.provider import Decoder, Provider
from nexus.llm.types import Call, Chunk, Completion, Embedding, EmbeddingRequest, Tally
from nexus.llm.wire.client import HttpAnswer, HttpRequest

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode
_REPEATS_MODEL = re.compile(rb'"model"\s*:')
_STRANGE = (KeyError, TypeError, AttributeError, ValueError, IndexError, RecursionError, struct.error)


class GoogleProvider(Provider):
    """Chat, embeddings and counting over HTTP."""

    dialect = DIALECT
    base_url = "https://generativelanguage.googleapis.com/v1beta"
    environment: str | None = "GEMINI_API_KEY"
    json_streams = True

    def chat(self, endpoint: Endpoint, model: str, call: Call) -> HttpRequest:
        """Write a chat request; a call in this dialect keeps its body and the form that it asks for."""
        operation = "streamGenerateContent" if call.stream else "generateContent"
        if call.dialect == self.dialect:
            return self._post(endpoint, model, operation, self._own(call.body, model), call.form, call.headers)
        body = _encode(gemini_requests.write_request(call.parse(), model))
        return self._post(endpoint, model, operation, body, "alt=sse" if call.stream else "")

    def completion(self, answer: HttpAnswer) -> Completion:
        """Read a whole answer."""
        body = _json(answer.body)
        if (told := told_of(body)) is not None:
            raise read_error(told)
        try:
            return read_completion(plain(body))
        except _STRANGE:
            raise UpstreamMalformed from None

    def decoder(self, call: Call) -> Decoder:
        """Return a reader for one stream."""
        return GoogleDecoder()

    def embed(self, endpoint: Endpoint, model: str, request: EmbeddingRequest) -> HttpRequest:
        """Write an embedding request; one in this dialect keeps its body and its form."""
        if request.dialect == gemini_embeddings.DIALECT:
            return self._post(endpoint, model, request.form, self._own(request.body, model))
        refuse_rest(request)
        body = _encode(gemini_embeddings.write_batch(request, f"models/{model.removeprefix('models/')}"))
        return self._post(endpoint, model, gemini_embeddings.BATCH, body)

    def most_inputs(self, endpoint: Endpoint, model: str) -> int | None:
        """Return how many texts one request may have."""
        return 100

    def embedding(self, answer: HttpAnswer, request: EmbeddingRequest) -> Embedding:
        """Read an embedding answer; one in the caller's own dialect is kept as `body`."""
        body = _json(answer.body)
        if (told := told_of(body)) is not None:
            raise read_error(told)
        try:
            found = gemini_embeddings.read_answer(body, request.model)
        except _STRANGE:
            raise UpstreamMalformed from None
        if request.dialect != gemini_embeddings.DIALECT:
            return found
        return msgspec.structs.replace(found, vectors=(), body=answer.body)

    def count(self, endpoint: Endpoint, model: str, call: Call) -> HttpRequest | None:
        """Write a request that counts the tokens of `call`."""
        if call.dialect == self.dialect:
            return self._post(endpoint, model, "countTokens", self._own(call.body, model), "", call.headers)
        asked = {"model": f"models/{model.removeprefix('models/')}"} | gemini_requests.write_request(
            call.parse(), model
        )
        return self._post(endpoint, model, "countTokens", _encode({"generateContentRequest": asked}))

    def counted(self, answer: HttpAnswer) -> int:
        """Read the answer to `count`."""
        body = _json(answer.body)
        if not isinstance(body, dict) or not isinstance(tokens := body.get("totalTokens", 0), int):
            raise UpstreamMalformed
        return tokens

    def error(self, answer: HttpAnswer) -> NexusError:
        """Turn an error answer into ours; the provider's words are kept only where the fault is the caller's."""
        after = retry_after_seconds(answer.headers.get("retry-after"))
        return read_error(told_in(answer.body), status=answer.status, retry_after=after, body=answer.body)

    def _own(self, body: bytes, model: str) -> bytes:
        """Return a body of this dialect for `model`; every field but the model's name keeps its very bytes."""
        return with_model(body, f"models/{model.removeprefix('models/')}")

    def _place(self, endpoint: Endpoint, model: str) -> str:
        """Return the URL of a model."""
        kind, slash, name = model.partition("/")
        if not slash or kind not in ("models", "tunedModels"):
            kind, name = "models", model
        return f"{endpoint.base_url}/{kind}/{quote(name, safe='')}"

    def _credential(self, endpoint: Endpoint) -> list[tuple[str, str]]:
        """Return the headers that open the door."""
        return [("x-goog-api-key", endpoint.secret.reveal())] if endpoint.secret is not None else []

    def _post(
        self,
        endpoint: Endpoint,
        model: str,
        operation: str,
        body: bytes,
        form: str = "",
        more: tuple[tuple[bytes, bytes], ...] = (),
    ) -> HttpRequest:
        headers = [("content-type", "application/json"), *self._credential(endpoint)]
        headers += [(name.decode("latin-1"), value.decode("latin-1")) for name, value in more]
        headers += endpoint.options.get("headers", {}).items()
        url = f"{self._place(endpoint, model)}:{operation}" + (f"?{form}" if form else "")
        return HttpRequest(url=url, body=body, headers=tuple(headers))


class GoogleDecoder:
    """Reads a stream, whether it comes as events or as an array."""

    def __init__(self) -> None:
        """Begin before the first byte."""
        self.tally = Tally()
        self._splitter = PieceSplitter()
        self._reader = AnswerReader()

    def feed(self, data: bytes) -> list[Chunk]:
        """Return the pieces that `data` completes."""
        try:
            chunks = self._pass(self._splitter.feed(data))
        except NexusError as error:
            self.tally.failure = error
            return []
        if self._splitter.closed and self.tally.failure is None and not self._reader.finished:
            self.tally.failure = UpstreamTruncated()
        return chunks + self._close() if self._splitter.closed else chunks

    def end(self) -> list[Chunk]:
        """Return the rest, the usage last. Raises `UpstreamTruncated` when an answer had begun and not ended."""
        rest = self._pass(self._splitter.end())
        if isinstance(self.tally.failure, UpstreamMalformed):
            self.tally.failure = UpstreamTruncated()
        if self.tally.failure is None and not self.tally.done and not self._reader.finished:
            raise UpstreamTruncated
        return rest + self._close()

    def _close(self) -> list[Chunk]:
        if self.tally.done or self.tally.failure is not None:
            return []
        self.tally.done = True
        return [Chunk(usage=self.tally.usage)] if self.tally.usage is not None else []

    def _pass(self, pieces: list[Piece]) -> list[Chunk]:
        chunks: list[Chunk] = []
        try:
            for piece in pieces:
                chunks += self._read(piece.data)
        except NexusError as error:
            self.tally.failure = error
        return chunks

    def _read(self, data: bytes) -> list[Chunk]:
        body = _json(data)
        if (told := told_of(body)) is not None:
            raise read_error(told)
        try:
            chunks = self._reader.read(plain(body))
        except _STRANGE:
            raise UpstreamMalformed from None
        tally = self.tally
        tally.events += 1
        tally.usage = self._reader.usage
        for chunk in chunks:
            tally.hear(chunk)
        return chunks


def with_model(body: bytes, name: str) -> bytes:
    """Put the model's name in the places where a body repeats it; where it does not, return the very bytes."""
    if not _REPEATS_MODEL.search(body):
        return body
    told, new = _fields.decode(body), {"model": msgspec.Raw(_encode(name))}
    changed = new if "model" in told else {}
    for field in ("generateContentRequest", "generate_content_request"):
        if field in told:
            changed[field] = msgspec.Raw(_encode(_fields.decode(told[field]) | new))
    if "requests" in told:
        changed["requests"] = msgspec.Raw(_encode([one | new for one in _list.decode(told["requests"])]))
    return _encode(told | changed) if changed else body


def _json(data: bytes) -> Any:
    try:
        body = _any.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamMalformed from None
    if not isinstance(body, dict | list):
        raise UpstreamMalformed
    return body


plug = GoogleProvider()
