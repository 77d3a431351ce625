"""Any server that speaks OpenAI's chat completions and embeddings: OpenAI itself, and the rows of `compatible.toml`.

Source: https://platform.openai.com/docs/api-reference. Options:

- `headers`: a table added to every request
- `stream_options`: false for servers that refuse that field
- `responses`, `completions`: whether the server has these endpoints too; "ask" finds out by the first call
- `rename`: a table of what parameters are called there, "" where there is no such one; for calls in other forms
- `reasoning_field`: where the server wants earlier reasoning back (`reasoning_content`, `reasoning`); else nowhere
- `max_completion_tokens`: whether the limit of output has this name; else that depends on the model's
- `web_search`: whether the server takes `web_search_options`, for calls in other forms
- `cache_control`: whether marks for caches are taken as Anthropic has them; else they stay behind
- `foreign_state`: false to refuse previous responses and conversations that were not made through this instance
"""

from __future__ import annotations

import re
from typing import Any

from nexus.core.errors import NexusError
from nexus.llm.account import Account, Endpoint
from nexus.llm.errors import UpstreamMalformed, UpstreamTruncated, UpstreamUnavailable, from_stream
from nexus.llm.forms.chat import answers as chat_answers
from nexus.llm.forms.chat import requests as chat_requests
from nexus.llm.forms.chat.calls import Calls
from nexus.llm.forms.chat.completions import as_chat
from nexus.llm.provider import Decoder, Provider
from nexus.llm.providers.openai_responses import OpenAIResponsesProvider
from nexus.llm.types import Call, Chunk, Completion, Tally
from nexus.llm.wire.client import HttpAnswer, HttpRequest
from nexus.llm.wire.openai import OpenAIWire, encode, lacks_endpoint, splice
from nexus.llm.wire.sse import EventSplitter, data_of
from nexus.llm.wire.upstream_json import json_of

COMPLETIONS = "openai.completions"
_OLD = re.compile(r"gpt-3\.5-turbo-instruct|davinci|babbage|ft:(?:davinci|babbage)")


class OpenAIProvider(OpenAIWire):
    """Chat completions, and what lies beside them."""

    dialect = chat_requests.DIALECT
    responses: type[OpenAIResponsesProvider] = OpenAIResponsesProvider

    def __init__(self) -> None:
        """Know of no upstream yet which endpoints it lacks."""
        self._without_responses: set[str] = set()
        self._without_completions: set[str] = set()

    def serving(self, account: Account, model: str, call: Call) -> Provider:
        """Return the codec nearest to the caller's dialect that the upstream has."""
        if call.dialect == self.dialect:
            return self
        if call.dialect == self.responses.dialect and self._has(account, "responses", self._without_responses):
            asking = None if account.options.get("responses") is True else self._without_responses
            return self.responses(f"{account.name}/{model}", asking)
        # OpenAI's own models are for chats, but for a few.
        fits = account.base_url != OpenAIWire.base_url or _OLD.match(model)
        if call.dialect == COMPLETIONS and fits and self._has(account, "completions", self._without_completions):
            return OpenAICompletionsProvider(self, self._without_completions)
        return self

    def _has(self, account: Account, endpoint: str, missing: set[str]) -> bool:
        told = account.options.get(endpoint, "ask" if account.kind == "openai" else False)
        return told is True or (told == "ask" and account.base_url not in missing)

    def chat(self, endpoint: Endpoint, model: str, call: Call) -> HttpRequest:
        """Write a chat request; of a call in this dialect only `model` and `stream_options` are replaced."""
        stream_usage = endpoint.options.get("stream_options") is not False
        headers: tuple[tuple[bytes, bytes], ...] = ()
        if call.dialect == self.dialect:
            body, headers = splice(call, model, stream_usage=stream_usage), call.headers
        else:
            ways = chat_requests.Ways(
                stream_usage=stream_usage,
                reasoning_field=endpoint.options.get("reasoning_field"),
                newer_limit=endpoint.options.get("max_completion_tokens"),
                rename=endpoint.options.get("rename", {}),
                document_url=endpoint.options.get("document_url") is True,
                cache_control=endpoint.options.get("cache_control") is True,
                web_search=endpoint.options.get("web_search") is True,
                short_ids=endpoint.options.get("short_ids") is True,
            )
            body = encode(chat_requests.write_request(call.parse(), model, stream=call.stream, ways=ways))
        return self.request(endpoint, "/chat/completions", body, model, headers)

    def completion(self, answer: HttpAnswer) -> Completion:
        """Read a whole answer."""
        body = json_of(answer.body)
        if body.get("error") is not None and not body.get("choices"):
            raise from_stream(body["error"])
        try:
            return chat_answers.read_completion(self._in_chats_words(body))
        except (KeyError, TypeError, AttributeError, ValueError):
            raise UpstreamMalformed from None

    def _in_chats_words(self, body: dict[str, Any]) -> dict[str, Any]:
        return body

    def decoder(self, call: Call) -> Decoder:
        """Return a reader for one stream."""
        return OpenAIDecoder(call.choices)


class OpenAICompletionsProvider(OpenAIProvider):
    """The older completions of a text, for clients that ask for them: byte for byte."""

    dialect = COMPLETIONS

    def __init__(self, kind: OpenAIProvider, missing: set[str]) -> None:
        """Send requests as `kind` does; note in `missing` an upstream without this endpoint."""
        super().__init__()
        self._kind = kind
        self._missing = missing
        self._base_url = ""

    def chat(self, endpoint: Endpoint, model: str, call: Call) -> HttpRequest:
        """Write a request; only `model` and `stream_options` are replaced."""
        self._base_url = endpoint.base_url
        body = splice(call, model, stream_usage=endpoint.options.get("stream_options") is not False)
        return self._kind.request(endpoint, "/completions", body, model, call.headers)

    def _in_chats_words(self, body: dict[str, Any]) -> dict[str, Any]:
        if not body.get("choices"):
            raise KeyError("choices")
        return as_chat(body)

    def decoder(self, call: Call) -> Decoder:
        """Return a reader for one stream."""
        return OpenAICompletionsDecoder(call.choices)

    def error(self, answer: HttpAnswer) -> NexusError:
        """Turn an error answer into ours; notice that the upstream has no such endpoint."""
        if lacks_endpoint(answer):
            self._missing.add(self._base_url)
            return UpstreamUnavailable("The provider does not have this endpoint.")
        return self._kind.error(answer)


class OpenAIDecoder:
    """Reads a stream of chat-completion chunks."""

    def __init__(self, choices: int = 1) -> None:
        """Expect the end of `choices` answers."""
        self.tally = Tally()
        self._choices = choices
        self._calls: dict[int, Calls] = {}
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
        body = json_of(data)
        if body.get("error") is not None:
            raise from_stream(body["error"])
        try:
            chunks = chat_answers.read_chunk(self._in_chats_words(body), self._calls)
        except (TypeError, AttributeError, ValueError):
            raise UpstreamMalformed from None
        self.tally.events += 1
        for chunk in chunks:
            self.tally.hear(chunk)
        return chunks

    def _in_chats_words(self, body: dict[str, Any]) -> dict[str, Any]:
        return body


class OpenAICompletionsDecoder(OpenAIDecoder):
    """Reads a stream of the older completions."""

    def _in_chats_words(self, body: dict[str, Any]) -> dict[str, Any]:
        return as_chat(body, said="delta")


plug = OpenAIProvider()
