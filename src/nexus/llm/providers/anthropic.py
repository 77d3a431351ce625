"""Anthropic's Messages API, and any server that speaks it.

Source: https://platform.claude.com/docs/en/api. `base_url` may end in `/v1` or before it. Options: `headers`
(a table added to every request), `auth = "bearer"` for hosts that want the key as a bearer token.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nexus.core.errors import NexusError
from nexus.llm.account import Endpoint
from nexus.llm.errors import Unsupported, UpstreamMalformed, UpstreamTruncated, retry_after_seconds
from nexus.llm.forms.messages import requests as messages_requests
from nexus.llm.forms.messages.answers import AnswerReader, read_answer, read_error
from nexus.llm.provider import Decoder, Provider
from nexus.llm.types import Call, Capabilities, Chunk, Completion, Embedding, EmbeddingRequest, Tally
from nexus.llm.wire.client import HttpAnswer, HttpRequest
from nexus.llm.wire.sse import EventSplitter, data_of
from nexus.llm.wire.upstream_json import json_of

_VERSION = "2023-06-01"
# What counting takes of a request.
_COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


class AnthropicProvider(Provider):
    """Messages and token counts over HTTP."""

    dialect = messages_requests.DIALECT
    base_url = "https://api.anthropic.com"
    environment = "ANTHROPIC_API_KEY"
    capabilities = Capabilities(audio=False, choices=False, logprobs=False)

    def chat(self, endpoint: Endpoint, model: str, call: Call) -> HttpRequest:
        """Write a chat request; of a call in this dialect only `model` is replaced."""
        if call.dialect == self.dialect:
            return _post(endpoint, "/messages", _splice(call, model), call.headers)
        return _post(
            endpoint, "/messages", _encode(messages_requests.write_request(call.parse(), model, stream=call.stream))
        )

    def completion(self, answer: HttpAnswer) -> Completion:
        """Read a whole answer."""
        body = json_of(answer.body)
        if body.get("type") == "error":
            raise read_error(body.get("error"))
        try:
            return read_answer(body)
        except (KeyError, TypeError, AttributeError, ValueError):
            raise UpstreamMalformed from None

    def decoder(self, call: Call) -> Decoder:
        """Return a reader for one stream."""
        return AnthropicDecoder()

    def embed(self, endpoint: Endpoint, model: str, request: EmbeddingRequest) -> HttpRequest:
        """Refuse: there are no embeddings here."""
        raise Unsupported("This provider has no embeddings.", field="model")

    def embedding(self, answer: HttpAnswer, request: EmbeddingRequest) -> Embedding:
        """Refuse: there are no embeddings here."""
        raise UpstreamMalformed

    def count(self, endpoint: Endpoint, model: str, call: Call) -> HttpRequest:
        """Write a request that counts tokens."""
        if call.dialect == self.dialect:
            return _post(endpoint, "/messages/count_tokens", _splice(call, model), call.headers)
        body = messages_requests.write_request(call.parse(), model, stream=False)
        counted = {name: body[name] for name in _COUNTED if name in body}
        return _post(endpoint, "/messages/count_tokens", _encode(counted))

    def counted(self, answer: HttpAnswer) -> int:
        """Read the count."""
        tokens = json_of(answer.body).get("input_tokens")
        if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 0:
            raise UpstreamMalformed
        return tokens

    def error(self, answer: HttpAnswer) -> NexusError:
        """Turn an error answer into ours; the provider's words are kept only where the fault is the caller's."""
        after = retry_after_seconds(answer.headers.get("retry-after"))
        try:
            told = json_of(answer.body).get("error")
        except UpstreamMalformed:
            told = None
        return read_error(told, answer.status, body=answer.body, retry_after=after)


class AnthropicDecoder:
    """Reads a stream of Messages events.

    Nothing is given out before the first content: a provider that fails after its greeting has not begun to answer.
    """

    def __init__(self) -> None:
        """Begin before the first event."""
        self.tally = Tally()
        self._splitter = EventSplitter()
        self._reader = AnswerReader()

    def feed(self, data: bytes) -> list[Chunk]:
        """Return the pieces that `data` completes."""
        return self._pass(self._splitter.feed(data))

    def end(self) -> list[Chunk]:
        """Return the rest. Raises `UpstreamTruncated` when no end was seen."""
        rest = self._pass(self._splitter.end())
        if isinstance(self.tally.failure, UpstreamMalformed):
            self.tally.failure = UpstreamTruncated()
        if not self.tally.done and self.tally.failure is None:
            raise UpstreamTruncated
        return rest

    def _pass(self, events: list[bytes]) -> list[Chunk]:
        chunks: list[Chunk] = []
        try:
            for event in events:
                data = data_of(event)
                if data is not None and not self.tally.done:
                    chunks += self._read(json_of(data))
        except NexusError as error:
            self.tally.failure = error
        return chunks

    def _read(self, event: dict[str, Any]) -> list[Chunk]:
        kind = event.get("type")
        if kind == "error" or event.get("error") is not None:
            raise read_error(event.get("error"))
        try:
            chunks = self._reader.read(event)
        except (KeyError, TypeError, AttributeError, ValueError):
            raise UpstreamMalformed from None
        tally = self.tally
        tally.events += 1
        tally.done = kind == "message_stop"
        if kind in ("message_start", "message_delta"):
            tally.usage = self._reader.usage
        for chunk in chunks:
            tally.hear(chunk)
        return chunks


def _splice(call: Call, model: str) -> bytes:
    """Replace the model's name; every other field keeps its very bytes."""
    if model == call.model:
        return call.body
    return _encode(_fields.decode(call.body) | {"model": msgspec.Raw(_encode(model))})


def _post(endpoint: Endpoint, path: str, body: bytes, given: tuple[tuple[bytes, bytes], ...] = ()) -> HttpRequest:
    headers = {"content-type": "application/json", "anthropic-version": _VERSION}
    if endpoint.secret is not None:
        if endpoint.options.get("auth") == "bearer":
            headers["authorization"] = f"Bearer {endpoint.secret.reveal()}"
        else:
            headers["x-api-key"] = endpoint.secret.reveal()
    headers |= {name.decode("latin-1"): value.decode("latin-1") for name, value in given}
    headers |= endpoint.options.get("headers", {})
    base = endpoint.base_url if endpoint.base_url.endswith("/v1") else f"{endpoint.base_url}/v1"
    return HttpRequest(url=base + path, body=body, headers=tuple(headers.items()))


plug = AnthropicProvider()
