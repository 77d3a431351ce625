"""Servers that speak OpenAI's Responses form: `POST /responses`, plain, streamed, and counted.

Source: https://platform.openai.com/docs/api-reference/responses. As a kind of its own it is for models that are
offered in this form only; the kind that speaks chat completions hands it out for calls in the Responses dialect.
Options: those of that kind, and `foreign_state = false` to refuse previous responses and conversations that were
not made through this instance.
"""

from __future__ import annotations

import re

import msgspec

from nexus.core.errors import NexusError
from nexus.llm.account import Account, Endpoint
from nexus.llm.errors import (
    UpstreamMalformed,
    UpstreamTruncated,
    UpstreamUnavailable,
)
from nexus.llm.forms.responses.answers import read_response
from nexus.llm.forms.responses.events import EventReader
from nexus.llm.forms.responses.items import DIALECT
from nexus.llm.forms.responses.requests import ResponsesCall, write_request
from nexus.llm.provider import Decoder, Provider
from nexus.llm.types import Call, Chunk, Completion, Tally
from nexus.llm.wire.client import HttpAnswer, HttpRequest
from nexus.llm.wire.openai import OpenAIWire, encode, lacks_endpoint
from nexus.llm.wire.sse import EventSplitter, data_of
from nexus.llm.wire.upstream_json import json_of

_THINKS = re.compile(r"(?:^|/)(?:o\d|gpt-(?:[5-9]|\d\d)|codex|gpt-oss)", re.ASCII)
# What a request has that its tokens are not counted by.
_UNCOUNTED = ("stream", "store", "include", "max_output_tokens", "temperature", "top_p", "top_logprobs", "user")


class OpenAIResponsesProvider(OpenAIWire):
    """Responses over HTTP."""

    dialect = DIALECT

    def __init__(self, place: str = "", missing: set[str] | None = None) -> None:
        """Serve the deployment `place` ("account/model"); note in `missing` an upstream without this endpoint."""
        self._place = place
        self._missing = missing
        self._base_url = ""

    def serving(self, account: Account, model: str, call: Call) -> Provider:
        """Return the codec that knows which deployment it serves: stored responses lie where they were made."""
        return type(self)(f"{account.name}/{model}", self._missing)

    def chat(self, endpoint: Endpoint, model: str, call: Call) -> HttpRequest:
        """Write a request; of a call in this dialect every field is kept."""
        self._base_url = endpoint.base_url
        return self.request(endpoint, "/responses", self._body(endpoint, model, call), model, _headers(call))

    def count(self, endpoint: Endpoint, model: str, call: Call) -> HttpRequest | None:
        """Write a request that counts tokens."""
        body = self._body(endpoint, model, call)
        if call.dialect != self.dialect:
            fields = json_of(body)
            body = encode({name: value for name, value in fields.items() if name not in _UNCOUNTED})
        return self.request(endpoint, "/responses/input_tokens", body, model, _headers(call))

    def counted(self, answer: HttpAnswer) -> int:
        """Read the answer to `count`. Raises `UpstreamMalformed`."""
        tokens = json_of(answer.body).get("input_tokens")
        if not isinstance(tokens, int):
            raise UpstreamMalformed
        return tokens

    def _body(self, endpoint: Endpoint, model: str, call: Call) -> bytes:
        if isinstance(call, ResponsesCall):
            trusting = endpoint.options.get("foreign_state") is not False
            return call.body_for(self._place, model, trusting=trusting)
        thinks = _THINKS.search(model) is not None
        return encode(write_request(call.parse(), model, stream=call.stream, thinks=thinks))

    def completion(self, answer: HttpAnswer) -> Completion:
        """Read a whole answer."""
        try:
            return read_response(json_of(answer.body))
        except (KeyError, TypeError, AttributeError, ValueError):
            raise UpstreamMalformed from None

    def decoder(self, call: Call) -> Decoder:
        """Return a reader for one stream."""
        return ResponsesDecoder()

    def error(self, answer: HttpAnswer) -> NexusError:
        """Turn an error answer into ours; notice that the upstream has no such endpoint."""
        if self._missing is not None and lacks_endpoint(answer):
            self._missing.add(self._base_url)
            return UpstreamUnavailable("The provider does not have this endpoint.")
        return super().error(answer)


def _headers(call: Call) -> tuple[tuple[bytes, bytes], ...]:
    """Return what a client of this form sends beside the body; another form's headers are not for this provider."""
    return call.headers if call.dialect == DIALECT else ()


class ResponsesDecoder:
    """Reads a stream of events."""

    def __init__(self) -> None:
        """Begin."""
        self.tally = Tally()
        self._splitter = EventSplitter(limit=64_000_000)
        self._reader = EventReader()

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
                chunks += self._read(event)
        except NexusError as error:
            self.tally.failure = error
        return chunks

    def _read(self, event: bytes) -> list[Chunk]:
        data = data_of(event)
        if data is None or self.tally.done or data.strip() == b"[DONE]":
            return []
        try:
            chunks = self._reader.read(json_of(data))
        except (KeyError, TypeError, AttributeError, ValueError, msgspec.ValidationError):
            raise UpstreamMalformed from None
        tally = self.tally
        tally.events += 1
        for chunk in chunks:
            tally.hear(chunk)
        tally.done = self._reader.ended
        return chunks


plug = OpenAIResponsesProvider()
